// Package shop wires a running Stampede from its parts: Redis, Postgres, engine and writer. `stampede serve` and
// `stampede up` put HTTP in front of it; tests use it as it is.
package shop

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
	"stampede/persist"
)

// Config says where a shop's data lives and how it runs. Zero values take the engine's defaults.
type Config struct {
	Redis       engine.Redis
	PostgresURL string
	Partitions  int  // 0: as the books say; of new ones 1, or 12 on a cluster
	NoWriter    bool // another process writes
	OneMachine  bool // Postgres runs on the machine of the sale: the writer yields to it

	Hold             time.Duration // how long an unpaid order holds its stock
	RefundWindow     time.Duration // how long a buyer may give a paid order back
	OperationTimeout time.Duration
	BacklogCap       int64 // bytes; 0: a quarter of Redis' maxmemory, for all partitions together

	Replica  bool // nothing is acknowledged before a replica has it
	BatchMax int  // operations a script call
	Workers  int  // calls in flight a partition

	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Shop is a running one.
type Shop struct {
	Engine  *engine.Engine
	Books   *persist.Books
	Writer  *persist.Writer  // nil where another process writes
	Sampler *persist.Sampler // ditto

	log        *slog.Logger
	stopWriter context.CancelFunc
	stopRest   context.CancelFunc
	writer     sync.WaitGroup
	rest       sync.WaitGroup
}

const (
	callTimeout  = 2 * time.Second
	startTimeout = 30 * time.Second
	// unseenMax is how long Close waits for a lag that cannot be measured, since Redis or Postgres does not answer: the next
	// start does what this one cannot.
	unseenMax = 3 * time.Second
)

// Open connects, makes sure that Redis and Postgres belong together, and starts to sell and to write. It does not
// wait for the doors: see engine.AwaitReady.
func Open(ctx context.Context, c Config) (*Shop, error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.OperationTimeout == 0 {
		c.OperationTimeout = callTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	books, err := persist.Open(ctx, c.PostgresURL, c.Partitions, c.Log)
	if err != nil {
		return nil, err
	}
	s := &Shop{Books: books, log: c.Log}
	if err := s.start(ctx, c); err != nil {
		books.Close()
		return nil, err
	}
	return s, nil
}

func (s *Shop) start(ctx context.Context, c Config) (err error) {
	probe, err := engine.Connect(c.Redis, 1, c.OperationTimeout)
	if err != nil {
		return fmt.Errorf("%w: %w", persist.ErrRefused, err)
	}
	defer probe.Close() //nolint:errcheck // nothing is pending
	c.Redis.Cluster = engine.IsCluster(probe)
	partitions, err := s.Books.Bind(ctx, probe, c.Partitions, false)
	if err != nil {
		return err
	}
	if err := s.check(ctx, c, probe, partitions); err != nil {
		return err
	}
	if c.BacklogCap == 0 {
		if c.BacklogCap, err = engine.BacklogCap(ctx, probe, partitions); err != nil {
			return err
		}
	}
	name := holder()
	node, err := s.Books.LeaseNode(ctx, name)
	if err != nil {
		return err
	}
	client, err := engine.Connect(c.Redis, (4+c.Workers)*partitions+64, c.OperationTimeout)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			node.Release()
			_ = client.Close()
		}
	}()
	s.Engine, err = engine.New(engine.Config{
		Redis: client, Partitions: partitions, Node: node.Number, OperationTimeout: c.OperationTimeout,
		BacklogCap: c.BacklogCap, Replica: c.Replica, Log: c.Log, Metrics: c.Metrics, Repair: s.Books.Repair, Durable: s.Books.Durable,
		Hold: c.Hold, RefundWindow: c.RefundWindow, BatchMax: c.BatchMax, Workers: c.Workers, Archive: s.Books.Order, Beat: s.Books.Beat,
		Ended: func(ctx context.Context, partition int, a engine.Acknowledged) error {
			return s.Books.Ended(ctx, partition, a, name)
		},
	})
	if err != nil {
		return err
	}
	s.Books.Attach(s.Engine)
	if !c.NoWriter {
		stream, err := engine.Connect(c.Redis, partitions+1, c.OperationTimeout)
		if err != nil {
			return err
		}
		s.Writer = persist.NewWriter(s.Books, stream)
		if c.OneMachine {
			s.Writer.YieldToSales()
		}
		s.Sampler = persist.NewSampler(s.Books, client)
	}
	if err := s.register(c.Metrics); err != nil {
		return err
	}
	if s.Writer != nil {
		s.spawn(&s.stopWriter, &s.writer, s.Writer.Run)
	}
	rest := []func(context.Context){
		func(ctx context.Context) { node.Keep(ctx, s.Engine.SetNode) }, s.Books.KeepSynced, s.Books.WatchLag, s.Books.Attend,
	}
	if s.Sampler != nil {
		rest = append(rest, s.Sampler.Run)
	}
	s.spawn(&s.stopRest, &s.rest, rest...)
	s.Engine.Start()
	return nil
}

