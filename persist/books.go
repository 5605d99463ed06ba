package persist

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

//go:embed migrations/*.sql
var migrations embed.FS

// ErrRefused wraps what the operator must settle before Stampede can run: Redis and Postgres that do not belong
// together, another number of partitions, an empty Redis with books in Postgres.
var ErrRefused = errors.New("refused")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// Books is the Postgres of a deployment.
type Books struct {
	pool      *pgxpool.Pool
	links     *links
	engine    *engine.Engine
	progress  *progress
	lag       engine.Shared[Lag]
	unwritten *unwritten
	log       *slog.Logger
	keep      retention
	lost      prometheus.Counter

	attendance attendance
}

// Open connects to Postgres and migrates its schema. partitions is what the deployment will have where it has none
// yet: each partition's writer holds a connection.
func Open(ctx context.Context, url string, partitions int, log *slog.Logger) (*Books, error) {
	return open(ctx, url, partitions, silenceMax, log, migrate)
}

// OpenPatient is Open for a command of the operator whose statements may take as long as they need.
func OpenPatient(ctx context.Context, url string, partitions int, log *slog.Logger) (*Books, error) {
	return open(ctx, url, partitions, patientMax, log, migrate)
}

// OpenExisting connects to books that are there already and changes nothing in them.
func OpenExisting(ctx context.Context, url string, log *slog.Logger) (*Books, error) {
	return open(ctx, url, 0, silenceMax, log, requireBooks)
}

// OpenExistingPatient is OpenExisting for a command of the operator.
func OpenExistingPatient(ctx context.Context, url string, log *slog.Logger) (*Books, error) {
	return open(ctx, url, 0, patientMax, log, requireBooks)
}

func open(ctx context.Context, url string, partitions int, silence time.Duration, log *slog.Logger,
	prepare func(context.Context, *pgxpool.Pool) (int, error),
) (*Books, error) {
	cfg, err := poolConfig(url)
	if err != nil {
		return nil, err
	}
	first := cfg.Copy()
	first.MaxConns = 3 // a lock, a migration and one to spare
	newLinks(patientMax).use(&first.ConnConfig.Config)
	pool, err := pgxpool.NewWithConfig(ctx, first)
	if err != nil {
		return nil, fmt.Errorf("opening Postgres: %w", err)
	}
	known, err := prepare(ctx, pool)
	pool.Close()
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == insufficientPrivilege {
		return nil, refused("the role of the Postgres URL may do too little (%s): see the roles in README.md, "+
			"\"TLS and least authority\"", pg.Message)
	}
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = int32(poolSpare + max(known, partitions, 1)) //nolint:gosec // at most PartitionsMax more
	b := &Books{links: newLinks(silence), log: log, keep: retention{keepEvents, letGoMin, lapseEvery}, lost: newLostCounter()}
	b.links.use(&cfg.ConnConfig.Config)
	if b.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("opening Postgres: %w", err)
	}
	b.links.doubt = func(err error) { // no connection is open yet
		log.Warn("a connection to Postgres was given up", "error", err)
		b.pool.Reset() // the others may be dead too
	}
	b.attendance.node.Store(-1)
	return b, nil
}

// poolConfig is what all connections to a Postgres have in common.
func poolConfig(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	var file *fs.PathError
	if errors.As(err, &file) { // of sslrootcert, sslcert or sslkey
		return nil, refused("a file that the Postgres URL names cannot be read: %v", file)
	}
	if err != nil {
		// The parser's text may repeat the URL and with it the password.
		return nil, refused("the Postgres URL cannot be read: expected postgres://user:password@host:port/database")
	}
	// Nothing is trimmed from Redis before it is safe here, whatever the server's default.
	cfg.ConnConfig.RuntimeParams["synchronous_commit"] = "on"
	cfg.ConnConfig.RuntimeParams["application_name"] = "stampede"
	cfg.ConnConfig.RuntimeParams["timezone"] = "UTC"
	// Compiling a plan takes longer than any of our queries, and tables too new for statistics would ask for it.
	cfg.ConnConfig.RuntimeParams["jit"] = "off"
	cfg.PingTimeout = connectMax // a connection that was idle may be dead
	return cfg, nil
}

// poolSpare is how many connections there are beside those of the writers. Requests wait for one; Postgres itself
// would refuse beyond its max_connections.
const poolSpare = 26

// Close closes all connections. Those that do not end in order within partMax are cut.
func (b *Books) Close() {
	cut := time.AfterFunc(partMax, b.links.end)
	defer cut.Stop()
	b.attendance.mu.Lock()
	b.leave()
	b.attendance.mu.Unlock()
	b.pool.Close()
}

