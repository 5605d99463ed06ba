package shop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"stampede/engine"
	"stampede/persist"
)

// restoreConnections are enough for the calls that a restore has on their way.
const restoreConnections = 8

// Restore fills an empty Redis from the books and opens its doors; it sells and writes nothing itself. c.Partitions may be
// another number than the books have. watch tells how far it is.
func Restore(ctx context.Context, c Config, watch *persist.RestoreProgress) (err error) {
	if c.Log == nil {
		c.Log = slog.Default()
	}
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	books, err := persist.OpenPatient(starting, c.PostgresURL, c.Partitions, c.Log)
	if err != nil {
		return err
	}
	defer books.Close()
	client, err := engine.Connect(c.Redis, restoreConnections, startTimeout)
	if err != nil {
		return fmt.Errorf("%w: %w", persist.ErrRefused, err)
	}
	// First: Bind may lay out the books anew, which ends the epochs of whatever sells by them.
	if err := engine.CheckRights(starting, client, max(c.Partitions, 1)); err != nil {
		err = fmt.Errorf("%w: Redis cannot be used: %s", persist.ErrRefused, engine.Explain(err))
		return errors.Join(err, client.Close())
	}
	partitions, err := books.Bind(starting, client, c.Partitions, true)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	// Unstarted: it looks after doors and nothing else. A call waits for the disk, as long as it takes.
	e, err := engine.New(engine.Config{Redis: client, Partitions: partitions, OperationTimeout: startTimeout, Log: c.Log})
	if err != nil {
		return errors.Join(err, client.Close())
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	books.Attach(e)
	return books.Restore(ctx, watch)
}
