package persist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"stampede/engine"
)

const uniqueViolation = "23505"

// CreateUser writes a user and opens its account in Redis. When only the second step fails the outcome is unknown:
// the account is opened by Sync.
func (b *Books) CreateUser(ctx context.Context, name, email string) (engine.User, error) {
	if err := b.engine.Ready(); err != nil {
		return engine.User{}, unavailable("the shop is not open", err)
	}
	u := engine.User{Name: name, Email: email}
	err := b.pool.QueryRow(ctx, "INSERT INTO users (name, email) VALUES ($1, $2) RETURNING id, created_at", name, email).
		Scan(&u.ID, &u.CreatedAt)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == uniqueViolation {
		return engine.User{}, engine.ErrEmailTaken
	}
	if isOpen(err) {
		b.log.Warn("user perhaps created", "error", err)
		return engine.User{}, engine.ErrUnknown
	}
	if err != nil {
		return engine.User{}, unavailable("writing the user", err)
	}
	if err := b.engine.Enroll(ctx, u.ID); err != nil {
		b.log.Warn("account not opened yet", "user", u.ID, "error", err)
		return engine.User{}, engine.ErrUnknown
	}
	return u, nil
}

// User reads a user.
func (b *Books) User(ctx context.Context, id int64) (engine.User, error) {
	u := engine.User{ID: id}
	err := b.pool.QueryRow(ctx, "SELECT name, email, created_at FROM users WHERE id = $1", id).
		Scan(&u.Name, &u.Email, &u.CreatedAt)
	if errors.Is(err, pgx.ErrNoRows) {
		return engine.User{}, engine.ErrUserNotFound
	}
	if err != nil {
		return engine.User{}, unavailable("reading the user", err)
	}
	return u, nil
}

// CreateProduct writes a product and lists it in every partition. When only the second step fails the outcome is
// unknown: the product is listed by Sync.
func (b *Books) CreateProduct(ctx context.Context, name string, price, stock int64) (engine.Product, error) {
	if err := b.engine.Ready(); err != nil {
		return engine.Product{}, unavailable("the shop is not open", err)
	}
	p := engine.Product{Name: name, Price: price, Stock: stock}
	err := b.pool.QueryRow(ctx, `
		INSERT INTO products (name, price, initial_stock) VALUES ($1, $2, $3) RETURNING id, version, created_at`,
		name, price, stock).Scan(&p.ID, &p.Version, &p.CreatedAt)
	if isOpen(err) {
		b.log.Warn("product perhaps created", "error", err)
		return engine.Product{}, engine.ErrUnknown
	}
	if err != nil {
		return engine.Product{}, unavailable("writing the product", err)
	}
	if err := b.engine.List(ctx, p, stock); err != nil {
		b.log.Warn("product not listed yet", "product", p.ID, "error", err)
		return engine.Product{}, engine.ErrUnknown
	}
	return p, nil
}

// UpdateProduct changes a product's name, price or both, whatever is not nil. Once it is answered, no order takes an
// older price: Postgres gives the change its version, and Redis keeps the record of the highest version. When only the
// second step fails the outcome is unknown: the change is finished by Sync.
func (b *Books) UpdateProduct(ctx context.Context, id int64, name *string, price *int64) (engine.Product, error) {
	if name == nil && price == nil {
		return engine.Product{}, fmt.Errorf("%w: neither name nor price is given", engine.ErrInvalid)
	}
	if err := b.engine.Ready(); err != nil {
		return engine.Product{}, unavailable("the shop is not open", err)
	}
	p, initial := engine.Product{ID: id}, int64(0)
	err := b.pool.QueryRow(ctx, `
		UPDATE products SET name = coalesce($2, name), price = coalesce($3, price), version = version + 1, in_redis = false
		WHERE id = $1 RETURNING name, price, version, created_at, initial_stock`, id, name, price).
		Scan(&p.Name, &p.Price, &p.Version, &p.CreatedAt, &initial)
	if errors.Is(err, pgx.ErrNoRows) {
		return engine.Product{}, &engine.Refusal{Reason: engine.ErrProductNotFound, ProductID: id}
	}
	if isOpen(err) {
		b.log.Warn("product perhaps changed", "product", id, "error", err)
		return engine.Product{}, engine.ErrUnknown
	}
	if err != nil {
		return engine.Product{}, unavailable("writing the product", err)
	}
	// The initial units go along: a share that Redis has none of yet would start without them.
	if err := b.engine.List(ctx, p, initial); err != nil {
		b.log.Warn("product not listed anew yet", "product", id, "error", err)
		return engine.Product{}, engine.ErrUnknown
	}
	live, err := b.engine.Product(ctx, id)
	if err != nil {
		b.log.Warn("stock of a changed product not read", "product", id, "error", err)
		return engine.Product{}, engine.ErrUnknown
	}
	p.Stock = live.Stock
	return p, nil
}

