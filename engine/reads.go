package engine

import (
	"context"
	"errors"
	"fmt"
)

// readOp asks for string keys of a partition. Readers that wait together share one MGET, which begins after each of
// them arrived: they see what was answered before they asked.
type readOp struct {
	keys   []string
	values []any // as MGET gives them: nil where there is no such key
}

const (
	readOpsMax  = 1024 // readers a call
	readKeysMax = 4096 // keys a call, about
	readWorkers = 2    // calls in flight a partition
)

// serveReads answers readers until the queue is closed and empty.
func (p *partition) serveReads() {
	var batch []*operation
	at := map[string]int{}
	for {
		batch = p.reads.take(batch[:0], readOpsMax, readKeysMax)
		if len(batch) == 0 {
			return
		}
		if batch = p.expire(batch); len(batch) == 0 {
			continue
		}
		door := p.door.state.Load()
		if !door.open {
			// Redis may be behind what buyers were told.
			fail(batch, fmt.Errorf("%w: %s", ErrUnavailable, door.reason))
			continue
		}
		var keys []string
		clear(at)
		for _, op := range batch {
			for _, key := range op.body.(*readOp).keys {
				if _, known := at[key]; !known {
					at[key] = len(keys)
					keys = append(keys, key)
				}
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), p.engine.cfg.OperationTimeout)
		var found []any
		err := p.engine.repeat(ctx, func() (err error) {
			found, err = p.engine.redis.MGet(ctx, keys...).Result()
			return err
		})
		cancel()
		if err != nil {
			p.door.doubt()
			fail(batch, fmt.Errorf("%w: reading from Redis: %v", ErrUnavailable, err)) //nolint:errorlint // for the log
			continue
		}
		for _, op := range batch {
			r := op.body.(*readOp)
			r.values = make([]any, len(r.keys))
			for i, key := range r.keys {
				r.values[i] = found[at[key]]
			}
			op.done <- nil
		}
	}
}

// get reads string keys of a partition; a missing one is nil.
func (e *Engine) get(ctx context.Context, p *partition, keys ...string) ([]any, error) {
	r := &readOp{keys: keys}
	if err := p.reads.do(ctx, nil, r, len(keys)); err != nil {
		return nil, nothingDone(err)
	}
	return r.values, nil
}

// nothingDone says of a read whose caller did not wait for its end that nothing was done: there is nothing to do in a read.
func nothingDone(err error) error {
	if errors.Is(err, ErrUnknown) {
		return fmt.Errorf("%w: the read took too long", ErrUnavailable)
	}
	return err
}

// read gets a string key. A missing one is confirmed by a look at the door, so that it is truly missing.
func (e *Engine) read(ctx context.Context, p *partition, key string) (value string, found bool, err error) {
	values, err := e.get(ctx, p, key)
	if err != nil {
		return "", false, err
	}
	if value, found = values[0].(string); !found {
		err = e.confirmDoor(ctx, p)
	}
	return value, found, err
}
