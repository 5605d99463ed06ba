package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"stampede/lua"
)

// quiet drops the driver's own log lines: what they say comes back as errors, which are logged where they count.
type quiet struct{}

// Printf drops the line.
func (quiet) Printf(context.Context, string, ...any) {}

var silence = sync.OnceFunc(func() { redis.SetLogger(quiet{}) })

// Redis says where a Redis is and, where it speaks TLS, whom to trust. Files are PEM.
type Redis struct {
	// URL is redis://, rediss:// (TLS) or unix://, with several hosts for the nodes of a cluster; redis+sentinel:// or
	// rediss+sentinel:// with the hosts of sentinels and the name of the master that they watch.
	URL    string
	CACert string // file with the authorities to check the server against; empty: those of the system
	Cert   string // file with the client certificate, where the server asks for one
	Key    string // file with its private key
	// Cluster says that the URL is of a node of a cluster, so that nobody needs to ask it.
	Cluster bool
}

// Connect returns a client that never re-sends a command by itself: a script must not run twice behind the engine's
// back. timeout bounds dialling, reading and writing. A single server is asked whether it belongs to a cluster; one that
// does not answer counts as one that does not. poolSize bounds the connections to a server: any may come to hold all
// partitions.
func Connect(r Redis, poolSize int, timeout time.Duration) (redis.UniversalClient, error) {
	silence()
	a, err := r.address()
	if err != nil {
		return nil, err
	}
	if err := r.secure(a.options); err != nil {
		return nil, err
	}
	o := a.options
	o.MaxRetries = -1
	o.PoolSize = poolSize
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
	o.DialerRetries = 1
	o.ContextTimeoutEnabled = true
	o.DisableIdentity = true // CLIENT SETINFO: nobody reads it, and it would be one more right to grant
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch {
	case a.master != "":
		return a.watched(), nil
	case r.Cluster || len(a.hosts) > 1 || isNode(o):
		return a.cluster()
	}
	return redis.NewClient(o), nil
}

// askMax bounds how long a server is waited for that may belong to a cluster.
const askMax = 5 * time.Second

// isNode asks a server whether it belongs to a cluster.
func isNode(o *redis.Options) bool {
	if o.Network == "unix" {
		return false // of the others the socket tells nothing
	}
	asking := *o
	asking.DB, asking.PoolSize = 0, 1 // nodes of a cluster refuse to be asked for another
	client := redis.NewClient(&asking)
	defer client.Close() //nolint:errcheck // nothing is pending
	ctx, cancel := context.WithTimeout(context.Background(), min(askMax, o.ReadTimeout))
	defer cancel()
	hello := redis.NewMapStringInterfaceCmd(ctx, "hello") // which takes no right, other than INFO
	_ = client.Process(ctx, hello)
	return hello.Err() == nil && hello.Val()["mode"] == "cluster"
}

// Deployment is what must not change while data stands in Redis.
type Deployment struct {
	ID         string // also in Postgres: the two belong together
	Partitions int
	Restoring  bool // a restore was begun and has not opened all doors yet
}

const fieldRestoring = "restoring" // of DeploymentKey, while it lasts

