package main

import "errors"

type serveCommand struct {
	serverFlags `embed:""`
	saleFlags   `embed:""`

	Durability string `default:"server" enum:"server,replica" help:"What an answer survives: server (what appendfsync of Redis says), or replica (also, very likely, a failover: a replica has it)."`
}

// Run sells until a signal comes.
func (s *serveCommand) Run(c *console) error {
	if err := s.validate(); err != nil {
		return err
	}
	ipRate := 0
	if s.Auth == authJWT {
		ipRate = ipRateOfServe
	}
	sale, err := s.sale(c.log, userRateOfServe, ipRate)
	if err != nil {
		return err
	}
	defer sale.listener.Close()
	sale.replica = s.Durability == "replica"
	sale.redis, sale.postgresURL, sale.adminToken = s.redis(), s.PostgresURL, s.AdminToken
	return sell(c, sale)
}

func (s *serveCommand) validate() error {
	switch {
	case s.RedisURL == "":
		return errors.New("no Redis is named: set STAMPEDE_REDIS_URL or --redis-url, or let `stampede up` run one")
	case s.PostgresURL == "":
		return errors.New("no PostgreSQL is named: set STAMPEDE_POSTGRES_URL or --postgres-url, or let `stampede up` run one")
	case s.AdminToken == "":
		return errors.New("no admin token: set STAMPEDE_ADMIN_TOKEN or --admin-token")
	}
	return s.saleFlags.validate()
}
