package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// Config is what an engine needs. Zero values take the defaults named.
type Config struct {
	// Redis must not re-send commands by itself: see Connect. The engine closes it.
	Redis redis.UniversalClient
	// Partitions is P, fixed for the life of a deployment.
	Partitions int
	// Node is this engine's leased node number, 0 to NodesMax-1; no two living engines share one.
	Node int
	// Repair compares a partition's Redis with the books and opens its door; nil leaves a shut door shut.
	Repair func(ctx context.Context, partition int) error

	// Beat reads the epochs in which the books believe the partitions to sell, and moves their pulses; nil: there are no books.
	Beat func(ctx context.Context) ([]Beat, error)
	// Ended compares with the books what was acknowledged in an epoch that has ended; nil: there are none. It is called
	// until it gives no error.
	Ended func(ctx context.Context, partition int, a Acknowledged) error

	// Durable returns once the books hold an event, ErrLost where they never will; nil: there are no books.
	Durable func(ctx context.Context, partition int, at Position) error

	// Archive reads an order from the books, ErrOrderNotFound where there is none; nil: there are no books.
	Archive func(ctx context.Context, order int64) (Archived, error)

	Hold             time.Duration // how long an unpaid order holds its stock; 5 min
	RefundWindow     time.Duration // how long a buyer may give a paid order back; 24 h
	QueueMax         int           // operations waiting a partition; 16,384
	BatchMax         int           // operations a call; 256
	BatchLinesMax    int           // order lines a call; 1,024
	Workers          int           // calls in flight a partition; 2, or 1 on fewer than four processors
	OperationTimeout time.Duration // wait in the queue, and again for a call; 2 s
	IdempotencyTTL   time.Duration // lifetime of a record; 25 h, so that 24 h hold for clocks that differ
	BacklogCap       int64         // bytes of events that Postgres lacks; 256 MiB
	Replica          bool          // nothing is acknowledged before a replica has it

	Log     *slog.Logger          // slog.Default()
	Metrics prometheus.Registerer // nil: none
}

func (c *Config) setDefaults() error {
	orDefault(&c.Hold, 5*time.Minute)
	orDefault(&c.RefundWindow, 24*time.Hour)
	orDefault(&c.QueueMax, 16_384)
	orDefault(&c.BatchMax, 256)
	orDefault(&c.BatchLinesMax, 1024)
	orDefault(&c.Workers, max(1, min(2, runtime.GOMAXPROCS(0)/2)))
	orDefault(&c.OperationTimeout, 2*time.Second)
	orDefault(&c.IdempotencyTTL, 25*time.Hour)
	orDefault(&c.BacklogCap, 256<<20)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	switch {
	case c.Redis == nil:
		return errors.New("engine: no Redis client")
	case min(c.QueueMax, c.BatchMax, c.BatchLinesMax, c.Workers) < 1 || c.OperationTimeout < 0 || c.IdempotencyTTL < time.Second:
		return errors.New("engine: limits must be positive, and a record must live for a second at least")
	case c.BatchMax > 1000:
		return errors.New("engine: a batch has at most 1,000 operations") // the scripts unpack their keys
	}
	return nil
}

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Engine decides sales in Redis. Its methods are safe for concurrent use.
type Engine struct {
	cfg         Config
	redis       redis.UniversalClient
	keys        *Keys
	ids         *idSource
	partitions  []*partition
	metrics     *metrics
	adminKeys   [64]sync.Mutex
	topFive     Shared[topReading]
	top         Shared[topReading] // longer lists
	beats       Shared[[]Beat]
	asked       chan struct{} // a repair asks who sells
	clockOffset atomic.Int64  // ms
	backlogCap  atomic.Int64  // bytes

	name     string // of this engine among those that wait for units
	supplies supplies
	movers   movers

	workers sync.WaitGroup
	readers sync.WaitGroup
	keepers sync.WaitGroup
	stop    context.CancelFunc
	started bool
}

// New returns an engine that does not run yet: upkeep methods work, sales and reads wait for Start.
func New(cfg Config) (*Engine, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	keys, err := NewKeys(cfg.Partitions)
	if err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, name: rand.Text(), redis: cfg.Redis, keys: keys, asked: make(chan struct{}, 1)}
	e.topFive.Pause, e.top.Pause = topPause, topPause
	if e.ids, err = newIDSource(cfg.Node, e.now); err != nil {
		return nil, err
	}
	e.backlogCap.Store(cfg.BacklogCap)
	for n := range cfg.Partitions {
		p := &partition{
			engine: e, number: n,
			queue: newBatcher(cfg.QueueMax, cfg.OperationTimeout),
			reads: newBatcher(cfg.QueueMax, cfg.OperationTimeout),
		}
		p.door.init()
		p.pace = pace{levels: map[int64]level{}, low: p.replenish}
		e.partitions = append(e.partitions, p)
	}
	if e.metrics, err = newMetrics(e, cfg.Metrics); err != nil {
		return nil, err
	}
	return e, nil
}

// SetNode changes the node number after the lease of the old one was lost.
func (e *Engine) SetNode(node int) { e.ids.setNode(node) }

// SetClockOffset turns the clock of scripts and ids; tests use it.
func (e *Engine) SetClockOffset(d time.Duration) { e.clockOffset.Store(d.Milliseconds()) }

func (e *Engine) now() time.Time {
	return time.Now().Add(time.Duration(e.clockOffset.Load()) * time.Millisecond)
}

// Keys returns the deployment's key builders.
func (e *Engine) Keys() *Keys { return e.keys }

// Start begins to sell, partition by partition as the doors open.
func (e *Engine) Start() {
	ctx, stop := context.WithCancel(context.Background())
	e.stop, e.started = stop, true
	e.movers.start(ctx)
	e.keepers.Go(func() { e.keepFences(ctx) })
	for _, p := range e.partitions {
		e.keepers.Go(func() { p.keepDoor(ctx) })
		e.keepers.Go(func() { p.sweep(ctx) })
		for range readWorkers {
			e.readers.Go(p.serveReads)
		}
		for range e.cfg.Workers {
			e.workers.Go(p.work)
		}
	}
}

// Drain refuses new operations and ends those that wait, bounded by their timeouts.
func (e *Engine) Drain() {
	for _, p := range e.partitions {
		p.queue.close()
	}
	if e.started {
		e.workers.Wait()
	}
}

// Close drains the engine, stops it and closes the Redis client.
func (e *Engine) Close() error {
	e.Drain()
	for _, p := range e.partitions {
		p.reads.close()
	}
	if e.started {
		e.stop()
		e.movers.wait()
		e.keepers.Wait()
		e.readers.Wait()
	}
	return e.redis.Close()
}

// AwaitReady waits until every door stands open and this engine knows it.
func (e *Engine) AwaitReady(ctx context.Context) error {
	for {
		err := e.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (e *Engine) partitionOf(user int64) *partition { return e.partitions[e.keys.OfUser(user)] }
