package main

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"time"

	"stampede/engine"
)

// saleFlags are those of every command that sells.
type saleFlags struct {
	Addr       string `default:"127.0.0.1:8080" help:"Address to listen on."`
	AdminToken string `placeholder:"TOKEN" help:"Bearer token of the admin routes. Other users of this machine can see flags: prefer the variable."`
	NoWriter   bool   `help:"Leave writing into PostgreSQL to another process."`
	Partitions int    `placeholder:"P" help:"Partitions of a new shop, by default 1, on a cluster 12; an existing one keeps its own, until stampede restore --partitions changes it."`

	Hold         time.Duration `default:"5m" help:"How long an unpaid order holds its stock, 1s to 24h; those that are held already keep their deadline."`
	RefundWindow time.Duration `default:"24h" help:"How long after paying a buyer may give an order back; 0 for not at all. An admin may at any time."`

	authFlags  `embed:""`
	limitFlags `embed:""`

	TLSCert string `placeholder:"FILE" help:"Certificate chain in PEM, to answer HTTPS instead of HTTP; read anew when it changes."`
	TLSKey  string `placeholder:"FILE" help:"Private key of the certificate."`

	AdminAddr string `placeholder:"HOST:PORT" help:"Address for profiles (/debug/pprof), off unless given. They ask for no credential: on this machine only."`
}

// Bounds of the flags that are times.
const (
	shortestHold        = time.Second
	longestHold         = 24 * time.Hour
	longestRefundWindow = 10 * 365 * 24 * time.Hour
)

// bearerToken is what RFC 6750 lets a client send, and what needs no quotes in stack.env.
var bearerToken = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

func (f *saleFlags) validate() error {
	switch {
	case f.AdminToken != "" && !bearerToken.MatchString(f.AdminToken):
		return errors.New("the admin token has characters that a Bearer token cannot have: " +
			"give --admin-token or STAMPEDE_ADMIN_TOKEN letters, digits and -._~+/ only")
	case (f.TLSCert == "") != (f.TLSKey == ""):
		return errors.New("one file of two: HTTPS needs both --tls-cert and --tls-key (or their variables)")
	case f.Hold < shortestHold || f.Hold > longestHold:
		return fmt.Errorf("--hold must be 1s to 24h, such as 90s or 5m, not %v: buyers need time to pay, and nobody else gets the stock meanwhile", f.Hold)
	case f.RefundWindow < 0 || f.RefundWindow > longestRefundWindow:
		return fmt.Errorf("--refund-window must be 0 to %dh, such as 24h, not %v: with 0 only an admin can refund",
			longestRefundWindow/time.Hour, f.RefundWindow)
	}
	return errors.Join(checkPartitions(f.Partitions), f.authFlags.validate(), f.limitFlags.validate())
}

// refundWindow is the flag as the engine takes it, where 0 stands for the default: a window that has closed as soon
// as an order is paid.
func (f *saleFlags) refundWindow() time.Duration { return max(f.RefundWindow, time.Nanosecond) }

// checkPartitions takes 0 for "as the books say".
func checkPartitions(n int) error {
	if n < 0 || n > engine.PartitionsMax {
		return fmt.Errorf("--partitions must be 1 to %d, or left out", engine.PartitionsMax)
	}
	return nil
}

// serverFlags name servers that run already.
type serverFlags struct {
	RedisURL    string `placeholder:"URL" help:"Redis, as redis://user:password@host:port/0; rediss:// for TLS. A cluster by one of its nodes or several: redis://host:port,host:port. With Sentinel: redis+sentinel://host:port,host:port/master."`
	RedisCACert string `name:"redis-cacert" placeholder:"FILE" help:"Certificates of the authorities that Redis' certificate is checked against, instead of the system's."`
	RedisCert   string `placeholder:"FILE" help:"Client certificate for Redis, which asks for one unless told not to."`
	RedisKey    string `placeholder:"FILE" help:"Private key of the client certificate."`
	PostgresURL string `placeholder:"URL" help:"PostgreSQL, as postgres://user:password@host:port/database."`
}

func (f *serverFlags) redis() engine.Redis {
	return engine.Redis{URL: f.RedisURL, CACert: f.RedisCACert, Cert: f.RedisCert, Key: f.RedisKey}
}

// stackFlags name servers by their URLs or by the directory of an `up`.
type stackFlags struct {
	serverFlags `embed:""`
	DataDir     string `default:".stampede" help:"Directory of a stampede up, to find its servers without their URLs."`
}

// byURL tells whether the URLs name the servers. A directory that was typed wins over URLs of the environment, which
// may be those of another stack.
func (f *stackFlags) byURL(c *console) (bool, error) {
	typed := c.typed["redis-url"] || c.typed["postgres-url"]
	switch {
	case f.RedisURL == "" && f.PostgresURL == "", c.typed["data-dir"] && !typed:
		return false, nil
	case f.RedisURL == "" || f.PostgresURL == "":
		return false, errors.New("one URL of two: give both --redis-url and --postgres-url (or their variables), or only --data-dir")
	}
	return true, nil
}

// readStack returns how to join the stack that `up` last ran in the directory.
func (f *stackFlags) readStack() (stackEnv, error) {
	env, err := readStackEnv(f.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return env, fmt.Errorf("there is no stack in %s: start one with stampede up, name its --data-dir, "+
			"or give --redis-url and --postgres-url", f.DataDir)
	case err != nil:
		return env, fmt.Errorf("cannot read %s (%w): run as the user who runs stampede up", stackEnvPath(f.DataDir), err)
	}
	return env, nil
}
