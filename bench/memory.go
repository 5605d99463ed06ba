package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"stampede/bench/load"
)

// memoryCmd is `bench memory`.
type memoryCmd struct {
	Orders   int    `default:"200000" help:"Orders to measure, after as many as Redis keeps anyway."`
	Users    int    `default:"20000" help:"Users to measure."`
	JSON     bool   `name:"json" help:"Print the result as JSON."`
	Stampede string `placeholder:"PATH" help:"Measure this binary (default: bin/stampede, or a new build where there is none)."`
}

// Run measures and prints, and fails when the shop did anything wrong.
func (c *memoryCmd) Run(ctx context.Context, to console) error {
	m := memory{orders: c.Orders, users: c.Users, settled: 30_000, connections: 64, binary: c.Stampede, console: to}
	r, err := m.run(ctx)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(to.out).Encode(r)
	}
	_, err = fmt.Fprintf(to.out, "Redis memory by INFO (used_memory), once everything is in PostgreSQL:\n"+
		"  %.0f bytes an order, its idempotency record included, over %d orders\n"+
		"  %.0f bytes a user, over %d users\n"+
		"  %d order records are left in Redis\n", r.BytesAnOrder, r.Orders, r.BytesAUser, r.Users, r.Records)
	return err
}

// memory measures what orders and users cost Redis once they are in the books.
type memory struct {
	orders, users int
	settled       int // orders before the first look: Redis keeps the last ones in any case
	connections   int
	binary        string
	console
}

// memoryReport is what was measured.
type memoryReport struct {
	Orders       int64   `json:"orders"`
	Users        int     `json:"users"`
	BytesAnOrder float64 `json:"bytes_an_order"`
	BytesAUser   float64 `json:"bytes_a_user"`
	Records      int64   `json:"order_records"` // left in Redis at the end
}

func (m *memory) run(ctx context.Context) (r *memoryReport, err error) {
	w, err := newWorkspace()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	binary, err := w.binary(ctx, m.binary)
	if err != nil {
		return nil, err
	}
	m.say("Starting %s with Redis and PostgreSQL", binary)
	s, err := startShop(ctx, w, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	settings, err := s.settings()
	if err != nil {
		return nil, err
	}
	options, err := redis.ParseURL(settings["STAMPEDE_REDIS_URL"])
	if err != nil {
		return nil, errors.New("stack.env holds a Redis URL that cannot be read")
	}
	client := redis.NewClient(options)
	defer client.Close() //nolint:errcheck // it only read
	return m.measure(ctx, s, client)
}

func (m *memory) measure(ctx context.Context, s *shop, client *redis.Client) (*memoryReport, error) {
	r := &memoryReport{Users: m.users}
	m.say("Creating %d users", m.users)
	before, err := usedMemory(ctx, client)
	if err != nil {
		return nil, err
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(fillConnections)
	for i := range m.users {
		group.Go(func() error {
			_, err := s.api.createUser(inner, "Buyer", fmt.Sprintf("memory%d@example.com", i))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, s.explain(err)
	}
	after, err := usedMemory(ctx, client)
	if err != nil {
		return nil, err
	}
	r.BytesAUser = float64(after-before) / float64(m.users)

	g, err := s.fill(ctx, 1000, 8)
	if err != nil {
		return nil, err
	}
	generator, err := load.Dial(ctx, s.addr, m.connections)
	if err != nil {
		return nil, err
	}
	defer generator.Close() //nolint:errcheck // nothing is in flight
	m.say("Placing %d orders that Redis is to let go, then %d that are measured", m.settled, m.orders)
	if _, err := m.place(ctx, s, generator, g, "settle", m.settled); err != nil {
		return nil, err
	}
	if before, err = usedMemory(ctx, client); err != nil {
		return nil, err
	}
	if r.Orders, err = m.place(ctx, s, generator, g, "measure", m.orders); err != nil {
		return nil, err
	}
	if after, err = usedMemory(ctx, client); err != nil {
		return nil, err
	}
	r.BytesAnOrder = float64(after-before) / float64(r.Orders)
	if r.Records, err = countOrders(ctx, client); err != nil {
		return nil, err
	}
	m.say("Auditing the books")
	violations, err := s.audit(ctx)
	if err == nil && violations != "" {
		err = fmt.Errorf("the books do not close: %.2000s", violations)
	}
	return r, err
}

// place places at least n orders and waits until they are in the books and the shop is at rest.
func (m *memory) place(ctx context.Context, s *shop, generator *load.Generator, g load.Goods, name string, n int) (int64, error) {
	placed := int64(0)
	for i := 0; placed < int64(n); i++ {
		orders := load.NewOrders(g, fmt.Sprintf("%s-%d", name, i), uint64(i), 0)
		recorder := load.NewRecorder(orders)
		generator.ClosedLoop(ctx, 250*time.Millisecond, orders, recorder)
		counts := recorder.Tally()
		if wrong := counts.Wrong(); wrong != "" {
			return 0, s.explain(errors.New(wrong))
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		placed += counts.Accepted
	}
	_, err := s.awaitWritten(ctx)
	return placed, err
}

// usedMemory is what Redis has allocated, the lowest of a few looks: buffers of clients come and go.
func usedMemory(ctx context.Context, client *redis.Client) (int64, error) {
	const looks, between = 10, 100 * time.Millisecond
	lowest := int64(-1)
	for range looks {
		time.Sleep(between)
		info, err := client.InfoMap(ctx, "memory").Result()
		if err != nil {
			return 0, err
		}
		used, err := strconv.ParseInt(info["Memory"]["used_memory"], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("INFO memory: %w", err)
		}
		if lowest < 0 || used < lowest {
			lowest = used
		}
	}
	return lowest, nil
}

// countOrders counts the order records in Redis.
func countOrders(ctx context.Context, client *redis.Client) (n int64, err error) {
	keys := client.Scan(ctx, 0, "*}o:*", 10_000).Iterator()
	for keys.Next(ctx) {
		n++
	}
	return n, keys.Err()
}
