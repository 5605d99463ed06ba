package baseline

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/stack"
	"stampede/engine"
	"stampede/engine/rest"
)

//go:embed schema.sql
var schema string

// Private is what a baseline with servers of its own needs.
type Private struct {
	Addr       string // of HTTP
	DataDir    string // of its servers
	AdminToken string
	Log        *slog.Logger
}

// Postgres runs a PostgreSQL of its own and serves a shop on it until ctx ends. connections is the size of its pool.
func Postgres(ctx context.Context, p Private, connections int) (err error) {
	servers, err := stack.Start(ctx, stack.Options{DataDir: p.DataDir, NoRedis: true, Log: p.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Stop(context.WithoutCancel(ctx))) }()
	shop, err := openPostgres(ctx, servers.PostgresURL(), connections)
	if err != nil {
		return err
	}
	defer shop.pool.Close()
	return serve(ctx, p.Addr, rest.Config{
		Sales: shop, Registry: shop, Health: shop, AdminToken: p.AdminToken, Metrics: prometheus.NewRegistry(),
	})
}

// postgresShop decides in Postgres. The embedded interfaces are nil: it has only what a load needs.
type postgresShop struct {
	rest.Sales
	rest.Registry
	pool  *pgxpool.Pool
	lanes [lanes]chan struct{} // by product
}

const (
	lanes = 1024
	// laneWidth is how many orders of one product are in Postgres at once: one commits while the next does all that comes
	// before the lock. More of them wait in Postgres for each other's row, which halves the rate of a hot product.
	laneWidth = 2
)

// openPostgres makes the tables in an empty database.
func openPostgres(ctx context.Context, url string, connections int) (*postgresShop, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(connections)
	config.MinConns = config.MaxConns // none is opened while it is measured
	// A refusal is an error to Postgres, which would write each into its log.
	config.ConnConfig.RuntimeParams["log_min_messages"] = "fatal"
	config.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := pool.Exec(ctx, schema); err != nil {
		pool.Close()
		return nil, fmt.Errorf("make the tables of the baseline: %w", err)
	}
	s := &postgresShop{pool: pool}
	for i := range s.lanes {
		s.lanes[i] = make(chan struct{}, laneWidth)
	}
	return s, nil
}

// Check asks Postgres.
func (s *postgresShop) Check(ctx context.Context) rest.Readiness {
	if err := s.pool.Ping(ctx); err != nil {
		return rest.Readiness{Postgres: []string{err.Error()}}
	}
	return rest.Readiness{}
}

// What the functions of schema.sql raise.
const (
	codeKeyReused    = "ST001"
	codeNoUser       = "ST002"
	codeNoProduct    = "ST003" // detail: the product
	codeOutOfStock   = "ST004" // detail: the product, and what is left of it
	codeShortBalance = "ST005" // detail: the balance
)

var refusals = map[string]error{
	codeKeyReused:    engine.ErrKeyReused,
	codeNoUser:       engine.ErrUserNotFound,
	codeNoProduct:    engine.ErrProductNotFound,
	codeOutOfStock:   engine.ErrOutOfStock,
	codeShortBalance: engine.ErrInsufficientBalance,
}

const (
	codeSerialization = "40001" // of errors, PostgreSQL appendix A
	codeDeadlock      = "40P01"
	tries             = 5 // of a transaction that Postgres ends for the sake of another
	retryPause        = 2 * time.Millisecond
)

// once runs a function of schema.sql, again where Postgres has ended it for the sake of another transaction.
func (s *postgresShop) once(ctx context.Context, query string, args, into []any) error {
	for try := 1; ; try++ {
		err := s.pool.QueryRow(ctx, query, args...).Scan(into...)
		var raised *pgconn.PgError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &raised):
			return fmt.Errorf("%w: %w", engine.ErrUnknown, err)
		case raised.Code != codeSerialization && raised.Code != codeDeadlock:
			return refusal(raised)
		case try == tries:
			return fmt.Errorf("%w: %w", engine.ErrOverloaded, err)
		}
		time.Sleep(time.Duration(try) * retryPause)
	}
}

// refusal reads what a function has raised, with the figures that a buyer needs.
func refusal(raised *pgconn.PgError) error {
	reason, ok := refusals[raised.Code]
	if !ok {
		return raised
	}
	r := &engine.Refusal{Reason: reason}
	var figures []*int64
	switch raised.Code {
	case codeNoProduct:
		figures = []*int64{&r.ProductID}
	case codeOutOfStock:
		figures = []*int64{&r.ProductID, &r.Left}
	case codeShortBalance:
		figures = []*int64{&r.Balance}
	}
	texts := strings.Fields(raised.Detail)
	if len(texts) != len(figures) {
		return fmt.Errorf("the detail of %s is %q", raised.Code, raised.Detail)
	}
	for i, text := range texts {
		var err error
		if *figures[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("the detail of %s: %w", raised.Code, err)
		}
	}
	return r
}

const chargeQuery = `SELECT charge_id, balance, replayed FROM charge($1, $2, $3, $4)`

// Charge adds to a balance, once a key.
func (s *postgresShop) Charge(ctx context.Context, r engine.ChargeRequest) (engine.Charged, bool, error) {
	c, replayed := engine.Charged{UserID: r.UserID, Amount: r.Amount}, false
	err := s.once(ctx, chargeQuery,
		[]any{r.UserID, r.Amount, r.Key, fingerprint("charge", r.UserID, []engine.Line{{Quantity: r.Amount}})},
		[]any{&c.ChargeID, &c.Balance, &replayed})
	return c, replayed, err
}

// CreateUser opens an account.
func (s *postgresShop) CreateUser(ctx context.Context, name, email string) (engine.User, error) {
	u := engine.User{Name: name, Email: email}
	err := s.pool.QueryRow(ctx, `INSERT INTO users (name, email) VALUES ($1, $2) RETURNING id, created_at`, name, email).
		Scan(&u.ID, &u.CreatedAt)
	return u, err
}

// CreateProduct lists a product with its first units.
func (s *postgresShop) CreateProduct(ctx context.Context, name string, price, stock int64) (engine.Product, error) {
	p := engine.Product{Name: name, Price: price, Stock: stock, Version: 1}
	err := s.pool.QueryRow(ctx, `WITH p AS (INSERT INTO products (name, price, stock) VALUES ($1, $2, $3) RETURNING *),
		posting AS (INSERT INTO stock_ledger (product_id, delta, stock_after, kind, at)
			SELECT id, stock, stock, 'restock', created_at FROM p)
		SELECT id, created_at FROM p`, name, price, stock).Scan(&p.ID, &p.CreatedAt)
	return p, err
}

// Product reads a product with its stock.
func (s *postgresShop) Product(ctx context.Context, id int64) (engine.Product, error) {
	p := engine.Product{ID: id, Version: 1}
	err := s.pool.QueryRow(ctx, `SELECT name, price, stock, created_at FROM products WHERE id = $1`, id).
		Scan(&p.Name, &p.Price, &p.Stock, &p.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		err = &engine.Refusal{Reason: engine.ErrProductNotFound, ProductID: id}
	}
	return p, err
}