// Attach names the engine whose Redis these books belong to. Before anything but Bind.
func (b *Books) Attach(e *engine.Engine) {
	b.engine = e
	b.progress = newProgress(b)
	b.unwritten = newUnwritten(e.Keys().Partitions())
	b.attendance.heard = make([]time.Time, e.Keys().Partitions())
	b.attendance.refused = make([]atomic.Pointer[time.Time], e.Keys().Partitions())
}

// migrate brings the schema forward under a lock, so that processes that start together do not collide, and returns
// the deployment's number of partitions, 0 where there is none yet.
func migrate(ctx context.Context, pool *pgxpool.Pool) (partitions int, err error) {
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close() //nolint:errcheck // closes the wrapper, not the pool
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return 0, err
	}
	lock, err := pool.Acquire(ctx)
	if err != nil {
		return 0, connectError(err)
	}
	defer lock.Release()
	if _, err := lock.Exec(ctx, "SELECT pg_advisory_lock($1, 0)", lockMigrate); err != nil {
		return 0, fmt.Errorf("locking the schema: %w", err)
	}
	defer unlock(lock, lockMigrate, 0)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, dir)
	if err != nil {
		return 0, err
	}
	if _, err := provider.Up(ctx); err != nil {
		return 0, fmt.Errorf("migrating the schema: %w", err)
	}
	err = lock.QueryRow(ctx, selectPartitions).Scan(&partitions)
	return partitions, err
}

const selectPartitions = "SELECT coalesce(max(partitions), 0) FROM deployment"

// requireBooks returns the deployment's number of partitions and refuses a database that is none of Stampede's.
func requireBooks(ctx context.Context, pool *pgxpool.Pool) (partitions int, err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return 0, connectError(err)
	}
	defer conn.Release()
	err = conn.QueryRow(ctx, selectPartitions).Scan(&partitions)
	var pg *pgconn.PgError
	if (errors.As(err, &pg) && pg.Code == undefinedTable) || (err == nil && partitions == 0) {
		return 0, refused("this Postgres holds no books of Stampede: correct the Postgres URL")
	}
	return partitions, err
}

// Codes of errors, PostgreSQL appendix A.
const (
	undefinedTable        = "42P01"
	insufficientPrivilege = "42501"
)

// connectError makes a first connection's failure readable without repeating the URL.
func connectError(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return refused("Postgres turned the connection away: %s; check user, password and database of the Postgres URL", pg.Message)
	}
	var stranger *tls.CertificateVerificationError
	if errors.As(err, &stranger) {
		return refused("Postgres shows a certificate that is not to be trusted (%v): name the authority that signed it with "+
			"sslrootcert in the Postgres URL, and the host as the certificate does", stranger.Err)
	}
	text := err.Error()
	if i := strings.LastIndex(text, "dial error: "); i >= 0 {
		text = text[i:]
	}
	return refused("Postgres cannot be reached (%s); is it running at the Postgres URL?", text)
}

// Classes of advisory locks.
const (
	lockMigrate = 0x5354_0001
	lockWriter  = 0x5354_0002
	lockRepair  = 0x5354_0003
	lockPresent = 0x5354_0004
	lockAlive   = 0x5354_0007
	lockBind    = 0x5354_0008
)

const unlockTimeout = time.Second

// unlock gives an advisory lock back, also where the caller's context has ended. When it fails the connection is
// closed, and the lock ends with it.
func unlock(conn *pgxpool.Conn, class, key int) {
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_unlock($1, $2)", class, key); err != nil {
		_ = conn.Conn().Close(ctx) // it is broken already
	}
}

// clusterPartitions is P of a new shop on a cluster: enough to spread over as many as 12 masters.
const clusterPartitions = 12

// Bind makes sure that this Postgres and this Redis belong together and to P partitions (0: whatever they were made
// with; of new ones 1, or 12 on a cluster), and returns P. A fresh pair is made to belong together. restoring allows an empty
// Redis beside books, and then another P: the books are laid out anew.
func (b *Books) Bind(ctx context.Context, client redis.UniversalClient, partitions int, restoring bool) (int, error) {
	// Processes that start first at once have one founder: the others look after it.
	lock, err := b.pool.Acquire(ctx)
	if err != nil {
		return 0, connectError(err)
	}
	defer lock.Release()
	if _, err := lock.Exec(ctx, holdLead); err != nil {
		return 0, fmt.Errorf("waiting for another process that starts: %w", err)
	}
	defer resetSession(lock)
	if err := awaitLock(ctx, lock, lockBind, 0); err != nil {
		return 0, fmt.Errorf("waiting for another process that starts: %w", err)
	}
	defer unlock(lock, lockBind, 0)
	return b.bind(ctx, client, partitions, restoring)
}

