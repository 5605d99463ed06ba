package stack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// socketPathMax keeps clear of the 108 bytes of sockaddr_un.
const socketPathMax = 100

// redisServer is a private redis-server.
type redisServer struct {
	dir     *dataDir
	opts    Options
	child   *Child
	log     *slog.Logger
	program string // what logs and errors call it
	home    string // its directory

	// The same for all of a stack.
	binary    redisBinary
	password  string
	maxMemory int64

	clustered bool
	number    int    // of a node, from 1
	socket    string // empty when its path would be too long, and of a node
	port      int
	bus       int // the port on which nodes talk to each other; 0 without a cluster
}

func newRedisServer(dir *dataDir, o Options) *redisServer {
	r := &redisServer{dir: dir, opts: o, log: o.Log, home: dir.redis()}
	if socket := filepath.Join(r.home, "redis.sock"); len(socket) < socketPathMax {
		r.socket = socket
	}
	return r
}

// url names the user default: redis-cli 7.0 takes an empty name literally.
func (r *redisServer) url() string {
	return fmt.Sprintf("redis://default:%s@%s/0", r.password, address(r.port))
}

func (r *redisServer) confPath() string { return filepath.Join(r.home, "redis.conf") }

func (r *redisServer) territory() territory {
	return territory{programs: redisPrograms, dirs: []string{r.home}}
}

// start runs the server: a node on its ports of the last time, by which the others
// know it, where they are free.
func (r *redisServer) start(ctx, life context.Context) error {
	return onFreePorts(r.lastPorts(), func(ports []int) error {
		r.port = ports[0]
		if r.clustered {
			r.bus = ports[1]
		}
		if err := writeFile(r.confPath(), r.config()); err != nil {
			return unusable(r.confPath(), err)
		}
		r.child = newChild(life, r.log, r.server())
		return r.child.begin(ctx)
	})
}

func (r *redisServer) server() server {
	return server{
		name:      r.program,
		dir:       r.home,
		input:     r.confPath(),
		logPath:   r.dir.logFile(filepath.Base(r.home)),
		command:   r.command,
		prepare:   r.prepare,
		probe:     r.probe,
		ready:     r.recordRelease,
		stop:      syscall.SIGTERM,
		territory: r.territory(),
		orphans:   syscall.SIGKILL, // an AOF rewrite that nobody will take over
	}
}

// command reads the configuration from standard input: a path with * ? or [ would
// be taken for a pattern, and when nothing matches Redis runs wide open on its
// default port.
func (r *redisServer) command() *exec.Cmd {
	cmd := exec.Command(r.binary.path, "-")
	cmd.Dir = r.home
	cmd.Env = r.opts.system.childEnv()
	cmd.SysProcAttr = account{}.attr()
	return cmd
}

// prepare removes the files that a killed run was writing: Redis never looks at
// them again, and they may be as large as all the data. And it cuts a torn write off the AOF.
func (r *redisServer) prepare(ctx context.Context) error {
	entries, err := os.ReadDir(r.home)
	if err != nil {
		return unusable(r.home, err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "temp-") && !strings.HasPrefix(entry.Name(), nodesFile+".tmp-") {
			continue
		}
		path := filepath.Join(r.home, entry.Name())
		if err := os.Remove(path); err != nil {
			return unusable(path, err)
		}
	}
	return r.cutTornWrite(ctx)
}

// probe asks for a PONG. While Redis loads its AOF it answers LOADING instead. By
// hand, because a client with a pool logs every refused connection of a start.
func (r *redisServer) probe(ctx context.Context) (err error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp4", address(r.port))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(conn, "AUTH %s\r\nPING\r\n", r.password); err != nil {
		return err
	}
	replies := bufio.NewReader(conn)
	for _, want := range []string{"+OK", "+PONG"} {
		reply, err := replies.ReadString('\n')
		if err != nil {
			return err
		}
		if reply = strings.TrimSpace(reply); reply != want {
			return errors.New(reply)
		}
	}
	return nil
}

// config is the whole configuration. It lies in a file of mode 0600, because the
// password must not stand in the arguments of a process.
func (r *redisServer) config() string {
	appendfsync := "always"
	if r.opts.Durability == DurabilityEverySec {
		appendfsync = "everysec"
	}
	lines := []string{
		"# Written by stampede at every start; changes are lost.",
		"bind 127.0.0.1",
		fmt.Sprintf("port %d", r.port),
		"requirepass " + r.password,
		"dir " + quoteRedis(r.home),
		"daemonize no",
		`logfile ""`, // standard output, which goes to the log file
		`save ""`,    // the AOF is the only memory; a snapshot would only cost a fork
		"appendonly yes",
		"appendfsync " + appendfsync,
		"no-appendfsync-on-rewrite no", // a rewrite must not suspend the promise
		"aof-use-rdb-preamble yes",
		"aof-load-truncated yes", // a torn last write is no reason to stay down
		fmt.Sprintf("maxmemory %d", r.maxMemory),
		"maxmemory-policy noeviction", // refuse, never forget
	}
	if r.socket != "" {
		lines = append(lines, "unixsocket "+quoteRedis(r.socket), "unixsocketperm 700")
	}
	if r.clustered {
		lines = append(lines, r.clusterConfig()...)
	}
	return strings.Join(lines, "\n") + "\n"
}

// quoteRedis writes a path as one argument of a configuration line.
func quoteRedis(path string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(path) + `"`
}
