package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// door is what this process knows of a partition's door. The fence itself stands in Redis, in every selling script:
// this copy only saves asking where the answer is known, and says which epoch to ask with.
type door struct {
	state atomic.Pointer[doorState]
	fence atomic.Int64 // the lowest epoch that may still sell, as far as Redis and the books have told
	left  atomic.Bool  // Redis answers, and is not the one to sell from
	copy  atomic.Int64 // epoch of which Redis is a copy; 0: of none, as far as known
	sold  atomic.Int64 // epoch in which this process sold last
	kick  chan struct{}

	beaten atomic.Pointer[time.Time] // begin of the last beat that found Redis in step with the books

	// The keeper's.
	here  int64   // epoch in which Redis was seen last
	acks  *acks   // of the epoch that was open last
	ended []*acks // of epochs that have ended, to be compared with the books
}

type doorState struct {
	open   bool
	epoch  int64
	acks   *acks
	reason string // why it is shut, for the one who operates it
}

func (d *door) init() {
	d.kick = make(chan struct{}, 1)
	d.shut("not checked yet")
}

func (d *door) shut(reason string) { d.state.Store(&doorState{reason: reason}) }

// refused notes that Redis turned a call of that epoch away.
func (d *door) refused(epoch int64) {
	if s := d.state.Load(); s.open && s.epoch == epoch {
		d.state.CompareAndSwap(s, &doorState{reason: "Redis refused a call: it restarted or was replaced"})
	}
	d.doubt()
}

// doubt asks for a look at the door soon.
func (d *door) doubt() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// Mark is a position with the number of events of all epochs up to it.
type Mark struct {
	Position
	Events int64
}

// DoorView is a partition's door as Redis holds it, and the server behind it, at one instant.
type DoorView struct {
	Standing bool // open, and the node is the one that was opened
	Position      // of the last event
	Base     int64
	Bytes    int64 // of all events ever, cumulative
	Done     int64 // of those, what Postgres holds
	Open     bool
	Node     string // as noted when it was opened
	Run      string
	Renewed  string   // run id of the server whose AOF was begun anew
	LetGo    Mark     // up to which Redis has let ended orders go
	Lapsed   Position // of the event up to which idempotency records have lapsed
	Leaving  Leaving  // where the partition is about to go; the zero value: it stays
	IsNode   string   // of the server that answered
	IsRun    string
	Replica  bool
	Promoted bool // from a replica of Node, in this life of the server
	Pulse    string
	Next     string // pulse that Postgres may have taken already

	// The partition's clock, and by how much it leads Redis' TIME, which was set back or is that of another server.
	Now  time.Time
	Lead time.Duration
}

// Outpaced reports whether the books, which hold a token, have moved on from this Redis in its epoch: it is a copy, or lost its last
// writes.
func (v *DoorView) Outpaced(token string) bool {
	token = PulseOf(token, v.Epoch)
	return token != "" && token != v.Pulse && token != v.Next
}

// Events is how many events the partition has written in all epochs together.
func (v *DoorView) Events() int64 { return v.Base + v.Seq }

// Look reads a partition's door. A partition without one has the zero Position.
func (e *Engine) Look(ctx context.Context, partition int) (DoorView, error) {
	reply, err := e.upkeep(ctx, lua.Look, []string{e.keys.Meta(partition)}, e.clockOffset.Load())
	if err != nil {
		return DoorView{}, err
	}
	fields, ok := reply.([]any)
	if !ok || len(fields) != 23 {
		return DoorView{}, fmt.Errorf("%w: reply of look.lua", ErrCorrupt)
	}
	var v DoorView
	for at, to := range map[int]*int64{
		0: &v.Epoch, 3: &v.Seq, 4: &v.Base, 5: &v.Bytes, 6: &v.Done,
		9: &v.LetGo.Events, 10: &v.LetGo.Epoch, 11: &v.LetGo.Seq, 12: &v.Lapsed.Epoch, 13: &v.Lapsed.Seq,
	} {
		if text, ok := fields[at].(string); ok {
			if *to, err = strconv.ParseInt(text, 10, 64); err != nil {
				return DoorView{}, fmt.Errorf("%w: meta of partition %d", ErrCorrupt, partition)
			}
		}
	}
	for at, to := range map[int]*string{1: &v.Node, 7: &v.Run, 8: &v.Renewed, 15: &v.IsNode, 16: &v.IsRun, 19: &v.Pulse, 20: &v.Next} {
		*to, _ = fields[at].(string)
	}
	v.Open = fields[2] == "1"
	v.Replica = fields[17] == int64(1)
	v.Promoted = fields[18] == int64(1)
	now, _ := fields[21].(int64)
	lead, _ := fields[22].(int64)
	v.Now, v.Lead = time.UnixMilli(now).UTC(), time.Duration(lead)*time.Millisecond
	e.partitions[partition].lead.Store(int64(v.Lead))
	if note, ok := fields[14].(string); ok {
		v.Leaving = readLeaving(note)
	}
	v.Standing = v.Open && v.Node == v.IsNode && !v.Replica
	return v, nil
}

