package engine

import (
	"context"
	"fmt"
	"strconv"
)

// stockView is what two looks at a product's shares in all partitions, one after the other, tell together.
type stockView struct {
	units []int64 // by partition, in the second look
	// total is what was there in the first look, what was on its way included.
	total int64
	// proven says that at an instant between the looks no more than total was there. Shares that have not grown between two
	// looks can only have shrunk. What was on its way at that instant had left its share before the first look, and then was
	// seen as leaving, or after it, and then was still seen in the share.
	proven bool
}

// lookAround looks twice at a product everywhere.
func (e *Engine) lookAround(ctx context.Context, product int64) (stockView, error) {
	first, err := e.lookOnce(ctx, product)
	if err != nil {
		return stockView{}, err
	}
	second, err := e.lookOnce(ctx, product)
	if err != nil {
		return stockView{}, err
	}
	view := stockView{units: make([]int64, len(second)), total: onTheWay(first), proven: true}
	for n := range second {
		view.units[n] = second[n].units
		view.total += first[n].units
		if first[n].epoch != second[n].epoch || first[n].grown != second[n].grown || !first[n].listed || !second[n].listed {
			view.proven = false
		}
	}
	return view, nil
}

// shareView is a partition's share of a product at one instant.
type shareView struct {
	epoch  int64
	listed bool
	units  int64
	grown  string
	Transfers
}

// lookOnce reads a product's shares, each partition at an instant of its own.
func (e *Engine) lookOnce(ctx context.Context, product int64) ([]shareView, error) {
	views := make([]shareView, len(e.partitions))
	reads := make([]*operation, len(e.partitions))
	for n, p := range e.partitions {
		views[n].epoch = p.door.state.Load().epoch
		reads[n] = p.reads.start(nil, &readOp{keys: []string{
			e.keys.Stock(n, product), e.keys.Grown(n, product), e.keys.Transfers(n, product),
		}}, 3)
		if reads[n] == nil {
			return nil, ErrOverloaded
		}
	}
	for n, op := range reads {
		if err := op.wait(ctx); err != nil {
			return nil, nothingDone(err)
		}
		values, v := op.body.(*readOp).values, &views[n]
		var err error
		if v.units, err = units(product, values[0]); err != nil {
			return nil, err
		}
		v.listed = values[0] != nil
		v.grown, _ = values[1].(string)
		if v.Transfers, err = DecodeTransfers(values[2]); err != nil {
			return nil, err
		}
	}
	return views, nil
}

// onTheWay adds up what has left shares and has not come yet.
func onTheWay(views []shareView) (units int64) {
	for n := range views {
		for _, o := range views[n].Out {
			if o.Peer < 0 || o.Peer >= len(views) || !views[o.Peer].came(n, o.ID) {
				units += o.Units
			}
		}
	}
	return units
}

// units reads a share as MGET gives it: 0 where there is none.
func units(product int64, value any) (int64, error) {
	text, found := value.(string)
	if !found {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: stock of product %d", ErrCorrupt, product)
	}
	return n, nil
}
