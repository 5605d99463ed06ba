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
		{"POST", "/cart/add", buyerOnly, s.addToCart},
		{"DELETE", "/cart/remove", buyerOnly, s.removeFromCart},
		{"GET", "/cart", buyerOnly, s.getCart},
		{"POST", "/cart/order", buyerOnly, s.orderCart},
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
	r.NotFound = s.serve(noRoute, public, func(*fasthttp.RequestCtx, caller) error { return pathNotFound })
	r.MethodNotAllowed = s.serve(noRoute, public, methodNotAllowed)
	for _, route := range s.routes() {
		h := s.serve(route.String(), route.access, route.handle)
		r.Handle(route.method, route.path, h)
		if route.method == fasthttp.MethodGet {
			r.HEAD(route.path, h) // the same without the body (RFC 9110, 9.1)
		}
	}
	return r.Handler
}

// methodNotAllowed corrects what the router found.
func methodNotAllowed(ctx *fasthttp.RequestCtx, _ caller) error {
	if bytes.Contains(ctx.URI().PathOriginal(), []byte("//")) {
		return pathNotFound // an id is missing
	}
	// It names OPTIONS always, which no route takes.
	allow := strings.Split(string(ctx.Response.Header.Peek(fasthttp.HeaderAllow)), ", ")
	allow = slices.DeleteFunc(allow, func(method string) bool { return method == fasthttp.MethodOptions })
	ctx.Response.Header.Set(fasthttp.HeaderAllow, strings.Join(allow, ", "))
	return wrongMethod
}
