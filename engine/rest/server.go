// Package rest is the HTTP surface of Stampede: routes, decoding, encoding, problem+json and who acts.
package rest

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/engine"
)

// Sales is what is decided in Redis: *engine.Engine.
type Sales interface {
	Place(ctx context.Context, r engine.PlaceRequest) (order engine.Order, replayed bool, err error)
	PlaceEach(ctx context.Context, requests []engine.PlaceRequest) []engine.Placed
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
	// SalesReport visits at most so many rows of a report as the query's limit.
	SalesReport(ctx context.Context, q engine.SalesQuery, visit func(engine.Sale) error) (more bool, err error)
	// Ledger returns a user's postings before a position, newest first; before the zero position: from the newest on.
	Ledger(ctx context.Context, user int64, before engine.Position, limit int) (postings []engine.Posting, more bool, err error)
}

// Health says how the shop does, measured when asked.
type Health interface {
	Check(ctx context.Context) Readiness
}

// Tokens knows whom a buyer's token names: *token.Verifier. The text of an error says what is wrong with it, and
// nothing of the token itself.
type Tokens interface {
	User(token []byte, now time.Time) (user int64, err error)
}

// Config is what a server needs.
type Config struct {
	Sales      Sales
	Registry   Registry
	Health     Health
	AdminToken string
	Tokens     Tokens // of the buyers; nil: trusted mode, see identify
	TLS        bool   // requests come over TLS, and should go on doing so
	Limits     Limits
	Metrics    *prometheus.Registry
	Log        *slog.Logger

	ReadTimeout time.Duration // for a whole request to come, and for its answer to be taken; 0: 15 s
	ConnsPerIP  int           // connections of an address, an IPv6 network of 64 bits counting as one; 0: 10,000
}

// Limits of HTTP; see the contract.
const (
	bodyMax        = 64 << 10
	batchBodyMax   = 1 << 20 // of POST /orders/batch, for an admin: see bodyLimit
	headerMax      = 8 << 10
	readTimeout    = 15 * time.Second
	idleTimeout    = 75 * time.Second
	requestTimeout = 10 * time.Second // for what is answered by Postgres or read from Redis
)

// Server answers HTTP.
type Server struct {
	cfg         Config
	http        *fasthttp.Server
	metrics     *metrics
	limits      *limiter
	refusals    *refusalLog
	ids         *requestIDs
	conns       *conns
	adminDigest [sha256.Size]byte
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
	if cfg.ReadTimeout == 0 {
		cfg.ReadTimeout = readTimeout
	}
	if cfg.ConnsPerIP == 0 {
		cfg.ConnsPerIP = connsPerIPMax
	}
	s := &Server{
		cfg: cfg, limits: newLimiter(cfg.Limits), refusals: newRefusalLog(cfg.Log), ids: newRequestIDs(), conns: newConns(),
		adminDigest: sha256.Sum256([]byte(cfg.AdminToken)),
	}
	err := cfg.Metrics.Register(s.conns)
	if err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(cfg); err != nil {
		return nil, err
	}
	s.http = &fasthttp.Server{
		Handler:                      s.handler(),
		ErrorHandler:                 s.protocolError,
		ExpectHandler:                s.expect,
		HeaderReceived:               s.headerReceived,
		ReadBufferSize:               headerMax,
		ReadTimeout:                  cfg.ReadTimeout,
		WriteTimeout:                 cfg.ReadTimeout,
		IdleTimeout:                  idleTimeout,
		MaxRequestBodySize:           bodyMax,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		Logger:                       quiet{},
	}
	return s, nil
}

// Serve answers requests on ln until Shutdown.
func (s *Server) Serve(ln net.Listener) error { return s.http.Serve(s.bound(ln)) }

// Shutdown ends idle connections and waits for requests under way while ctx lasts.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.ShutdownWithContext(ctx) }

// quiet keeps fasthttp's own words out of the logs: they repeat parts of requests.
type quiet struct{}

// Printf drops the line.
func (quiet) Printf(string, ...any) {}
