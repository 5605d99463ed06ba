package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/lua"
)

// kind is what the corridor knows of a script: how operations become its arguments and its reply their results.
type kind struct {
	script *lua.Script
	// encode appends the KEYS behind meta and events, and the ARGV behind the header, of all operations.
	encode func(c *call, ops []*operation)
	// decode reads what follows codeOK or codeReplay into the operation's body. Refusals are read in one place, by
	// decodeReply.
	decode func(d *decoder, code code, body any) error
	// behind reads what stands behind the operations' replies of a call, where anything does.
	behind func(p *partition, c *call, d *decoder)
	// quiet says that nobody is told of a change which the books do not tell anyway: it need not have a replica.
	quiet bool
}

// kinds are all there are.
var kinds = []*kind{
	placeKind, reserveKind, debitKind, cancelKind, expireKind, cartKind, keyedCartKind, rollKind,
	chargeKind, restockKind, listKind, enrollKind, lendKind, creditKind, settleKind,
}

// call is one EVALSHA under construction. A worker reuses it.
type call struct {
	keys      *Keys
	partition int
	minute    int64
	key       []any
	arg       []any
	scratch   []byte
	ids       map[int64]int64 // of distinct: the index of each, from 1
	order     []int64
	who       []int64
	places    []*placeOp
}

func (c *call) reset() {
	c.key, c.arg = c.key[:0], c.arg[:0]
}

func (c *call) addKey(key string) { c.key = append(c.key, key) }

// addArg copies b, which may be scratch.
func (c *call) addArg(b []byte) { c.arg = append(c.arg, string(b)) }

// distinct returns the ids that visit yields, each once, in the order of their first appearance.
func (c *call) distinct(visit func(yield func(id int64))) []int64 {
	if c.ids == nil {
		c.ids = make(map[int64]int64)
	}
	clear(c.ids)
	c.order = c.order[:0]
	visit(func(id int64) {
		if _, seen := c.ids[id]; !seen {
			c.order = append(c.order, id)
			c.ids[id] = int64(len(c.order))
		}
	})
	return c.order
}

// header is what every selling script gets first; see lua/door.lua.
type header struct {
	epoch  int64
	behind bool  // work behind a shut door
	acks   *acks // where to note what is acknowledged; nil: nobody is
}

func (p *partition) encode(c *call, k *kind, h header, ops []*operation) {
	c.reset()
	c.keys, c.partition = p.engine.keys, p.number
	c.addKey(c.keys.Meta(p.number))
	c.addKey(c.keys.Events(p.number))
	b := appendInt(c.scratch[:0], h.epoch)
	behind := int64(0)
	if h.behind {
		behind = 1
	}
	b = appendInt(b, behind)
	b = appendInt(b, p.engine.clockOffset.Load())
	c.scratch = appendInt(b, p.engine.backlogCap.Load())
	c.addArg(c.scratch)
	c.minute = p.expectedMinute()
	k.encode(c, ops)
}

func (c *call) command(verb, script string) []any {
	args := make([]any, 0, 3+len(c.key)+len(c.arg))
	args = append(args, verb, script, len(c.key))
	args = append(args, c.key...)
	return append(args, c.arg...)
}

// callTries bounds how often a call that was certainly not executed is sent again.
const callTries = 4

// send makes one call for operations of one kind and ends each of them. It re-sends only what Redis has certainly
// not executed: an unknown script, another minute, what a cluster turned away for a moment.
func (p *partition) send(c *call, k *kind, h header, ops []*operation) {
	verb, script := "evalsha", k.script.SHA
	for range callTries {
		p.encode(c, k, h, ops)
		a, err := p.exchange(k, h, len(ops), c.command(verb, script))
		if err == nil {
			p.finish(c, k, h, a, ops)
			return
		}
		switch outcome(err) {
		case outcomeNoScript:
			// A master that is new, was started again or told SCRIPT FLUSH: EVAL runs the script and loads it, there.
			verb, script = "eval", k.script.Text
			continue
		case outcomeMinute:
			p.setMinute(err)
			continue
		case outcomeScript:
			p.singly(c, k, h, ops, err)
		case outcomeShut:
			p.door.refused(h.epoch)
			fail(ops, fmt.Errorf("%w: the door is shut", ErrUnavailable))
		case outcomeNotDone:
			p.door.doubt()
			fail(ops, fmt.Errorf("%w: %v", ErrUnavailable, err)) //nolint:errorlint // the cause is for the log
		default:
			p.door.doubt()
			fail(ops, fmt.Errorf("%w: %v", ErrUnknown, err)) //nolint:errorlint // the cause is for the log
		}
		return
	}
	fail(ops, fmt.Errorf("%w: script %s was not accepted", ErrUnavailable, k.script.Name))
}

// exchange makes one call of n operations.
func (p *partition) exchange(k *kind, h header, n int, args []any) (a answer, err error) {
	e := p.engine
	for turned := e.retries(); ; {
		if a, err = p.once(k, h, n, args); !e.again(context.Background(), &turned, err) {
			return a, err
		}
	}
}

// answer is what came of a call that was carried out.
type answer struct {
	reply string
	kept  bool // as the durability promises it
}

func (p *partition) once(k *kind, h header, n int, args []any) (a answer, err error) {
	e := p.engine
	ctx, cancel := context.WithTimeout(context.Background(), e.cfg.OperationTimeout)
	defer cancel()
	node, err := e.node(ctx, p.number)
	if err != nil {
		return a, err
	}
	start := time.Now()
	cmd := redis.NewCmd(ctx, args...)
	if e.cfg.Replica && !h.behind && !k.quiet {
		a.kept = e.replicate(ctx, node, cmd)
	} else {
		_ = node.Process(ctx, cmd)
		a.kept = !e.cfg.Replica
	}
	e.metrics.called(k, n, time.Since(start))
	a.reply, err = cmd.Text()
	return a, err
}

