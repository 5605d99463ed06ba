// Package stack runs a private Redis, one server or a Redis Cluster, and a private
// PostgreSQL below one data directory, as direct child processes of this one.
//
// It is what `stampede up`, the tests and the benchmark stand on: nothing to
// install beyond the two servers, nothing shared with other servers of the
// machine, and everything that must survive in one place. One process at a time
// owns a data directory (flock); whatever a killed owner left running is stopped
// before anything new starts, so that two servers never write the same files.
package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Levels of Options.Durability.
const (
	DurabilityEverySec = "everysec" // Redis syncs its AOF once a second
	DurabilityFsync    = "fsync"    // Redis syncs its AOF before it replies
)

// Options say what Start runs, and where.
type Options struct {
	DataDir    string       // created with mode 0700 if missing
	Durability string       // DurabilityFsync when empty
	MaxMemory  int64        // of each redis-server, in bytes; 0: its part of half of the RAM, at least 1 GiB
	NoRedis    bool         // run PostgreSQL only
	NoPostgres bool         // run Redis only
	Log        *slog.Logger // slog.Default() when nil

	RedisNodes       int           // 1, or 3: a Redis Cluster of so many masters; 0: as the directory has it, 1 in a new one
	RedisReplicas    int           // of each master of a cluster
	RedisNodeTimeout time.Duration // how long a node of a cluster may be silent before the others doubt it; 0: 2.5 s

	system system // where programs and root's data lie; tests point it elsewhere
}

// validate fills in the defaults and refuses what cannot be meant.
func (o Options) validate() (Options, error) {
	if o.DataDir == "" {
		return o, &ConfigError{What: "no data directory was named", Do: "name one with --data-dir"}
	}
	if o.Durability == "" {
		o.Durability = DurabilityFsync
	}
	if o.Durability != DurabilityEverySec && o.Durability != DurabilityFsync {
		return o, &ConfigError{
			What: fmt.Sprintf("unknown durability %q", o.Durability),
			Do:   "take everysec or fsync",
		}
	}
	if o.MaxMemory < 0 {
		return o, &ConfigError{
			What: fmt.Sprintf("a memory limit of %d bytes", o.MaxMemory),
			Do:   "take a positive number, or 0 for half of the RAM",
		}
	}
	if err := o.validateCluster(); err != nil {
		return o, err
	}
	if o.RedisNodeTimeout == 0 {
		o.RedisNodeTimeout = nodeTimeout
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.system = o.system.withDefaults()
	return o, nil
}

// Stack is a running Redis and PostgreSQL. Its methods may be called from any
// goroutine.
type Stack struct {
	dir   *dataDir
	log   *slog.Logger
	locks []*lock

	redises  []*redisServer // one, or the nodes of a cluster: masters at the first start first
	postgres *postgresServer

	endLife  context.CancelFunc // ends every wait of the children
	stopOnce sync.Once
	stopErr  error
}

// Start runs both servers and returns when both take connections. When it fails,
// or ctx ends first, everything it started has been stopped again. Errors that an
// operator can mend satisfy errors.Is(err, ErrConfig).
func Start(ctx context.Context, o Options) (*Stack, error) {
	o, err := o.validate()
	if err != nil {
		return nil, err
	}
	dir, err := openDataDir(o.DataDir)
	if err != nil {
		return nil, err
	}
	held, err := acquire(dir.path)
	if err != nil {
		return nil, err
	}
	life, endLife := context.WithCancel(context.Background())
	s := &Stack{dir: dir, log: o.Log, locks: []*lock{held}, endLife: endLife}
	if err := s.start(ctx, life, o); err != nil {
		// The reason to stop may be that ctx has ended, so the stop cannot hang on it.
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// start brings up both servers side by side. The first failure ends the other.
func (s *Stack) start(ctx, life context.Context, o Options) error {
	if err := s.dir.prepare(); err != nil {
		return err
	}
	if !o.NoRedis {
		redises, err := newRedises(s.dir, o)
		if err != nil {
			return err
		}
		s.redises = redises
	}
	group, ctx := errgroup.WithContext(ctx)
	if !o.NoPostgres {
		where, err := s.placeCluster(o.system)
		if err != nil {
			return err
		}
		s.postgres = newPostgresServer(s.dir, where, o)
		group.Go(func() error { return s.postgres.start(ctx, life) })
	}
	if !o.NoRedis {
		group.Go(func() error { return s.startRedises(ctx, life, o) })
	}
	return group.Wait()
}

// RedisURL is what redis-cli -u and redis.ParseURL take, password included: of a
// cluster its first node's, which leads to the others. Empty without Redis.
func (s *Stack) RedisURL() string {
	if len(s.redises) == 0 {
		return ""
	}
	return s.redises[0].url()
}

// RedisSocket is the path of Redis's Unix socket; empty when the data directory's
// path is too long for one, with a cluster, or without Redis.
func (s *Stack) RedisSocket() string {
	if len(s.redises) == 0 {
		return ""
	}
	return s.redises[0].socket
}

// RedisDir is the directory in which a single Redis keeps appendonlydir.
func (s *Stack) RedisDir() string { return s.dir.redis() }

// RedisNode is one redis-server of a stack.
type RedisNode struct {
	*Child
	Addr string // host:port, the same for the life of the stack
	URL  string // as of RedisURL
	Dir  string // in which it keeps appendonlydir
}

// Redises are all of them: one, or the nodes of a cluster, of which those come first
// that were masters at the first start. None without Redis.
func (s *Stack) Redises() []RedisNode {
	nodes := make([]RedisNode, len(s.redises))
	for i, r := range s.redises {
		nodes[i] = RedisNode{Child: r.child, Addr: address(r.port), URL: r.url(), Dir: r.home}
	}
	return nodes
}

// PostgresURL is what psql and pgx take, password included; empty without
// PostgreSQL.
func (s *Stack) PostgresURL() string {
	if s.postgres == nil {
		return ""
	}
	return s.postgres.url(databaseName)
}

// PostgresDir is PostgreSQL's data directory; empty without PostgreSQL. Started
// as root it may lie outside of the stack's data directory.
func (s *Stack) PostgresDir() string {
	if s.postgres == nil {
		return ""
	}
	return s.postgres.cluster.dir()
}

// Redis is the supervised redis-server; nil without one, and with a cluster, which
// has several.
func (s *Stack) Redis() *Child {
	if len(s.redises) != 1 {
		return nil
	}
	return s.redises[0].child
}

// Postgres is the supervised postgres; nil without PostgreSQL.
func (s *Stack) Postgres() *Child {
	if s.postgres == nil {
		return nil
	}
	return s.postgres.child
}

// Stop ends Redis, then PostgreSQL, and gives the data directory free. A server
// that does not end within its bound (30 s), or before ctx ends, is killed; so do
// not pass a context that is already cancelled. The error says which were killed.
// Later calls wait for the first and return what it returned.
func (s *Stack) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		s.endLife()
		// Redis first: once it is down no event can appear that PostgreSQL would miss.
		errs := []error{s.stopRedises(ctx)}
		if child := s.Postgres(); child != nil {
			errs = append(errs, child.close(ctx))
		}
		s.stopErr = errors.Join(append(errs, s.releaseLocks())...)
	})
	return s.stopErr
}

func (s *Stack) releaseLocks() error {
	var errs []error
	for _, held := range s.locks {
		errs = append(errs, held.release())
	}
	return errors.Join(errs...)
}