// FindDeployment reads the deployment that a Redis belongs to; false where there is none.
func FindDeployment(ctx context.Context, c redis.UniversalClient) (Deployment, bool, error) {
	fields, err := c.HGetAll(ctx, DeploymentKey).Result()
	if err != nil {
		return Deployment{}, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if len(fields) == 0 {
		return Deployment{}, false, nil
	}
	n, err := strconv.Atoi(fields["partitions"])
	if err != nil || fields["id"] == "" {
		return Deployment{}, false, fmt.Errorf("%w: key %s", ErrCorrupt, DeploymentKey)
	}
	return Deployment{ID: fields["id"], Partitions: n, Restoring: fields[fieldRestoring] != ""}, true, nil
}

// RenewAOF has the server of a partition begin a new append-only file, where it keeps one. After a power cut the old one may end in half a
// transaction, which Redis 7.0 skips at this start and would carry out at the next one, together with whatever is
// appended to it. A new file is appended to from the moment its rewrite starts.
func (e *Engine) RenewAOF(ctx context.Context, partition int) error {
	node, err := e.node(ctx, partition)
	if err != nil {
		return err
	}
	return e.renewAOF(ctx, node)
}

func (e *Engine) renewAOF(ctx context.Context, node redis.UniversalClient) error {
	info, err := node.Info(ctx, "persistence").Result()
	if err != nil {
		return fmt.Errorf("%w: %v", ErrUnavailable, err) //nolint:errorlint // for the log
	}
	if !strings.Contains(info, "aof_enabled:1") {
		return nil
	}
	said, err := node.BgRewriteAOF(ctx).Result()
	var refusal redis.Error
	switch {
	case err == nil && strings.Contains(said, "started"), err != nil && strings.Contains(err.Error(), "in progress"):
		return nil
	case err == nil:
		return fmt.Errorf("%w: Redis has not begun a new AOF yet: %s", ErrUnavailable, said)
	case errors.As(err, &refusal):
		// A managed Redis keeps its files itself, and one without memory to fork must not stay shut for it.
		e.cfg.Log.Warn("Redis does not begin a new AOF: see its log for the cause, and make room if its disk is full, or free "+
			"memory if it cannot fork; no file needs repair for that, and none may be deleted", "error", err)
		return nil
	}
	return fmt.Errorf("%w: %v", ErrUnavailable, err) //nolint:errorlint // for the log
}

// Founded reads the deployment that Redis names by now; false where it names none any more.
func (e *Engine) Founded(ctx context.Context) (Deployment, bool, error) {
	return FindDeployment(ctx, e.redis)
}

// ClaimRedis writes the deployment into a Redis that has none, or the mark of a restore into one that has.
func ClaimRedis(ctx context.Context, c redis.UniversalClient, d Deployment) error {
	fields := []any{"id", d.ID, "partitions", d.Partitions}
	if d.Restoring {
		fields = append(fields, fieldRestoring, 1)
	}
	if err := c.HSet(ctx, DeploymentKey, fields...).Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Memory returns the server's maxmemory in bytes; 0 where it has none or does not say. INFO tells it to a user who may
// not read the configuration, where passwords stand.
func Memory(ctx context.Context, c redis.UniversalClient) int64 {
	info, err := c.Info(ctx, "memory").Result()
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(info, "\r\nmaxmemory:")
	figure, _, _ := strings.Cut(rest, "\r\n")
	n, _ := strconv.ParseInt(figure, 10, 64)
	return n
}

// memoryDefault is what a server without a maxmemory counts as, in bytes.
const memoryDefault = 1 << 30

// BacklogCap is how much a partition may hold of events that Postgres lacks, in bytes: the partitions of a server share a
// quarter of its memory.
func BacklogCap(ctx context.Context, c redis.UniversalClient, partitions int) (int64, error) {
	keys, err := NewKeys(partitions)
	if err != nil {
		return 0, err
	}
	all, err := servers(ctx, c, keys)
	if err != nil {
		return 0, err
	}
	least := int64(math.MaxInt64)
	for _, s := range all {
		least = min(least, cmp.Or(Memory(ctx, s), memoryDefault)/4/int64(len(s.partitions)))
	}
	return least, nil
}

// CheckRights makes sure that the Redis user may run every command of the scripts: one that is refused a command after
// its first write would leave half of a change behind. Keys need no such check: those of a script are judged before it
// begins. others are commands that are needed besides.
func CheckRights(ctx context.Context, c redis.UniversalClient, partitions int, others ...string) error {
	keys, err := NewKeys(partitions)
	if err != nil {
		return err
	}
	commands := []any{"XREAD"} // the writer's
	for _, command := range slices.Concat(lua.Commands, others) {
		commands = append(commands, command)
	}
	all, err := servers(ctx, c, keys)
	if err != nil {
		return err
	}
	for _, s := range all { // each has users of its own
		meta := []string{keys.Meta(s.partitions[0])}
		err := s.Eval(ctx, lua.Rights.Text, meta, commands...).Err() // loads it: the engine needs both ways
		var missing []string
		if err == nil {
			missing, err = s.EvalSha(ctx, lua.Rights.SHA, meta, commands...).StringSlice()
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if len(missing) > 0 {
			return fmt.Errorf("NOPERM the user may not run %s", strings.Join(missing, ", "))
		}
	}
	return nil
}
