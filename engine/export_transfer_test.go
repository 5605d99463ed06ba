package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Transfer is one that a test carries out step by step.
type Transfer struct{ t transfer }

// Units are how many left.
func (t Transfer) Units() int64 { return t.t.units }

// ID is the position of its debit.
func (t Transfer) ID() Position { return t.t.id }

// Lend makes the debit; true: of an earlier transfer that is still open.
func (e *Engine) Lend(ctx context.Context, product int64, from, to int, most int64) (Transfer, bool, error) {
	t, open, err := e.lend(ctx, product, from, to, most)
	return Transfer{t}, open, err
}

// Arrive makes the credit once the debit is durable.
func (e *Engine) Arrive(ctx context.Context, t Transfer) (Position, error) {
	return e.arrive(ctx, t.t, 0)
}

// Settle closes it once the credit is durable.
func (e *Engine) Settle(ctx context.Context, t Transfer, credited Position) error {
	return e.settle(ctx, t.t, credited)
}

// Total is what two looks find of a product in all partitions, and whether it was proven that there was no more.
func (e *Engine) Total(ctx context.Context, product int64) (int64, bool, error) {
	v, err := e.lookAround(ctx, product)
	return v.total, v.proven, err
}

// Shares are a product's shares by partition, and what is on its way between them.
func (e *Engine) Shares(ctx context.Context, product int64) (shares []int64, onItsWay int64, err error) {
	views, err := e.lookOnce(ctx, product)
	for _, v := range views {
		shares = append(shares, v.units)
	}
	return shares, onTheWay(views), err
}

// HoldMovers keeps all movers busy until release is called.
func (e *Engine) HoldMovers() (release func()) {
	held := make(chan struct{})
	var busy atomic.Int64
	for ; busy.Load() < moversMax; time.Sleep(time.Millisecond) {
		e.aside(func(context.Context) error {
			busy.Add(1)
			<-held
			return nil
		})
	}
	return sync.OnceFunc(func() { close(held) })
}