// isOpen reports whether an error leaves open if Postgres did what it was asked.
func isOpen(err error) bool {
	var said *pgconn.PgError
	var connect *pgconn.ConnectError
	return err != nil && !errors.As(err, &said) && !errors.As(err, &connect) && !pgconn.SafeToRetry(err)
}

const (
	syncChunk    = 1000 // users, and products, that one round of Sync takes
	syncTogether = 128  // of them in Redis' queue
)

// together does something for all items, many at a time: one after the other each would be a call of its own, and a sale would wait
// for every one of them.
func together[T any](ctx context.Context, items []T, do func(context.Context, T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(syncTogether)
	for _, item := range items {
		group.Go(func() error { return do(ctx, item) })
	}
	return group.Wait()
}

// Sync brings users and products that Redis may lack into it: those whose process died between the two steps.
// Everything in it is safe to repeat.
func (b *Books) Sync(ctx context.Context) error {
	users, err := b.column(ctx, "SELECT id FROM users WHERE NOT in_redis ORDER BY id LIMIT $1")
	if err != nil {
		return err
	}
	if err := together(ctx, users, b.engine.Enroll); err != nil {
		return err
	}
	rows, err := b.pool.Query(ctx, selectProducts+" WHERE NOT in_redis ORDER BY id LIMIT $1", syncChunk)
	if err != nil {
		return unavailable("reading products", err)
	}
	listings, err := pgx.CollectRows(rows, scanListing)
	if err != nil {
		return unavailable("reading products", err)
	}
	products, versions := make([]int64, len(listings)), make([]int64, len(listings))
	for i, l := range listings {
		products[i], versions[i] = l.ID, l.Version
	}
	err = together(ctx, listings, func(ctx context.Context, l engine.Listing) error {
		return b.engine.List(ctx, l.Product, l.InitialStock)
	})
	if err != nil {
		return err
	}
	if len(users) > 0 {
		if _, err := b.pool.Exec(ctx, markEnrolled, users); err != nil {
			return unavailable("marking users", err)
		}
	}
	if len(products) > 0 {
		if _, err := b.pool.Exec(ctx, markListed, products, versions); err != nil {
			return unavailable("marking products", err)
		}
	}
	return nil
}

// markEnrolled locks rows in the writers' order, which meet this statement on them.
const markEnrolled = `WITH locked AS MATERIALIZED (SELECT id FROM users WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE)
	UPDATE users u SET in_redis = true FROM locked WHERE u.id = locked.id`

// markListed marks products at the version that was listed: one that has changed since is listed again. Rows are locked
// in the writers' order, which meet this statement on them.
const markListed = `WITH n AS (SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS n(id, version)),
	locked AS MATERIALIZED (SELECT p.id FROM products p JOIN n USING (id) ORDER BY p.id FOR NO KEY UPDATE OF p)
	UPDATE products p SET in_redis = true FROM n, locked WHERE p.id = n.id AND p.id = locked.id AND p.version = n.version`

func (b *Books) column(ctx context.Context, sql string) ([]int64, error) {
	rows, err := b.pool.Query(ctx, sql, syncChunk)
	if err != nil {
		return nil, unavailable("reading users", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, unavailable("reading users", err)
	}
	return ids, nil
}

const selectProducts = "SELECT id, name, price, version, created_at, initial_stock FROM products"

func scanListing(row pgx.CollectableRow) (l engine.Listing, err error) {
	err = row.Scan(&l.ID, &l.Name, &l.Price, &l.Version, &l.CreatedAt, &l.InitialStock)
	return l, err
}

const syncEvery = 2 * time.Second

// KeepSynced runs Sync until ctx ends.
func (b *Books) KeepSynced(ctx context.Context) {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		if err := b.engine.Ready(); err == nil {
			if err := b.Sync(ctx); err != nil && ctx.Err() == nil {
				b.log.Warn("people and catalogue not synced", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
