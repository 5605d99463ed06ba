package main

import (
	"strings"
	"testing"
	"time"

	"stampede/persist"
)

func TestProgress_RewritesItsLineOnATerminal(t *testing.T) {
	t.Parallel()
	var text transcript
	stop := tellProgress(&text, true, &persist.RestoreProgress{})
	for deadline := time.Now().Add(patience); !strings.Contains(text.String(), "reading the books"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the line is %q", text.String())
		}
	}
	stop()
	if got := text.String(); strings.Contains(got, "\n") || !strings.HasPrefix(got, "\r") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("a terminal shows %q", got)
	}
}

func TestProgress_NamesEachPhase(t *testing.T) {
	t.Parallel()
	if got := counted(&persist.RestoreProgress{}); got != "0 products, 0 users, 0 unpaid orders, 0 carts, 0 minutes of sales, 0 recent events, 0 keys" {
		t.Errorf("counted: %s", got)
	}
}
