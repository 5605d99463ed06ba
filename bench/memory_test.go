package main

import (
	"os"
	"testing"

	"stampede/cmd/stack/stacktest"
)

func TestMemory_MeasuresAShopAndLeavesNothing(t *testing.T) {
	tmp := stacktest.Temp(t)
	t.Setenv("TMPDIR", tmp)
	m := memory{
		orders: 2000, users: 500, settled: 500, connections: 16,
		binary: buildStampede(t), console: console{out: t.Output(), progress: t.Output()},
	}
	r, err := m.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What Redis keeps of so few is their records too. An idempotency record alone has 50 bytes of key and value.
	if r.Orders < 2000 || r.BytesAnOrder < 50 || r.BytesAnOrder > 1000 || r.BytesAUser < 10 || r.BytesAUser > 300 {
		t.Errorf("measured %+v", r)
	}
	if r.Records < r.Orders {
		t.Errorf("%d order records are left of %d orders, which Redis keeps", r.Records, r.Orders)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v (%v)", left, err)
	}
}
