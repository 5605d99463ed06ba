package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"stampede/lua"
)

// A product's stock is held in shares, one a partition, so that an order takes all it needs in its buyer's partition (the
// escrow method: O'Neil, "The Escrow Transactional Method", 1986). Units move between the share of the product's home and
// the others, never between two others: what the home has is what is not lent out.
//
// A transfer is a debit at the sender (lend.lua), a credit at the receiver (credit.lua) and a settlement at the sender
// (settle.lua). Its id is the position of the debit's event. The receiver credits once Postgres holds the debit, and the
// sender settles, and may send again, once Postgres holds the credit: so whatever a failover takes back on one side, the
// journal gives again, and nothing comes twice or gets lost. Whoever finds a transfer open brings it to its end: each step
// is safe to repeat.

// transfer is units on their way.
type transfer struct {
	product  int64
	from, to int
	units    int64
	id       Position
}

// lend takes up to most units out of a share on their way to another. Where an earlier transfer between the two is still open,
// it returns that one and true.
func (e *Engine) lend(ctx context.Context, product int64, from, to int, most int64) (transfer, bool, error) {
	op := &lendOp{product: product, receiver: to, most: most}
	if err := e.partitions[from].queue.do(ctx, lendKind, op, 1); err != nil {
		return transfer{}, false, err
	}
	if !op.open {
		e.metrics.moved.Inc()
	}
	return transfer{product: product, from: from, to: to, units: op.units, id: op.id}, op.open, nil
}

// arrive credits a transfer once its debit is durable, and returns a position of the receiver's events that covers the credit.
// Units that are to stay do so for longer by the time that this took: those of the buyer's other products take as long to come.
func (e *Engine) arrive(ctx context.Context, t transfer, stay time.Duration) (Position, error) {
	begun := time.Now()
	if err := e.durable(ctx, t.from, t.id); err != nil {
		return Position{}, err
	}
	if stay > 0 {
		stay += time.Since(begun)
	}
	op := &creditOp{product: t.product, sender: t.from, id: t.id, units: t.units, stayMS: stay.Milliseconds()}
	if err := e.partitions[t.to].queue.do(ctx, creditKind, op, 1); err != nil {
		return Position{}, err // the worker may still write into it
	}
	return op.at, nil
}

// settle closes a transfer once its credit is durable.
func (e *Engine) settle(ctx context.Context, t transfer, credited Position) error {
	if err := e.durable(ctx, t.to, credited); err != nil {
		return err
	}
	return e.partitions[t.from].queue.do(ctx, settleKind, &settleOp{product: t.product, receiver: t.to, id: t.id}, 1)
}

// finish brings an open transfer to its end.
func (e *Engine) finish(ctx context.Context, t transfer) error {
	credited, err := e.arrive(ctx, t, 0)
	if err != nil {
		return err
	}
	return e.settle(ctx, t, credited)
}

func (e *Engine) durable(ctx context.Context, partition int, at Position) error {
	if e.cfg.Durable == nil {
		return nil
	}
	return e.cfg.Durable(ctx, partition, at)
}

// moversMax bounds the transfers that this process lends ahead, settles or sweeps at a time.
const moversMax = 64

// moveTimeout bounds each of them: longer than a slow writer takes, and the sweeper tries again.
const moveTimeout = 10 * time.Second

// movers carry out steps of transfers beside the requests, while an engine runs.
type movers struct {
	mu    sync.Mutex
	life  context.Context // nil: they take nothing
	group errgroup.Group
}

func (m *movers) start(life context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life = life
	m.group.SetLimit(moversMax)
}

// wait takes no more and waits for those under way, whose context has ended.
func (m *movers) wait() {
	m.mu.Lock()
	m.life = nil
	m.mu.Unlock()
	_ = m.group.Wait()
}

// aside runs a step of a transfer beside the requests, if there is room: otherwise the sweeper does it later. Claims that are
// over are taken back after it: the step of one that had no room by the next that is done.
func (e *Engine) aside(step func(ctx context.Context) error) {
	m := &e.movers
	m.mu.Lock()
	defer m.mu.Unlock()
	life := m.life
	if life == nil {
		return
	}
	m.group.TryGo(func() error {
		ctx, cancel := context.WithTimeout(life, moveTimeout)
		defer cancel()
		for _, do := range []func(context.Context) error{step, e.takeBack} {
			if err := do(ctx); err != nil && !expected(err) {
				e.cfg.Log.Warn("units not moved yet", "error", err)
			}
		}
		return nil
	})
}

