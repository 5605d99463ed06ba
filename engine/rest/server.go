// Package rest is the HTTP surface of Stampede: routes, decoding, encoding, problem+json and who acts.
package rest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/fasthttp/router"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/engine"
)

// Sales is what is decided in Redis: *engine.Engine.
type Sales interface {
	Place(ctx context.Context, r engine.PlaceRequest) (order engine.Order, replayed bool, err error)
	Order(ctx context.Context, id, user int64) (engine.Order, error)
	Charge(ctx context.Context, r engine.ChargeRequest) (c engine.Charged, replayed bool, err error)
	Balance(ctx context.Context, user int64) (int64, error)
	Pay(ctx context.Context, r engine.PayRequest) (order engine.Order, replayed bool, err error)
	Cancel(ctx context.Context, r engine.CancelRequest) (order engine.Order, replayed bool, err error)
	AddToCart(ctx context.Context, r engine.CartAddRequest) (cart engine.Cart, replayed bool, err error)
	RemoveFromCart(ctx context.Context, user, product int64) (engine.Cart, error)
	Cart(ctx context.Context, user int64) (engine.Cart, error)
	OrderCart(ctx context.Context, r engine.CartOrderRequest) (order engine.Order, replayed bool, err error)
	Restock(ctx context.Context, r engine.RestockRequest) (stock int64, replayed bool, err error)
	Product(ctx context.Context, id int64) (engine.Product, error)
	Products(ctx context.Context, after int64, limit int) (products []engine.Product, more bool, err error)
	Top(ctx context.Context, limit int) (asOf time.Time, sellers []engine.Seller, err error)
}

// Registry is what is written to Postgres first, or read from there: *persist.Books.
type Registry interface {
	CreateUser(ctx context.Context, name, email string) (engine.User, error)
	User(ctx context.Context, id int64) (engine.User, error)
	CreateProduct(ctx context.Context, name string, price, stock int64) (engine.Product, error)
	// UpdateProduct changes what is not nil.
	UpdateProduct(ctx context.Context, id int64, name *string, price *int64) (engine.Product, error)
	// Orders returns a user's orders below an id, newest first; before 0: from the newest on.
	Orders(ctx context.Context, user, before int64, limit int) (orders []engine.Order, more bool, err error)
}

// Health says how the shop does, measured when asked.
type Health interface {
	// Check returns the writer's lag in events and what keeps the shop from selling, nothing where all is well.
	Check(ctx context.Context) (lag int64, problems []error)
}

// Config is what a server needs.
type Config struct {
	Sales      Sales
	Registry   Registry
	Health     Health
	AdminToken string
	Metrics    *prometheus.Registry
	Log        *slog.Logger
}

// Limits of HTTP; see the contract.
const (
	bodyMax        = 64 << 10
	headerMax      = 8 << 10
	readTimeout    = 15 * time.Second
	idleTimeout    = 75 * time.Second
	connsPerIPMax  = 10_000
	requestTimeout = 10 * time.Second // for what is answered by Postgres or read from Redis
)

// Server answers HTTP.
type Server struct {
	cfg     Config
	http    *fasthttp.Server
	metrics *metrics
}

// New returns a server that does not listen yet.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.AdminToken == "":
		return nil, errors.New("rest: no admin token")
	case cfg.Sales == nil || cfg.Registry == nil || cfg.Health == nil || cfg.Metrics == nil:
		return nil, errors.New("rest: sales, registry, health and metrics are all needed")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Server{cfg: cfg}
	var err error
	if s.metrics, err = newMetrics(cfg); err != nil {
		return nil, err
	}
	s.http = &fasthttp.Server{
		Handler:                      s.routes(),
		ErrorHandler:                 s.protocolError,
		ReadBufferSize:               headerMax,
		ReadTimeout:                  readTimeout,
		IdleTimeout:                  idleTimeout,
		MaxRequestBodySize:           bodyMax,
		MaxConnsPerIP:                connsPerIPMax,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		Logger:                       quiet{},
	}
	return s, nil
}

// Serve answers requests on ln until Shutdown.
func (s *Server) Serve(ln net.Listener) error { return s.http.Serve(ln) }

// Shutdown ends idle connections and waits for requests under way while ctx lasts.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.ShutdownWithContext(ctx) }

// quiet keeps fasthttp's own words out of the logs: they repeat parts of requests.
type quiet struct{}

// Printf drops the line.
func (quiet) Printf(string, ...any) {}

func (s *Server) routes() fasthttp.RequestHandler {
	r := router.New()
	// A POST must not be answered by a redirect.
	r.RedirectTrailingSlash = false
	r.RedirectFixedPath = false
	r.HandleOPTIONS = false
	r.NotFound = s.route("none", s.notFound)
	r.MethodNotAllowed = s.route("none", s.methodNotAllowed)

	r.POST("/users", s.route("POST /users", s.admin(s.createUser)))
	r.GET("/users/{id}", s.route("GET /users/{id}", s.getUser))
	r.POST("/balance/charge", s.route("POST /balance/charge", s.charge))
	r.GET("/balance", s.route("GET /balance", s.balance))
	r.POST("/products", s.route("POST /products", s.admin(s.createProduct)))
	r.GET("/products", s.route("GET /products", s.listProducts))
	r.GET("/products/top", s.route("GET /products/top", s.topProducts))
	r.GET("/products/{id}", s.route("GET /products/{id}", s.getProduct))
	r.PATCH("/products/{id}", s.route("PATCH /products/{id}", s.admin(s.updateProduct)))
	r.POST("/products/{id}/stock", s.route("POST /products/{id}/stock", s.admin(s.restock)))
	r.POST("/order", s.route("POST /order", s.placeOrder))
	r.GET("/order/{id}", s.route("GET /order/{id}", s.getOrder))
	r.POST("/order/{id}/payment", s.route("POST /order/{id}/payment", s.pay))
	r.POST("/order/{id}/cancel", s.route("POST /order/{id}/cancel", s.cancel))
	r.GET("/orders", s.route("GET /orders", s.listOrders))
	r.POST("/cart/add", s.route("POST /cart/add", s.addToCart))
	r.DELETE("/cart/remove", s.route("DELETE /cart/remove", s.removeFromCart))
	r.GET("/cart", s.route("GET /cart", s.getCart))
	r.POST("/cart/order", s.route("POST /cart/order", s.orderCart))
	r.GET("/healthz", s.route("GET /healthz", s.healthz))
	r.GET("/readyz", s.route("GET /readyz", s.readyz))
	r.GET("/metrics", s.route("GET /metrics", s.serveMetrics))
	return r.Handler
}