// ClaimDoor gives a partition's shut door to a repair, named by a token that no other repair has. From then on only
// MoveDoor and Replay with that token work. renewed is the run id of the server whose AOF RenewAOF began anew. It reports
// false where the door stands open.
func (e *Engine) ClaimDoor(ctx context.Context, partition int, token, renewed string) (bool, error) {
	reply, err := e.upkeep(ctx, lua.Claim, []string{e.keys.Meta(partition)}, token, renewed)
	return reply == int64(1), err
}

// MoveDoor starts an epoch behind the door or opens it, provided Redis is as found; false: look again. Only a repair
// that holds the partition's lock may call it. base counts the events of all epochs before the new one. latest is the time
// of the latest event that the partition was given and its meta does not know of; zero: none.
func (e *Engine) MoveDoor(ctx context.Context, partition int, token string, found DoorView, epoch, base int64, open bool, latest time.Time) (bool, error) {
	flag := 0
	if open {
		flag = 1
	}
	latestMS := int64(0)
	if !latest.IsZero() {
		latestMS = latest.UnixMilli()
	}
	reply, err := e.upkeep(ctx, lua.Open, []string{e.keys.Meta(partition)}, found.IsNode, found.IsRun, found.Epoch, found.Seq,
		epoch, base, flag, token, firstMinute(e.now()), latestMS, e.clockOffset.Load())
	return reply == int64(1), err
}

// Trim notes that Postgres holds everything up to the checkpoint, whose cumulative bytes are given, and drops stream
// entries below keep (the zero Position: none).
func (e *Engine) Trim(ctx context.Context, partition int, checkpoint Position, bytes int64, keep Position) error {
	_, err := e.upkeep(ctx, lua.Trim, []string{e.keys.Meta(partition), e.keys.Events(partition)},
		checkpoint.Epoch, bytes, keep.String())
	return err
}

// Replay brings Redis forward behind a shut door: from the position found to the last of the entries, in one step.
// bytes is the journal's cumulative size there. With letGo, which must be the mark of the last entry, orders that have
// ended by then are left out, as if they had been let go. It reports false when Redis is at another position, or
// claimed by another repair.
func (e *Engine) Replay(ctx context.Context, partition int, token string, from Position, entries []Entry, bytes int64, letGo *Mark) (bool, error) {
	if len(entries) == 0 {
		return true, nil
	}
	to := entries[len(entries)-1].Last
	set, latest, err := e.foldEntries(partition, entries, letGo != nil)
	if err != nil {
		return false, err
	}
	head := appendInt(nil, from.Epoch)
	for _, v := range []int64{from.Seq, to.Epoch, to.Seq, bytes} {
		head = appendInt(head, v)
	}
	head = msgp.AppendString(head, token)
	if letGo != nil {
		head = appendInt(head, letGo.Events)
	} else {
		head = appendInt(head, 0)
	}
	head = appendInt(appendInt(head, latest), e.clockOffset.Load())
	keys := append([]string{e.keys.Meta(partition)}, set.keys...)
	reply, err := e.upkeep(ctx, lua.Replay, keys, append([]any{string(head)}, set.args...)...)
	return reply == int64(1), err
}

// Ended is an order that has taken a step which Postgres holds.
type Ended struct {
	OrderID int64
	Status  Status // after that step
}