// singly sends the operations of a failed call one by one: scripts fail before their first write, so nothing was
// done, and one bad operation must not fail its neighbours.
func (p *partition) singly(c *call, k *kind, h header, ops []*operation, cause error) {
	if len(ops) == 1 {
		p.engine.cfg.Log.Error("script failed", "script", k.script.Name, "partition", p.number, "error", cause)
		fail(ops, fmt.Errorf("%w: script %s: %v", ErrCorrupt, k.script.Name, cause)) //nolint:errorlint // ditto
		return
	}
	p.engine.metrics.fallbacks.Inc()
	for i := range ops {
		// A Redis that hangs now must not be waited for once an operation.
		if len(p.expire(ops[i:i+1:i+1])) > 0 {
			p.send(c, k, h, ops[i:i+1])
		}
	}
}

// finish hands each operation its part of the reply. It notes first what it is about to acknowledge: whoever ends the epoch
// raises the fence before it reads the note, so a reply that it cannot know of is not passed on.
func (p *partition) finish(c *call, k *kind, h header, a answer, ops []*operation) {
	d := &decoder{b: []byte(a.reply)}
	seq := d.int()
	if h.acks != nil && d.err == nil {
		if a.kept {
			h.acks.note(seq)
		}
		if h.epoch < p.door.fence.Load() || h.epoch == p.door.copy.Load() {
			fail(ops, errEnded)
			return
		}
	}
	for i, op := range ops {
		err := decodeReply(d, k, op.body)
		if d.err != nil {
			// The call was executed; what it did to the rest cannot be read.
			p.engine.cfg.Log.Error("unreadable reply", "script", k.script.Name, "error", d.err)
			fail(ops[i:], fmt.Errorf("%w: unreadable reply", ErrUnknown))
			return
		}
		if err == nil && !a.kept && !h.behind && !k.quiet {
			err = errNotReplicated
		}
		op.done <- err
	}
	if len(d.b) > 0 && k.behind != nil {
		k.behind(p, c, d)
	}
	if len(d.b) > 0 {
		p.engine.cfg.Log.Error("a reply was longer than its operations", "script", k.script.Name, "bytes", len(d.b))
	}
}

func decodeReply(d *decoder, k *kind, body any) error {
	c := code(d.int())
	if c == codeOK || c == codeReplay {
		return k.decode(d, c, body)
	}
	r, known := refusals[c]
	if !known {
		d.err = fmt.Errorf("unknown code %d", c)
		return nil
	}
	refusal := &Refusal{Reason: r.reason}
	if r.product {
		refusal.ProductID = d.int()
	}
	if r.left {
		refusal.Left = d.int()
	}
	if r.balance {
		refusal.Balance = d.int()
	}
	if r.status {
		refusal.Status = Status(d.int())
	}
	return refusal
}

func fail(ops []*operation, err error) {
	for _, op := range ops {
		op.done <- err
	}
}

type outcomeKind int

const (
	outcomeUnknown  outcomeKind = iota // may or may not have been executed
	outcomeNotDone                     // certainly not executed
	outcomeNoScript                    // not executed: unknown script
	outcomeMinute                      // not executed: another minute
	outcomeShut                        // not executed: the door is shut
	outcomeScript                      // the script itself failed, before any write
)

// notDone lists the error prefixes with which Redis turns a call away before it runs.
var notDone = []string{
	"LOADING", "BUSY", "OOM", "MISCONF", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK",
	"CROSSSLOT", "NOREPLICAS", "NOAUTH", "WRONGPASS", "NOPERM", "NOPROTO",
}

// outcome says what an error tells about the call. Where in doubt it is unknown: a buyer then asks again.
func outcome(err error) outcomeKind {
	var reply redis.Error
	if errors.As(err, &reply) {
		text := reply.Error()
		switch {
		case strings.HasPrefix(text, "DOOR "):
			return outcomeShut
		case strings.HasPrefix(text, "NOSCRIPT"):
			return outcomeNoScript
		case strings.HasPrefix(text, "MINUTE "):
			return outcomeMinute
		}
		for _, prefix := range notDone {
			if strings.HasPrefix(text, prefix) {
				return outcomeNotDone
			}
		}
		if strings.HasPrefix(text, "max number of clients") || strings.HasPrefix(text, "ERR max number of clients") {
			return outcomeNotDone
		}
		return outcomeScript
	}
	var op *net.OpError
	if (errors.As(err, &op) && op.Op == "dial") || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) ||
		errors.Is(err, ErrUnavailable) { // no node to send it to
		return outcomeNotDone
	}
	return outcomeUnknown
}

// expectedMinute is the minute the script will most likely find: a wrong guess costs one more call.
func (p *partition) expectedMinute() int64 {
	now := (time.Now().UnixMilli() + p.engine.clockOffset.Load()) / 60_000
	return max(now+p.minuteSkew.Load(), p.minuteSeen.Load())
}

// setMinute takes over the minute of a script that found another. A Redis clock ahead or behind stays remembered
// as a skew, so that the correction is paid for once and not in each minute.
func (p *partition) setMinute(err error) {
	_, text, _ := strings.Cut(err.Error(), "MINUTE ")
	minute, parseErr := strconv.ParseInt(text, 10, 64)
	if parseErr != nil {
		return
	}
	now := (time.Now().UnixMilli() + p.engine.clockOffset.Load()) / 60_000
	p.minuteSkew.Store(minute - now)
	p.minuteSeen.Store(minute)
}
