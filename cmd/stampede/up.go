package main

import (
	"errors"
	"time"

	"stampede/cmd/stack"
	"stampede/engine"
)

// Bounds of stopping both servers. Each has one of its own, within; the second is what a second signal leaves, long
// enough for servers that are well.
const (
	serversStopMax   = 70 * time.Second
	serversHurriedIn = 2 * time.Second
)

type upCommand struct {
	saleFlags  `embed:""`
	DataDir    string `default:".stampede" help:"Directory of all data; one up at a time."`
	Demo       bool   `help:"Fill an empty shop with 100 products and 1,000 users with a balance."`
	Durability string `default:"fsync" enum:"everysec,fsync,replica" help:"What an answer survives: everysec (Redis syncs to disk once a second), fsync (before it answers); replica is for serve, with a Redis that has some."`
	RedisNodes int    `default:"1" enum:"1,3" help:"Redis servers to run: 1, or a Redis Cluster of 3 masters. Data stays with the number it was made with."`
}

// Run starts the servers and sells until a signal comes; then it stops everything, in the reverse order.
func (u *upCommand) Run(c *console) (err error) {
	if err := u.validate(); err != nil {
		return err
	}
	sale, err := u.sale(c.log, 0, 0)
	if err != nil {
		return err
	}
	defer sale.listener.Close()
	servers, err := stack.Start(c.interrupts.stop, stack.Options{
		DataDir: u.DataDir, Durability: u.Durability, RedisNodes: u.RedisNodes, Log: c.log,
	})
	if err != nil {
		return c.unlessInterrupted(err)
	}
	defer func() { err = errors.Join(err, stopServers(c, servers)) }()
	token, err := keptToken(u.AdminToken, u.DataDir)
	if err != nil {
		return err
	}
	env := stackEnv{
		address: reachable(sale.listener), redisURL: servers.RedisURL(), postgresURL: servers.PostgresURL(), adminToken: token,
	}
	if err := env.write(u.DataDir); err != nil {
		return err
	}
	sale.redis, sale.postgresURL, sale.adminToken = engine.Redis{URL: env.redisURL}, env.postgresURL, token
	sale.showToken, sale.demo, sale.oneMachine = c.terminal, u.Demo, true
	return sell(c, sale)
}

func (u *upCommand) validate() error {
	if u.Durability == "replica" {
		return errors.New("--durability replica needs replicas, and stampede up runs Redis without any: " +
			"take fsync or everysec, or stampede serve with a Redis that has replicas")
	}
	return u.saleFlags.validate()
}

// stopServers never leaves a server behind: what does not stop in time is killed, and said.
func stopServers(c *console, servers *stack.Stack) error {
	ctx, cancel := c.interrupts.bound(serversStopMax, serversHurriedIn)
	defer cancel()
	return servers.Stop(ctx)
}
