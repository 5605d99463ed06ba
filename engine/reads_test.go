package engine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var errRead = errors.New("cannot be read")

func TestShared_RunBeginsAfterEachOfItsCallersArrived(t *testing.T) {
	var s Shared[int64]
	var runs atomic.Int64
	started, proceed := make(chan struct{}), make(chan struct{})
	run := func(context.Context) (int64, error) {
		n := runs.Add(1)
		started <- struct{}{}
		<-proceed
		return n, nil
	}
	ask := func(group *sync.WaitGroup, callers int, want int64) {
		for range callers {
			group.Go(func() {
				if got, err := s.Do(context.Background(), time.Minute, run); err != nil || got != want {
					t.Errorf("got run %d, %v, want %d", got, err, want)
				}
			})
		}
	}
	var first, second, third sync.WaitGroup
	ask(&first, 1, 1)
	<-started
	ask(&second, 100, 2) // they came while the first run was under way: it may have read already
	waitUntil(t, "a second run to wait for", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.next != nil
	})
	time.Sleep(20 * time.Millisecond) // for the others of the hundred; late ones would only get a later run
	proceed <- struct{}{}
	first.Wait()
	<-started
	ask(&third, 1, 3)
	time.Sleep(20 * time.Millisecond)
	proceed <- struct{}{}
	second.Wait()
	<-started
	proceed <- struct{}{}
	third.Wait()
	if n := runs.Load(); n != 3 {
		t.Errorf("%d runs for 102 callers", n)
	}
}

func TestShared_CallerThatLeavesAndRunThatFails(t *testing.T) {
	var s Shared[int]
	started, proceed := make(chan struct{}), make(chan struct{})
	run := func(ctx context.Context) (int, error) {
		close(started)
		<-proceed
		return 7, ctx.Err()
	}
	ctx, leave := context.WithCancel(context.Background())
	var stays sync.WaitGroup
	stays.Go(func() {
		if got, err := s.Do(context.Background(), time.Minute, run); err != nil || got != 7 {
			t.Errorf("the one who stays: %d, %v", got, err)
		}
	})
	<-started
	leave()
	if _, err := s.Do(ctx, time.Minute, run); !errors.Is(err, ErrUnavailable) {
		t.Errorf("the one who leaves: %v", err)
	}
	// Nobody waits for the run that the one who left asked for; it must not stop the next one.
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	close(proceed)
	stays.Wait()
	idle := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.running && s.next == nil
	}
	for range 3 {
		waitUntil(t, "no more work", idle) // the next one comes with a run of its own
		if _, err := s.Do(context.Background(), time.Minute, func(context.Context) (int, error) { return 0, errRead }); !errors.Is(err, errRead) {
			t.Errorf("a run that fails: %v", err)
		}
	}
	waitUntil(t, "no more work", idle)
	_, err := s.Do(context.Background(), time.Millisecond, func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a run beyond its timeout: %v", err)
	}
	waitUntil(t, "no more work", idle)
}

func waitUntil(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

func TestRead_OfAFullOrClosedQueueIsOverloadedAtOnce(t *testing.T) {
	e, err := New(Config{Redis: unusedRedis(t), Partitions: 2, QueueMax: 3, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // not at once would be then: nobody reads
	defer cancel()
	for _, p := range e.partitions {
		for range 3 {
			if p.reads.start(nil, &readOp{keys: []string{"key"}}, 1) == nil {
				t.Fatal("refused with room in the queue")
			}
		}
	}
	reads := map[string]func() error{
		"balance":  func() error { _, err := e.Balance(ctx, 1); return err },
		"product":  func() error { _, err := e.Product(ctx, 1); return err },
		"products": func() error { _, _, err := e.Products(ctx, 0, 5); return err },
		"order":    func() error { _, err := e.Order(ctx, 1, 1); return err },
		"cart":     func() error { _, err := e.Cart(ctx, 1); return err },
		"pay":      func() error { _, _, err := e.Pay(ctx, PayRequest{UserID: 1, OrderID: 1, Key: "k"}); return err },
		"cancel":   func() error { _, _, err := e.Cancel(ctx, CancelRequest{UserID: 1, OrderID: 1, Key: "k"}); return err },
	}
	for what, read := range reads {
		if err := read(); !errors.Is(err, ErrOverloaded) {
			t.Errorf("%s with a full queue: %v", what, err)
		}
	}
	for _, p := range e.partitions {
		p.reads.take(nil, 3, 3)
		p.reads.close()
	}
	for what, read := range reads {
		if err := read(); !errors.Is(err, ErrOverloaded) {
			t.Errorf("%s with a closed queue: %v", what, err)
		}
	}
}

func TestRead_CallerThatLeavesIsToldThatNothingWasDone(t *testing.T) {
	e, err := New(Config{Redis: unusedRedis(t), Partitions: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(context.Background())
	leave()
	if _, err := e.Balance(ctx, 1); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown) {
		t.Errorf("balance: %v", err)
	}
	if _, err := e.Product(ctx, 1); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown) {
		t.Errorf("product: %v", err)
	}
	if _, _, err := e.Top(ctx, 5); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown) {
		t.Errorf("top: %v", err)
	}
	e.partitions[0].reads.close()
	waitUntil(t, "the end of a reading that nobody waits for", func() bool {
		e.topFive.mu.Lock()
		defer e.topFive.mu.Unlock()
		return !e.topFive.running
	})
}
