package rest

import (
	"bytes"
	"slices"
	"strings"

	"github.com/fasthttp/router"
	"github.com/valyala/fasthttp"
)

// access says who may call a route.
type access int

const (
	public       access = iota // anybody; no credential is looked at
	probe                      // anybody, at any rate: what watches the server
	buyerOnly                  // a buyer, for themselves
	adminOrBuyer               // a buyer for what is theirs, an admin for all
	adminOnly
)

// route is one of the API: a path with a method, and who may call it.
type route struct {
	method, path string
	access       access
	handle       handler
}

func (r *route) String() string { return r.method + " " + r.path }

// routes are all there are.
func (s *Server) routes() []route {
	return []route{
		{"POST", "/users", adminOnly, s.createUser},
		{"GET", "/users/{id}", adminOrBuyer, s.getUser},
		{"POST", "/balance/charge", buyerOnly, s.charge},
		{"GET", "/balance", buyerOnly, s.balance},
		{"POST", "/products", adminOnly, s.createProduct},
		{"GET", "/products", public, s.listProducts},
		{"GET", "/products/top", public, s.topProducts},
		{"GET", "/products/{id}", public, s.getProduct},
		{"PATCH", "/products/{id}", adminOnly, s.updateProduct},
		{"POST", "/products/{id}/stock", adminOnly, s.restock},
		{"POST", "/order", buyerOnly, s.placeOrder},
		{"GET", "/order/{id}", adminOrBuyer, s.getOrder},
		{"POST", "/order/{id}/payment", buyerOnly, s.pay},
		{"POST", "/order/{id}/cancel", adminOrBuyer, s.cancel},
		{"GET", "/orders", adminOrBuyer, s.listOrders},
		{"POST", batchPath, adminOnly, s.placeBatch},
		{"POST", "/cart/add", buyerOnly, s.addToCart},
		{"DELETE", "/cart/remove", buyerOnly, s.removeFromCart},
		{"GET", "/cart", buyerOnly, s.getCart},
		{"POST", "/cart/order", buyerOnly, s.orderCart},
		{"GET", "/reports/sales", adminOnly, s.salesReport},
		{"GET", "/reports/users/{id}/ledger", adminOnly, s.userLedger},
		{"GET", "/healthz", probe, s.healthz},
		{"GET", "/readyz", probe, s.readyz},
		{"GET", "/metrics", probe, s.serveMetrics},
		{"GET", "/openapi.json", public, s.openapi},
		{"GET", "/docs", public, s.docs},
		{"GET", "/docs/{file}", public, s.docsFile},
	}
}

func (s *Server) handler() fasthttp.RequestHandler {
	r := router.New()
	// A POST must not be answered by a redirect.
	r.RedirectTrailingSlash = false
	r.RedirectFixedPath = false
	r.HandleOPTIONS = false
	allowed := s.exactPaths()
	wrong := s.serve(noRoute, public, func(ctx *fasthttp.RequestCtx, _ caller) error { return methodNotAllowed(ctx, allowed) })
	r.NotFound = s.serve(noRoute, public, func(*fasthttp.RequestCtx, caller) error { return pathNotFound })
	r.MethodNotAllowed = wrong
	for _, route := range s.routes() {
		h := s.serve(route.String(), route.access, route.handle)
		if strings.Contains(route.path, "{") {
			h = unlessExact(h, wrong, allowed)
		}
		r.Handle(route.method, route.path, h)
		if route.method == fasthttp.MethodGet {
			r.HEAD(route.path, h) // the same without the body (RFC 9110, 9.1)
		}
	}
	return r.Handler
}

// exactPaths returns the methods of each path that has no parameter, as Allow names them.
func (s *Server) exactPaths() map[string]string {
	allowed := map[string]string{}
	for _, route := range s.routes() {
		methods := route.method
		if methods == fasthttp.MethodGet {
			methods = "GET, HEAD"
		}
		if before := allowed[route.path]; before != "" {
			methods = before + ", " + methods
		}
		if !strings.Contains(route.path, "{") {
			allowed[route.path] = methods
		}
	}
	return allowed
}

// unlessExact keeps a path with parameters from taking what is a path of its own under another method: the router
// would have PATCH /products/top change the product "top".
func unlessExact(h, wrong fasthttp.RequestHandler, exact map[string]string) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		if _, found := exact[string(ctx.URI().PathOriginal())]; found {
			wrong(ctx)
			return
		}
		h(ctx)
	}
}

// methodNotAllowed corrects what the router found.
func methodNotAllowed(ctx *fasthttp.RequestCtx, exact map[string]string) error {
	path := ctx.URI().PathOriginal()
	if bytes.Contains(path, []byte("//")) || bytes.HasSuffix(path, []byte("*")) {
		return pathNotFound // an id is missing, or the router took all routes together
	}
	allow, found := exact[string(path)]
	if !found {
		// The router always names OPTIONS, which no route takes.
		methods := strings.Split(string(ctx.Response.Header.Peek(fasthttp.HeaderAllow)), ", ")
		methods = slices.DeleteFunc(methods, func(method string) bool { return method == fasthttp.MethodOptions })
		allow = strings.Join(methods, ", ")
	}
	ctx.Response.Header.Set(fasthttp.HeaderAllow, allow)
	return wrongMethod
}
