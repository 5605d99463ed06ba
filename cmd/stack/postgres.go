package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	roleName     = "stampede" // superuser of the cluster
	databaseName = "stampede"
	// firstDatabase is there from initdb on.
	firstDatabase = "postgres"

	codeInvalidPassword = "28P01" // of errors, PostgreSQL appendix A
)

// postgresServer is the private PostgreSQL.
type postgresServer struct {
	dir     *dataDir
	opts    Options
	cluster cluster
	child   *Child
	log     *slog.Logger
	bin     postgresBinaries

	password string
	port     int
}

func newPostgresServer(dir *dataDir, where place, o Options) *postgresServer {
	return &postgresServer{dir: dir, opts: o, log: o.Log, cluster: cluster{where}}
}

func (p *postgresServer) url(database string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", roleName, p.password, address(p.port), database)
}

// start makes the cluster when there is none, and runs the server on a free port.
func (p *postgresServer) start(ctx, life context.Context) error {
	major, err := p.cluster.major()
	if err != nil {
		return err
	}
	if p.bin, err = p.opts.system.postgresBinaries(ctx, major); err != nil {
		return err
	}
	if p.password, err = p.dir.secret("postgres"); err != nil {
		return err
	}
	if err := stopLeftovers(p.log, p.cluster.territory(), syscall.SIGINT); err != nil {
		return err
	}
	if major == 0 {
		if err := p.cluster.initialise(ctx, p.bin, p.opts.system.childEnv(), p.password); err != nil {
			return err
		}
	}
	err = onFreePort(func(port int) error {
		p.port = port
		p.child = newChild(life, p.log, p.server())
		return p.child.begin(ctx)
	})
	if err != nil {
		return err
	}
	return p.ensureDatabase(ctx)
}

func (p *postgresServer) server() server {
	return server{
		name:      "postgres",
		dir:       p.cluster.dir(),
		logPath:   p.dir.logFile("postgres"),
		command:   p.command,
		prepare:   p.prepare,
		probe:     p.probe,
		stop:      syscall.SIGINT, // "fast": rolls back, disconnects, checkpoints
		territory: p.cluster.territory(),
		orphans:   syscall.SIGQUIT, // backends give up at once
	}
}

// command sets what must hold by arguments: they win over the configuration files
// and over ALTER SYSTEM, so no edit can take the durability away.
func (p *postgresServer) command() *exec.Cmd {
	args := []string{"-D", p.cluster.dir()}
	for _, setting := range []string{
		"listen_addresses=127.0.0.1",
		fmt.Sprintf("port=%d", p.port),
		"unix_socket_directories=", // the usual place is shared by all of the machine
		"fsync=on",
		"synchronous_commit=on",
		"max_connections=300", // a writer holds one a partition, of which there are up to 240
		"shared_buffers=256MB",
		"max_wal_size=2GB",
		"password_encryption=scram-sha-256",
		"logging_collector=off", // standard error, which goes to the log file
		"timezone=UTC",
		"log_timezone=UTC",
	} {
		args = append(args, "-c", setting)
	}
	cmd := exec.Command(p.bin.postgres, args...)
	cmd.Dir = p.cluster.dir()
	cmd.Env = p.opts.system.childEnv()
	cmd.SysProcAttr = p.cluster.user.attr()
	return cmd
}

// prepare removes postmaster.pid: nothing of ours runs, so it is stale whatever it
// says, but PostgreSQL would believe it if its pid belonged to somebody else by now.
func (p *postgresServer) prepare(context.Context) error {
	path := filepath.Join(p.cluster.dir(), "postmaster.pid")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return unusable(path, err)
	}
	return nil
}

// probe logs in. A wrong password will not become right by waiting.
func (p *postgresServer) probe(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.url(firstDatabase))
	var refusal *pgconn.PgError
	if errors.As(err, &refusal) && refusal.Code == codeInvalidPassword {
		return &ConfigError{
			What: fmt.Sprintf("PostgreSQL in %s does not take the password of %s",
				p.cluster.dir(), filepath.Join(p.dir.path, "postgres.password")),
			Do: "put the file back that was there when the data was made, or take another directory with --data-dir",
		}
	}
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// ensureDatabase makes the database, unless an earlier start did.
func (p *postgresServer) ensureDatabase(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, p.url(firstDatabase))
	if err != nil {
		return fmt.Errorf("make database %s: %w", databaseName, err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	var exists bool
	const query = "select exists (select from pg_database where datname = $1)"
	if err := conn.QueryRow(ctx, query, databaseName).Scan(&exists); err != nil {
		return fmt.Errorf("look for database %s: %w", databaseName, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "create database "+databaseName); err != nil {
		return fmt.Errorf("make database %s: %w", databaseName, err)
	}
	return nil
}
