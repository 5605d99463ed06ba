package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// partitionsAtOnce bounds what visits every partition: enough for PartitionsMax of them in a fraction of a second, few
// enough to leave connections to the sale.
const partitionsAtOnce = 16

// Each visits every partition, some at once, and joins their errors in the partitions' order.
func (e *Engine) Each(visit func(partition int) error) error {
	errs := make([]error, len(e.partitions))
	var group errgroup.Group
	group.SetLimit(partitionsAtOnce)
	for p := range e.partitions {
		group.Go(func() error {
			errs[p] = visit(p)
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// Ping reports whether Redis answers, each master of a cluster; where one does not, the error says what its operator does
// next.
func (e *Engine) Ping(ctx context.Context) error {
	all, err := servers(ctx, e.redis, e.keys)
	if err != nil {
		return errors.New(noAnswer(err))
	}
	silent := make([]error, len(all))
	var pings sync.WaitGroup
	for i, s := range all {
		pings.Go(func() {
			if err := s.Ping(ctx).Err(); err != nil {
				silent[i] = errors.New(e.named(s) + noAnswer(err))
			}
		})
	}
	pings.Wait()
	return errors.Join(silent...)
}

// named is how a line about a server begins: with its address, where there are several.
func (e *Engine) named(s server) string {
	if node, is := s.UniversalClient.(*redis.Client); is && e.InCluster() {
		return node.Options().Addr + ": "
	}
	return ""
}

// noAnswer says why Redis does not answer as it should, and what to do.
func noAnswer(err error) string {
	var reply redis.Error
	var network net.Error
	var dial *net.OpError
	var handshake handshakeError
	switch {
	case errors.As(err, &reply):
		return complaint(reply)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout), errors.As(err, &network) && network.Timeout():
		return "Redis does not answer in time: see whether it is frozen, overloaded or cut off from here"
	case errors.As(err, &handshake):
		return "Redis cannot be used: " + Explain(err)
	case errors.As(err, &dial) && dial.Op == "dial":
		return "Redis cannot be reached: start it, or correct the address in the Redis URL"
	}
	return "Redis cannot be asked (" + err.Error() + "): see its log"
}

// complaint says what to do about an error that Redis itself answers.
func complaint(reply redis.Error) string {
	switch code, _, _ := strings.Cut(reply.Error(), " "); code {
	case "LOADING":
		return "Redis is reading its data from disk: wait until it has"
	case "CLUSTERDOWN":
		return "Redis Cluster is down: " + Explain(reply)
	case "NOAUTH", "WRONGPASS", "NOPERM":
		return "Redis turns Stampede away: " + Explain(reply)
	}
	return "Redis answers with an error: " + reply.Error()
}

// CheckDoors looks at every door now, in Redis.
func (e *Engine) CheckDoors(ctx context.Context) error { return e.CheckPartitions(ctx).Fenced }

// Checked is what a look at all partitions found.
type Checked struct {
	Selling int   // partitions in which this process can take orders
	Fenced  error // what keeps others from selling
	Full    error // which refuse orders, since their backlog is full
}

// CheckPartitions looks at every partition now, in Redis.
func (e *Engine) CheckPartitions(ctx context.Context) (c Checked) {
	wrong, full, sells := make([]string, len(e.partitions)), make([]string, len(e.partitions)), make([]bool, len(e.partitions))
	_ = e.Each(func(n int) error {
		wrong[n], full[n], sells[n] = e.partitions[n].check(ctx)
		return nil
	})
	for _, does := range sells {
		if does {
			c.Selling++
		}
	}
	c.Fenced, c.Full = ByPartition(wrong), ByPartition(full)
	return c
}

const backlogFull = "the backlog of events that Postgres lacks is full, so that orders are refused"

// check says what keeps the partition from selling, by a look at it. If Redis does not answer the look in time, what this
// process knows counts: it fences the partition itself when Redis answers nothing for as long as an operation may take.
func (p *partition) check(ctx context.Context) (wrong, full string, sells bool) {
	v, err := p.engine.Look(ctx, p.number)
	s := p.door.state.Load()
	switch {
	case err != nil:
		return err.Error(), "", s.open && ctx.Err() != nil
	case !v.Standing && s.open:
		p.door.doubt()
		return "door shut: Redis restarted or was replaced just now", "", false
	case !v.Standing:
		p.door.doubt()
		return "door shut: " + s.reason, "", false
	case p.engine.Copied(p.number, v.Epoch):
		p.door.doubt()
		return "door shut: " + errCopied.Error(), "", false
	case v.Epoch < p.door.fence.Load():
		p.door.doubt()
		return "door shut: " + errLeftBehind.Error(), "", false
	case v.Epoch != s.epoch: // of one that is not open here it is 0
		p.door.doubt()
		return fmt.Sprintf("this process has not followed Redis into epoch %d yet", v.Epoch), "", false
	case p.engine.Backlog(&v) > 1:
		return "", backlogFull, false
	}
	return "", "", true
}

// Selling is in how many partitions this process can take orders, as far as it knows.
func (e *Engine) Selling() (partitions int) {
	for _, p := range e.partitions {
		if p.door.state.Load().open {
			partitions++
		}
	}
	return partitions
}

// Ready reports which partitions do not sell, as far as this process knows, and why: nil when all do.
func (e *Engine) Ready() error {
	wrong := make([]string, len(e.partitions))
	for _, p := range e.partitions {
		if s := p.door.state.Load(); !s.open {
			wrong[p.number] = "door shut: " + s.reason
		}
	}
	return ByPartition(wrong)
}

// ByPartition joins what is wrong in each partition ("": nothing), each thing once with the partitions that it is wrong in.
func ByPartition(wrong []string) error {
	var lines []string
	partitions := map[string][]string{}
	for n, text := range wrong {
		if text == "" {
			continue
		}
		if partitions[text] == nil {
			lines = append(lines, text)
		}
		partitions[text] = append(partitions[text], strconv.Itoa(n))
	}
	errs := make([]error, len(lines))
	for i, text := range lines {
		name := "partition "
		if len(partitions[text]) > 1 {
			name = "partitions "
		}
		errs[i] = errors.New(name + strings.Join(partitions[text], ", ") + ": " + text)
	}
	return errors.Join(errs...)
}

// Backlog is the share of the backlog's cap that a partition used when it was looked at. From 1 on it refuses what would
// add to it.
func (e *Engine) Backlog(v *DoorView) float64 {
	return float64(max(0, v.Bytes-v.Done)) / float64(e.backlogCap.Load())
}

// Waiting returns how long ago the first event after a position was written, by the partition's clock, which stamped it;
// false if there is none.
func (e *Engine) Waiting(ctx context.Context, partition int, behind Position) (age time.Duration, waits bool, err error) {
	var found []redis.XMessage
	err = e.repeat(ctx, func() (err error) {
		found, err = e.redis.XRangeN(ctx, e.keys.Events(partition), "("+behind.String(), "+", 1).Result()
		return err
	})
	if err != nil {
		return 0, false, fmt.Errorf("%w: reading the oldest event: %v", ErrUnavailable, err) //nolint:errorlint // for the log
	}
	if len(found) == 0 {
		return 0, false, nil
	}
	entry, err := ParseEntry(found[0].ID, found[0].Values)
	if err != nil {
		return 0, true, err
	}
	events, err := entry.Events()
	if err != nil {
		return 0, true, err
	}
	v, err := e.Look(ctx, partition) // after the event was written
	return max(0, v.Now.Sub(events[0].At)), true, err
}

// ClockLead is by how much a partition's clock led Redis' TIME when this process last looked at it.
func (e *Engine) ClockLead(partition int) time.Duration {
	return time.Duration(e.partitions[partition].lead.Load())
}

// EntryAt reads the stream entry that holds a partition's event at a position; nil where there is none.
func (e *Engine) EntryAt(ctx context.Context, partition int, at Position) (*Entry, error) {
	found, err := e.EntriesFrom(ctx, partition, at, 1)
	if err != nil || len(found) == 0 || found[0].Last.Epoch != at.Epoch || found[0].First > at.Seq {
		return nil, err
	}
	return &found[0], nil
}

// EntriesFrom reads a number of a partition's stream entries, from the one that holds the event at a position on.
func (e *Engine) EntriesFrom(ctx context.Context, partition int, at Position, limit int64) ([]Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OperationTimeout)
	defer cancel()
	var found []redis.XMessage
	err := e.repeat(ctx, func() (err error) {
		found, err = e.redis.XRangeN(ctx, e.keys.Events(partition), at.String(), "+", limit).Result()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: reading events: %v", ErrUnavailable, err) //nolint:errorlint // for the log
	}
	entries := make([]Entry, len(found))
	for i, m := range found {
		if entries[i], err = ParseEntry(m.ID, m.Values); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return entries, nil
}
