package main

import (
	"os"
	"testing"
	"time"

	"stampede/cmd/stack/stacktest"
)

func TestSmoke_MeasuresAShopAndLeavesNothing(t *testing.T) {
	tmp := stacktest.Temp(t)
	t.Setenv("TMPDIR", tmp)
	s := smoke{
		connections: 16, users: 20, products: 2,
		rounds: 2, roundTime: 200 * time.Millisecond, warmUp: 100 * time.Millisecond,
		binary: buildStampede(t), console: console{out: t.Output(), progress: t.Output()},
	}
	r, err := s.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Failures) > 0 {
		t.Errorf("the run failed: %q", r.Failures)
	}
	if r.Books.Accepted == 0 || r.Books.UnitsSold != r.Books.Accepted {
		t.Errorf("books: %+v", r.Books)
	}
	for _, program := range []string{programStampede, programRedis, programPostgres} {
		if r.Stampede.CPUDrained[program].Median <= 0 {
			t.Errorf("%s used no CPU", program)
		}
	}
	if r.Empty.CPU[programEmpty].Median <= 0 || r.Ratio.Median <= 0 {
		t.Errorf("the baseline was not measured: %+v", r.Empty)
	}
	if ours, theirs := r.Rounds[0].ReplyBytes, r.Rounds[1].ReplyBytes; ours < 0.9*theirs || ours > 1.1*theirs {
		t.Errorf("replies of %.0f bytes, the empty handler's of %.0f: they are not the same work", ours, theirs)
	}
	if err := r.table(t.Output()); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v (%v)", left, err)
	}
}
