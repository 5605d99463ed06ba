package shop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"stampede/engine"
	"stampede/persist"
)

// Move brings a partition to another master of its Redis Cluster, beside the processes that sell; see persist.Books.Move.
func Move(ctx context.Context, c Config, partition int, to string, tell func(step persist.MoveStep, keys int64)) (done persist.Moved, err error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client, err := engine.Connect(c.Redis, restoreConnections, startTimeout)
	if err != nil {
		return done, fmt.Errorf("%w: %w", persist.ErrRefused, err)
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	deployment, found, err := engine.FindDeployment(starting, client)
	switch {
	case err != nil:
		return done, fmt.Errorf("%w: Redis cannot be used: %s", persist.ErrRefused, engine.Explain(err))
	case !found:
		return done, fmt.Errorf("%w: this Redis holds no shop: correct the Redis URL", persist.ErrRefused)
	}
	if err := engine.CheckRights(starting, client, deployment.Partitions); err != nil {
		return done, fmt.Errorf("%w: Redis cannot be used: %s", persist.ErrRefused, engine.Explain(err))
	}
	books, err := persist.OpenExisting(starting, c.PostgresURL, c.Log)
	if err != nil {
		return done, err
	}
	defer books.Close()
	if _, err := books.Bind(starting, client, deployment.Partitions, false); err != nil {
		return done, err
	}
	// Unstarted, as that of a restore.
	e, err := engine.New(engine.Config{Redis: client, Partitions: deployment.Partitions, OperationTimeout: startTimeout, Log: c.Log})
	if err != nil {
		return done, err
	}
	books.Attach(e)
	return books.Move(ctx, partition, to, tell)
}