// check makes sure that this Redis can do what is asked of it.
func (s *Shop) check(ctx context.Context, c Config, redis redis.UniversalClient, partitions int) error {
	var besides []string
	if c.Replica {
		besides = engine.RightsOfReplica
	}
	err := engine.CheckRights(ctx, redis, partitions, besides...)
	if err == nil && c.Replica {
		err = engine.CheckReplicas(ctx, redis, partitions)
	}
	switch {
	case errors.Is(err, engine.ErrNoReplica):
		return fmt.Errorf("%w: --durability replica needs replicas, and %w: give each master two, so that one may fail, or leave the flag out",
			persist.ErrRefused, err)
	case err != nil:
		return fmt.Errorf("%w: Redis cannot be used: %s", persist.ErrRefused, engine.Explain(err))
	}
	return nil
}

// register adds the measures of the books to those of the engine.
func (s *Shop) register(metrics prometheus.Registerer) error {
	if metrics == nil {
		return nil
	}
	err := errors.Join(metrics.Register(s.Books.PoolCollector()), metrics.Register(s.Books.LostCounter()))
	if s.Writer != nil {
		err = errors.Join(err, metrics.Register(s.Writer), metrics.Register(s.Sampler))
	}
	return err
}

// spawn runs tasks on a context of their own, which outlives the one of Open.
func (s *Shop) spawn(stop *context.CancelFunc, group *sync.WaitGroup, tasks ...func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	*stop = cancel
	for _, task := range tasks {
		group.Go(func() { task(ctx) })
	}
}

// holder names this process in the table of node numbers.
func holder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), rand.Text()[:8])
}

// Close ends what waits, lets the writer catch up while ctx lasts, and stops. What the writer does not reach stays
// in Redis for the next one.
func (s *Shop) Close(ctx context.Context) error {
	s.Engine.Drain() // before the node number is given back: requests under way still take ids of it
	s.stopRest()
	if s.Writer != nil {
		if err := s.awaitWritten(ctx, unseenMax); err != nil {
			s.log.Warn("stopped before everything was written; the rest waits in Redis", "error", err)
		}
		s.stopWriter()
		s.writer.Wait()
	}
	s.rest.Wait()
	err := s.Engine.Close()
	s.Books.Close()
	return err
}

// AwaitWritten waits until Postgres holds every event of Redis.
func (s *Shop) AwaitWritten(ctx context.Context) error { return s.awaitWritten(ctx, math.MaxInt64) }

// awaitWritten gives up earlier if the lag cannot be measured for longer than unseen.
func (s *Shop) awaitWritten(ctx context.Context, unseen time.Duration) error {
	for seen := time.Now(); ; {
		lag, err := s.Books.Lag(ctx)
		switch {
		case err == nil && lag.Events == 0:
			return nil
		case err == nil:
			seen = time.Now()
		case time.Since(seen) > unseen:
			return err
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("%d events are not in Postgres yet", lag.Events)
			}
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}
