package shop_test

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/persist"
)

// restart kills Redis, cuts bytes off the end of each AOF as a power cut would, and waits until it sells again: what was
// cut comes from the journal.
func (w *world) restart(cut int64) {
	w.t.Helper()
	if err := w.Servers().HaltNow(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	for _, server := range w.Servers() {
		w.cutTail(server.Dir, cut)
	}
	if err := w.Servers().Resume(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.awaitDoors()
}

func (w *world) cutTail(dir string, bytes int64) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) == 0 {
		w.t.Fatalf("no AOF files: %v", err)
	}
	file := slices.MaxFunc(files, func(a, b string) int { // 10 comes after 9
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	info, err := os.Stat(file)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.Truncate(file, max(0, info.Size()-bytes)); err != nil {
		w.t.Fatal(err)
	}
}

// awaitDoors waits until all shops sell again.
func (w *world) awaitDoors() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for _, e := range w.live() {
		for ctx.Err() == nil && (e.CheckDoors(ctx) != nil || e.AwaitReady(ctx) != nil) {
			time.Sleep(5 * time.Millisecond)
		}
		if err := e.Ready(); err != nil {
			w.t.Fatalf("the door stays shut: %v", err)
		}
	}
}

// restore empties Redis and has it built anew from Postgres.
func (w *world) restore() {
	w.t.Helper()
	w.Written()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	two := w.second != nil
	if two {
		w.closeSecond()
	}
	w.Stop()
	if err := w.EmptyRedis(ctx); err != nil {
		w.t.Fatal(err)
	}
	err := shop.Restore(ctx, shop.Config{
		Redis: engine.Redis{URL: w.Stack.RedisURL()}, PostgresURL: w.Stack.PostgresURL(),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, &persist.RestoreProgress{})
	if err != nil {
		w.t.Fatalf("restore: %v", err)
	}
	w.Reopen()
	if two {
		w.second = w.Open()
	}
}