// LetGo drops orders from Redis that have ended, and notes up to where it did. All their events up to the mark must be
// in Postgres. An order stays that is PENDING, or has taken a further step since. fence is the epoch in which the books
// believe Redis to sell; it reports false, and does nothing, in another one.
func (e *Engine) LetGo(ctx context.Context, partition int, fence int64, to Mark, orders []Ended) (bool, error) {
	keys := make([]string, 1, 1+len(orders))
	keys[0] = e.keys.Meta(partition)
	statuses := make([]byte, len(orders))
	for i, o := range orders {
		keys = append(keys, e.keys.Order(partition, o.OrderID))
		statuses[i] = byte(o.Status)
	}
	reply, err := e.upkeep(ctx, lua.Forget, keys, fence, to.Events, to.Epoch, to.Seq, statuses)
	return reply == int64(1), err
}

// upkeep runs a script of repair or upkeep. All of them are safe to repeat.
func (e *Engine) upkeep(ctx context.Context, s *lua.Script, keys []string, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OperationTimeout)
	defer cancel()
	var reply any
	err := e.repeat(ctx, func() (err error) {
		reply, err = run(ctx, e.redis, s, keys, args)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: script %s: %v", ErrUnavailable, s.Name, err) //nolint:errorlint // for the log
	}
	return reply, nil
}

// run runs a script on a server, which from then on has it.
func run(ctx context.Context, server redis.UniversalClient, s *lua.Script, keys []string, args []any) (any, error) {
	reply, err := server.EvalSha(ctx, s.SHA, keys, args...).Result()
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		reply, err = server.Eval(ctx, s.Text, keys, args...).Result()
	}
	return reply, err
}

const (
	doorEvery   = 500 * time.Millisecond // between looks at an open door
	doorRetry   = 100 * time.Millisecond // first wait after a failed repair, doubling
	doorRetryMx = doorEvery              // servers that are back are used within that
)

// keepDoor looks at the door until ctx ends, and has it repaired where it does not stand open.
func (p *partition) keepDoor(ctx context.Context) {
	wait, last := doorRetry, ""
	for {
		pause := doorEvery
		if err := p.checkDoor(ctx); err != nil {
			if text := err.Error(); text != last && ctx.Err() == nil {
				p.engine.cfg.Log.Warn("door shut", "partition", p.number, "reason", text)
				last = text
			}
			pause = wait
			wait = min(2*wait, doorRetryMx)
		} else {
			if last != "" {
				p.engine.cfg.Log.Info("door open", "partition", p.number, "epoch", p.door.state.Load().epoch)
			}
			wait, last = doorRetry, ""
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-p.door.kick:
			timer.Stop()
			if last != "" {
				// A shut door is retried in its own rhythm, however many callers ask.
				time.Sleep(min(pause, doorRetry))
			}
		}
	}
}

// checkDoor opens this process's copy where Redis is open, after a repair if need be.
func (p *partition) checkDoor(ctx context.Context) error {
	e := p.engine
	defer p.settle(ctx)
	v, err := e.Look(ctx, p.number)
	answers, copied := err == nil, err == nil && e.Copied(p.number, v.Epoch)
	if answers {
		p.door.here = v.Epoch
	}
	if err == nil && (!v.Standing || copied) {
		p.door.shut("being compared with the books")
		if e.cfg.Repair == nil {
			err = errors.New("no Postgres to repair it from")
		} else if err = e.cfg.Repair(ctx, p.number); err == nil {
			v, err = e.Look(ctx, p.number)
			p.door.here = v.Epoch
		}
		if errors.Is(err, ErrStray) {
			p.door.strayed()
		}
	}
	if err == nil && !v.Standing {
		err = errors.New("still shut after a repair")
	}
	if err == nil {
		err = p.enter(ctx, v.Position)
	}
	if err != nil {
		p.door.shut(err.Error())
		e.reloadSlots(ctx)
	}
	if answers {
		p.door.left.Store(v.Replica || e.Copied(p.number, v.Epoch) || (err != nil && !errors.Is(err, ErrUnavailable)))
	}
	return err
}

// confirmDoor makes sure that what Redis does not hold is truly missing: a Redis that lost data must not turn a
// user or product into "not found" before its repair, nor one that was restored with other partitions.
func (e *Engine) confirmDoor(ctx context.Context, p *partition) error {
	v, err := e.Look(ctx, p.number)
	if s := p.door.state.Load(); err == nil && v.Standing && v.Epoch >= p.door.fence.Load() && s.open && s.epoch == v.Epoch {
		return nil
	}
	p.door.doubt()
	if err == nil {
		err = fmt.Errorf("%w: the door of partition %d is shut", ErrUnavailable, p.number)
	}
	return err
}