// awaitLock takes an advisory lock when it is free. It asks for it again and again, as a statement that waits has its bound.
func awaitLock(ctx context.Context, conn *pgxpool.Conn, class, key int) error {
	for ; ; pause(ctx, doorPause) {
		var mine bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", class, key).Scan(&mine); err != nil || mine {
			return err
		}
	}
}

func (b *Books) bind(ctx context.Context, client redis.UniversalClient, partitions int, restoring bool) (int, error) {
	inRedis, redisHas, err := engine.FindDeployment(ctx, client)
	if err != nil {
		return 0, redisConnectError(err)
	}
	var here engine.Deployment
	err = b.pool.QueryRow(ctx, "SELECT id, partitions FROM deployment").Scan(&here.ID, &here.Partitions)
	booksHave := err == nil
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("reading the deployment: %w", err)
	}
	another := booksHave && partitions != 0 && partitions != here.Partitions
	switch {
	case redisHas && !booksHave:
		return 0, refused("this Redis belongs to deployment %s, but this Postgres has no books: is the Postgres URL right?", inRedis.ID)
	case redisHas && inRedis.ID != here.ID:
		return 0, refused("Redis belongs to deployment %s and Postgres to %s: check both URLs", inRedis.ID, here.ID)
	case redisHas && restoring && (another || inRedis.Partitions != here.Partitions):
		return 0, refused("this Redis was filled for %d partitions, or began to be: keep a copy of its data directory if it ever sold, start it with an "+
			"empty one and restore again", inRedis.Partitions)
	case redisHas && inRedis.Partitions != here.Partitions:
		return 0, refused("Redis has %d partitions and Postgres %d: these books were restored with another number since, into another "+
			"Redis; correct the Redis URL; to use this server, keep a copy of its data directory, start it with an empty one and run `stampede restore`",
			inRedis.Partitions, here.Partitions)
	case another && !restoring:
		return 0, refused("these books have %d partitions, not %d: drop --partitions; to change the number, stop all processes once PostgreSQL has "+
			"everything (writer lag 0), start an empty Redis and run `stampede restore --partitions %d`", here.Partitions, partitions, partitions)
	case redisHas && inRedis.Restoring && !restoring:
		return 0, errHalfRestored
	case redisHas && !restoring:
		return here.Partitions, nil
	case booksHave:
		var sold bool
		if err := b.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM checkpoints WHERE fence > 0)").Scan(&sold); err != nil {
			return 0, err
		}
		if sold && !restoring {
			return 0, errEmptyRedis
		}
	default:
		if partitions == 0 {
			partitions = 1
			if engine.IsCluster(client) {
				partitions = clusterPartitions
			}
		}
		here = engine.Deployment{ID: strings.ToLower(rand.Text()[:16]), Partitions: partitions}
		if err := b.found(ctx, here); err != nil {
			return 0, err
		}
	}
	if another {
		// First, so that a Redis which names a number of partitions finds it in the books.
		if err := b.layOut(ctx, partitions); err != nil {
			return 0, err
		}
		here.Partitions = partitions
	}
	here.Restoring = restoring
	if err := engine.ClaimRedis(ctx, client, here); err != nil {
		return 0, redisConnectError(err)
	}
	return here.Partitions, nil
}

var errEmptyRedis = refused("Redis is empty, but Postgres holds the books of a shop: run `stampede restore` to rebuild Redis from them, or correct the Redis URL")

var errHalfRestored = refused("a restore of this Redis was begun and not finished: run `stampede restore` again, or correct the Redis URL")

// found writes the deployment and its partitions' checkpoints.
func (b *Books) found(ctx context.Context, d engine.Deployment) error {
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO deployment (id, partitions) VALUES ($1, $2)", d.ID, d.Partitions); err != nil {
			return fmt.Errorf("founding the deployment: %w", err)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO layouts (epoch, partitions) VALUES (0, $1)", d.Partitions); err != nil {
			return fmt.Errorf("founding the deployment: %w", err)
		}
		_, err := tx.Exec(ctx, "INSERT INTO checkpoints (partition) SELECT generate_series(0, $1 - 1)", d.Partitions)
		return err
	})
}

func redisConnectError(err error) error {
	return refused("Redis cannot be used: %s", engine.Explain(err))
}

// Ping reports whether Postgres answers.
func (b *Books) Ping(ctx context.Context) error {
	if err := b.pool.Ping(ctx); err != nil {
		return fmt.Errorf("%w: Postgres does not answer", engine.ErrUnavailable)
	}
	return nil
}

// unavailable hides the driver's words from clients and keeps them for the log.
func unavailable(what string, err error) error {
	return fmt.Errorf("%w: %s: %v", engine.ErrUnavailable, what, err) //nolint:errorlint // for the log
}
