package engine

import (
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tinylib/msgp/msgp"
)

func TestAcks_SettledIsWhatTheDurabilityPromises(t *testing.T) {
	for durability, want := range map[string]int64{
		DurabilityFsync: 90, DurabilityEverySec: 70, DurabilityNone: 0, DurabilityUnknown: 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newAcks(Position{Epoch: 7}, durability)
			for seq := range int64(9) {
				time.Sleep(time.Second)
				a.note(10 * (seq + 1)) // 10 after a second, 90 after nine
			}
			got := a.summary()
			if got.Position != (Position{7, 90}) || got.Settled != want || got.Durability != durability {
				t.Errorf("%s: %+v, want %d settled", durability, got, want)
			}
		})
	}
}

// An idle Redis that still answers has synced meanwhile what it had.
func TestAcks_WhatIsLongAcknowledgedSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcks(Position{Epoch: 1}, DurabilityEverySec)
		a.note(5)
		if got := a.summary(); got.Settled != 0 {
			t.Errorf("%d settled at once", got.Settled)
		}
		time.Sleep(3 * time.Second)
		if got := a.summary(); got.Settled != 0 {
			t.Errorf("%d settled, though Redis was not heard of since", got.Settled)
		}
		a.alive()
		if got := a.summary(); got.Settled != 5 {
			t.Errorf("%d settled after 3 s", got.Settled)
		}
	})
}

func TestAcks_RingForgetsTheOldestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcks(Position{Epoch: 1}, DurabilityEverySec)
		for seq := range int64(10_000) { // 100 s of a call each 10 ms
			a.note(seq + 1)
			time.Sleep(10 * time.Millisecond)
		}
		a.alive()
		if got := a.summary().Settled; got > 9_801 || got < 9_780 {
			t.Errorf("%d settled of 10,000, want 9,800 less a sample's worth", got)
		}
	})
}

func TestAcks_OfManyWorkersAreTheHighest(t *testing.T) {
	a := newAcks(Position{Epoch: 1}, DurabilityFsync)
	var workers sync.WaitGroup
	for w := range int64(4) {
		workers.Go(func() {
			for i := range int64(1000) {
				a.note(4*i + w)
				a.summary()
			}
		})
	}
	workers.Wait()
	if got := a.summary(); got.Seq != 3999 || got.Settled != 3999 {
		t.Errorf("%+v", got)
	}
	if n := testing.AllocsPerRun(100, func() { a.note(5000) }); n != 0 {
		t.Errorf("%v allocations a note", n)
	}
}

// Whoever ends an epoch compares what was acknowledged until then: a reply that comes later is not passed on as done.
func TestReply_OfAnEndedEpochIsUnknown(t *testing.T) {
	e, err := New(Config{Redis: unusedRedis(t), Partitions: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	p, noted := e.partitions[0], newAcks(Position{Epoch: 3}, DurabilityFsync)
	reply := msgp.AppendInt64(nil, 12)
	reply = msgp.AppendInt64(reply, int64(codeOK))
	reply = msgp.AppendInt64(reply, 500)
	for _, c := range []struct {
		fence int64
		want  error
	}{{0, nil}, {3, nil}, {4, ErrUnknown}} {
		p.door.fenced(c.fence)
		op := newDirect(chargeKind, &chargeOp{})
		p.finish(&call{}, chargeKind, header{epoch: 3, acks: noted}, answer{reply: string(reply), kept: true}, []*operation{op})
		if err := <-op.done; !errors.Is(err, c.want) {
			t.Errorf("behind fence %d: %v, want %v", c.fence, err, c.want)
		}
	}
	if noted.seq.Load() != 12 {
		t.Errorf("noted up to %d", noted.seq.Load())
	}
}
