package engine

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/url"
	"strings"

	"github.com/redis/go-redis/v9"
)

// address is what a Redis URL says.
type address struct {
	options *redis.Options // of a connection to a server
	hosts   []string       // host:port of all servers that it names
	master  string         // what sentinels call the server that they watch; empty: the hosts are no sentinels

	sentinelUser, sentinelPassword string
}

var errURL = errors.New("the Redis URL cannot be read: expected redis://[user:password@]host:port/db, or rediss:// for TLS; " +
	"for a cluster redis://[user:password@]host:port,host:port; " +
	"for a master that Sentinel watches redis+sentinel://[user:password@]host:port,host:port/name-of-the-master")

// hosts splits a URL of several servers. A password may contain a comma where there is one.
func (r Redis) hosts() []string {
	u, err := url.Parse(r.URL)
	if err == nil && (u.Scheme == "unix" || !strings.Contains(u.Host+u.Path, ",")) {
		return []string{r.URL}
	}
	return strings.Split(r.URL, ",")
}

// address takes the URL apart. Servers behind the first may leave scheme and credentials away, which are the same for all.
func (r Redis) address() (a address, err error) {
	named := r.hosts()
	scheme, first, _ := strings.Cut(named[0], "://")
	scheme, watched := strings.CutSuffix(scheme, "+sentinel")
	port := "6379"
	if watched {
		port = "26379"
	}
	tail := ""
	for i, host := range named {
		host = strings.TrimPrefix(strings.TrimPrefix(host, scheme+"+sentinel://"), scheme+"://")
		if at := strings.IndexAny(host, "/?"); at >= 0 && (i > 0 || scheme != "unix") {
			host, tail = host[:at], host[at:]
		}
		if i == 0 {
			first = host
		}
		if len(named) == 1 && !watched {
			break // what it leaves away has defaults
		}
		if host, err = hostPort(host[strings.LastIndex(host, "@")+1:], port); err != nil {
			return a, err
		}
		a.hosts = append(a.hosts, host)
	}
	if watched {
		if tail, err = a.watch(tail); err != nil {
			return a, err
		}
	}
	if a.options, err = redis.ParseURL(scheme + "://" + first + tail); err != nil {
		return a, errURL
	}
	if len(a.hosts) == 0 {
		a.hosts = []string{a.options.Addr}
	}
	return a, nil
}

func hostPort(text, port string) (string, error) {
	u, err := url.Parse("//" + text)
	if err != nil || u.Hostname() == "" || u.Host != text {
		return "", errURL
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), port)), nil
}

// watch takes from the end of a URL what is about sentinels, and returns the rest.
func (a *address) watch(tail string) (string, error) {
	u, err := url.Parse(tail)
	if err != nil {
		return "", errURL
	}
	a.master = strings.Trim(u.Path, "/")
	if a.master == "" || strings.Contains(a.master, "/") {
		return "", errors.New("the Redis URL does not name the master that Sentinel watches: end it with /name, as in redis+sentinel://host:26379/mymaster")
	}
	query := u.Query()
	a.sentinelUser, a.sentinelPassword = query.Get("sentinel_username"), query.Get("sentinel_password")
	query.Del("sentinel_username")
	query.Del("sentinel_password")
	return "?" + query.Encode(), nil
}

// cluster returns a client of the cluster to which the hosts belong; one of them that answers is enough. Its zero values
// have all commands go to masters.
func (a *address) cluster() (redis.UniversalClient, error) {
	o := a.options
	if o.DB != 0 {
		return nil, errors.New("a Redis Cluster has database 0 and no other: let the Redis URL end in /0, or leave the number out")
	}
	c := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:        a.hosts,
		MaxRedirects: -1, // none: what is redirected is told as the error that it is, and the slot map read anew
		MaxRetries:   o.MaxRetries,
		// Else commands without a key would go to several nodes, or to any.
		DisableRoutingPolicies: true,

		Dialer: o.Dialer, TLSConfig: o.TLSConfig, Username: o.Username, Password: o.Password, ClientName: o.ClientName, Protocol: o.Protocol,
		PoolSize: o.PoolSize, DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, PoolTimeout: o.PoolTimeout,
		DialerRetries: o.DialerRetries, ContextTimeoutEnabled: o.ContextTimeoutEnabled,
		DisableIdentity: o.DisableIdentity, MaintNotificationsConfig: o.MaintNotificationsConfig,
	})
	follow(c)
	return c, nil
}

// watched returns a client of the master that the sentinels name, also after a failover.
func (a *address) watched() redis.UniversalClient {
	o := a.options
	c := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: a.master, SentinelAddrs: a.hosts, SentinelUsername: a.sentinelUser, SentinelPassword: a.sentinelPassword,
		MaxRetries: o.MaxRetries,

		Dialer: o.Dialer, TLSConfig: o.TLSConfig, Username: o.Username, Password: o.Password, ClientName: o.ClientName, Protocol: o.Protocol,
		PoolSize: o.PoolSize, DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, PoolTimeout: o.PoolTimeout,
		DialerRetries: o.DialerRetries, ContextTimeoutEnabled: o.ContextTimeoutEnabled, DisableIdentity: o.DisableIdentity,
	})
	c.AddHook(sentinels{})
	return c
}

// sentinels is a hook that tells what is wrong with the sentinels as what it is: the master was not reached, and a
// command not executed.
type sentinels struct{}

// DialHook marks every error as one of dialling; see outcome.
func (sentinels) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		var dial *net.OpError
		if err != nil && (!errors.As(err, &dial) || dial.Op != "dial") {
			err = &net.OpError{Op: "dial", Net: network, Err: err}
		}
		return conn, err
	}
}

// ProcessHook changes nothing.
func (sentinels) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

// ProcessPipelineHook changes nothing.
func (sentinels) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
