package main

import (
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

func TestHealth_WarnsOfAClockThatLeads(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog(), Partitions: 2})
	h := &health{shop: s.Shop}
	h.opened.Store(true)
	user := s.User(0)
	charge := func(key string) {
		t.Helper()
		if _, _, err := s.Engine.Charge(t.Context(), engine.ChargeRequest{UserID: user, Amount: 1, Key: key}); err != nil {
			t.Fatal(err)
		}
	}
	charge("before")
	if found := h.Check(t.Context()); len(found.Warnings) > 0 {
		t.Errorf("before anything happened: %q", found.Warnings)
	}
	s.Engine.SetClockOffset(time.Hour)
	charge("an hour ahead")
	s.Engine.SetClockOffset(0)
	found := h.Check(t.Context())
	wantParts(t, "a clock that leads", found)
	text := strings.Join(found.Warnings, "\n")
	if !strings.HasPrefix(text, "partition ") || !strings.Contains(text, "leads the TIME of Redis") || !strings.Contains(text, "NTP") {
		t.Errorf("a clock that leads: %q", found.Warnings)
	}
	s.Engine.SetClockOffset(2 * time.Hour)
	if found := h.Check(t.Context()); len(found.Warnings) > 0 {
		t.Errorf("once TIME has caught up: %q", found.Warnings)
	}
}
