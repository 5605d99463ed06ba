package persist_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

func position(t *testing.T, s *shoptest.Shop) engine.Position {
	t.Helper()
	v, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	return v.Position
}

func TestDurable_ReturnsOnceTheBooksHoldTheEvent(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	order := place(t, s, s.User(1000), "a", line(s.Product(1, 10), 1))
	last := position(t, s)
	begun := time.Now()
	if err := s.Books.Durable(t.Context(), 0, last); !errors.Is(err, engine.ErrOverloaded) {
		t.Errorf("without a writer: %v", err)
	}
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("waited for %v", took)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			err := s.Books.Durable(t.Context(), 0, last)
			for errors.Is(err, engine.ErrOverloaded) {
				err = s.Books.Durable(t.Context(), 0, last)
			}
			if err != nil {
				t.Error(err)
			} else if _, err := s.Books.Order(t.Context(), order.ID); err != nil {
				t.Errorf("said to be in the books: %v", err)
			}
		})
	}
	startWriter(t, s)
	all.Wait()
	// What an earlier epoch left in the books stands there for good.
	restart(t, s, func() {})
	if err := s.Books.Durable(t.Context(), 0, position(t, s)); err != nil {
		t.Errorf("everything before an epoch without events: %v", err)
	}
	place(t, s, order.UserID, "b", line(order.Items[0].ProductID, 1))
	s.Written()
	if err := s.Books.Durable(t.Context(), 0, last); err != nil {
		t.Errorf("an event of an epoch that has ended: %v", err)
	}
	if err := s.Books.Durable(t.Context(), 0, engine.Position{Epoch: last.Epoch, Seq: last.Seq + 1}); !errors.Is(err, engine.ErrLost) {
		t.Errorf("an event behind the end of its epoch: %v", err)
	}
}

// The end of an epoch says what Redis held then. Until the writer has come so far, Redis may still lose it.
func TestDurable_EndOfAnEpochIsNotEnough(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1000), s.Product(1, 10)
	place(t, s, user, "a", line(product, 1))
	kept := position(t, s)
	aof, old := filepath.Join(s.Stack.RedisDir(), "appendonlydir"), filepath.Join(t.TempDir(), "old")
	restart(t, s, func() {
		if err := os.CopyFS(old, os.DirFS(aof)); err != nil {
			t.Fatal(err)
		}
	})
	place(t, s, user, "b", line(product, 1))
	lost := position(t, s)
	restart(t, s, func() {})
	for _, at := range []engine.Position{kept, lost} {
		if err := s.Books.Durable(t.Context(), 0, at); !errors.Is(err, engine.ErrOverloaded) {
			t.Errorf("%v, in an epoch that ended behind it, unwritten: %v", at, err)
		}
	}
	restart(t, s, func() {
		if err := errors.Join(os.RemoveAll(aof), os.CopyFS(aof, os.DirFS(old))); err != nil {
			t.Fatal(err)
		}
	})
	if err := s.Books.Durable(t.Context(), 0, lost); !errors.Is(err, engine.ErrLost) {
		t.Errorf("%v, which an older Redis lacks: %v", lost, err)
	}
	startWriter(t, s)
	s.Written()
	place(t, s, user, "c", line(product, 1))
	s.Written()
	if err := s.Books.Durable(t.Context(), 0, kept); err != nil {
		t.Errorf("%v, which was written after all: %v", kept, err)
	}
}

func TestDurable_EndsThePauseOfAWriterThatYields(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	rested := make(chan time.Duration)
	go func() { rested <- persist.Rest(t.Context(), s.Books, 0, time.Minute) }()
	at := position(t, s)
	at.Seq++ // what is to come
	go func() { _ = s.Books.Durable(t.Context(), 0, at) }()
	select {
	case took := <-rested:
		if took > 5*time.Second {
			t.Errorf("paused for %v", took)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the pause goes on while somebody waits")
	}
	s.User(1) // the event
	awaitThat(t, "nobody waits", func() bool { return persist.Waiting(s.Books, 0) == 0 })
}
