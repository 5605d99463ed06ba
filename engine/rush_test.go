package engine_test

import (
	"fmt"
	"testing"

	"stampede/engine"
)

func TestRush_BeginsWithFullCallsAndEndsWithoutThem(t *testing.T) {
	r := lab.open(t).room(t, 11, engine.Config{BatchMax: 16, Workers: 1})
	r.fund(t, 1_000_000)
	r.stock(t, listing(1, 10, 1000))
	place := func(from, n int) {
		var ops []*engine.Op
		for i := range n {
			ops = append(ops, r.e.PlaceOp(engine.PlaceRequest{UserID: 1, Key: fmt.Sprint("rush ", from+i), Lines: lines(1, 1)}))
		}
		if err := r.e.Enqueue(ops...); err != nil {
			t.Fatal(err)
		}
		for _, op := range ops {
			if got, err := op.Wait(within(t, patience)); err != nil || got.Err != nil {
				t.Fatal(got, err)
			}
		}
	}
	r.run(t)
	for i := range 50 {
		place(i, 1) // one after the other is no rush, however long it goes on
	}
	if r.e.Rush(0) {
		t.Error("single orders are called a rush")
	}
	place(100, 160)
	if !r.e.Rush(0) {
		t.Error("ten full calls are not called a rush")
	}
	await(t, "the end of the rush", func() bool { return !r.e.Rush(0) })
}