// expected reports whether a step of a transfer failed for a reason that others tell of, or that passes by itself.
func expected(err error) bool {
	for _, reason := range []error{ErrUnavailable, ErrOverloaded, ErrUnknown, ErrElsewhere, ErrLost, ErrOutOfStock, errShareLeased, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, reason) {
			return true
		}
	}
	return false
}

const (
	movingAge   = time.Second // what is open for longer may have been left by a process that died
	movingSweep = 1024        // transfers a look
)

// sweepTransfers ends what others have left open in a partition.
func (e *Engine) sweepTransfers(ctx context.Context, p *partition) error {
	if len(e.partitions) == 1 {
		return nil
	}
	reply, err := e.upkeep(ctx, lua.Due, []string{e.keys.Meta(p.number), e.keys.Moving(p.number)},
		e.clockOffset.Load(), movingSweep, movingAge.Milliseconds())
	if err != nil {
		return err
	}
	members, _ := reply.([]any)
	// Those of a peer that is away must not keep out the others.
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	for _, m := range members {
		product, peer, err := e.movingMember(m)
		if err != nil {
			return err
		}
		e.aside(func(ctx context.Context) error { return e.finishOpen(ctx, p, product, peer) })
	}
	return nil
}

// Moving is how units that left for a partition stand in the sorted set of that name.
func Moving(product int64, receiver int) string {
	return strconv.FormatInt(product, 10) + ":" + strconv.Itoa(receiver)
}

// movingMember reads a member of moving: "<product>:<receiver>".
func (e *Engine) movingMember(member any) (product int64, peer int, err error) {
	text, _ := member.(string)
	left, right, _ := strings.Cut(text, ":")
	product, err1 := strconv.ParseInt(left, 10, 64)
	peer, err2 := strconv.Atoi(right)
	if err1 != nil || err2 != nil || peer < 0 || peer >= len(e.partitions) {
		return 0, 0, fmt.Errorf("%w: a member of moving: %q", ErrCorrupt, text)
	}
	return product, peer, nil
}

// finishOpen ends the transfer of a product from a partition to a peer, if one is open.
func (e *Engine) finishOpen(ctx context.Context, p *partition, product int64, peer int) error {
	values, err := e.get(ctx, p, e.keys.Transfers(p.number, product))
	if err != nil {
		return err
	}
	record, err := DecodeTransfers(values[0])
	if err != nil {
		return err
	}
	for _, o := range record.Out {
		if o.Peer == peer {
			return e.finish(ctx, transfer{product: product, from: p.number, to: peer, units: o.Units, id: o.ID})
		}
	}
	return nil
}

// Transfers is a partition's record of a product's transfers; see lua/transfer.lua.
type Transfers struct {
	LeasedMS int64
	Out      []Outgoing
	In       []Incoming
}

// Outgoing is what left for a peer and is not settled yet.
type Outgoing struct {
	Peer  int
	ID    Position
	Units int64
}

// Incoming is the last transfer that came from a peer.
type Incoming struct {
	Peer int
	ID   Position
}

const outFields, inFields = 4, 3 // of the flat arrays

// DecodeTransfers reads the record as MGET gives it; where there is none it is empty.
func DecodeTransfers(value any) (Transfers, error) {
	text, found := value.(string)
	if !found {
		return Transfers{}, nil
	}
	d := &decoder{b: []byte(text)}
	if n := d.array(3); n != 3 && d.err == nil {
		d.err = fmt.Errorf("%d parts", n)
	}
	t := Transfers{LeasedMS: d.int()}
	for range d.array(outFields*PartitionsMax) / outFields {
		t.Out = append(t.Out, Outgoing{Peer: int(d.int()), ID: d.position(), Units: d.int()})
	}
	for range d.array(inFields*PartitionsMax) / inFields {
		t.In = append(t.In, Incoming{Peer: int(d.int()), ID: d.position()})
	}
	d.end()
	if d.err != nil {
		return Transfers{}, fmt.Errorf("%w: record of transfers: %v", ErrCorrupt, d.err) //nolint:errorlint // for the log
	}
	return t, nil
}

// append appends the two flat arrays of the record.
func (t *Transfers) append(b []byte) []byte {
	out, in := make([]int64, 0, outFields*len(t.Out)), make([]int64, 0, inFields*len(t.In))
	for _, o := range t.Out {
		out = append(out, int64(o.Peer), o.ID.Epoch, o.ID.Seq, o.Units)
	}
	for _, i := range t.In {
		in = append(in, int64(i.Peer), i.ID.Epoch, i.ID.Seq)
	}
	return appendInts(appendInts(b, out), in)
}

// came reports whether a transfer from a peer has come.
func (t *Transfers) came(from int, id Position) bool {
	for _, i := range t.In {
		if i.Peer == from {
			return i.ID.Compare(id) >= 0
		}
	}
	return false
}
