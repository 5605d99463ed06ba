package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"stampede/persist"
)

var anAudit = persist.Summary{
	Users: 2, Products: 3, Orders: 1000, Events: 1005, Violations: 1,
	Checks: []persist.Checked{{Check: "readable events", Rows: 1005}, {Check: "order states", Rows: 1000, Violations: 1}},
}

var aViolation = persist.Violation{Check: "order states", Subject: "orders id=7", Detail: "is PENDING, its history ends with SUCCESS"}

func TestAudit_TellsPeopleWhatItChecked(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	f := &findings{console: &console{out: &out}, Summary: anAudit}
	f.note(aViolation)
	if err := f.conclude(); !errors.Is(err, errViolations) {
		t.Errorf("it ends in %v", err)
	}
	want := `order states: orders id=7: is PENDING, its history ends with SUCCESS
        1005 looked at  readable events: holds
        1000 looked at  order states: 1 violation(s)
Audited 1005 events, 2 users, 3 products, 1000 orders: 1 violation(s).
`
	if out.String() != want {
		t.Errorf("it says\n%s\nwant\n%s", out.String(), want)
	}
}

func TestAudit_TellsProgramsWhatItChecked(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	f := &findings{console: &console{out: &out}, asJSON: true, Violations: []persist.Violation{}, Losses: []persist.Loss{}}
	f.Summary = anAudit
	f.note(aViolation)
	if err := f.conclude(); !errors.Is(err, errViolations) {
		t.Errorf("it ends in %v", err)
	}
	var document struct {
		OK      bool `json:"ok"`
		Summary struct {
			Orders int64 `json:"orders"`
			Checks []struct {
				Check      string `json:"check"`
				Rows       int64  `json:"rows"`
				Violations int64  `json:"violations"`
			} `json:"checks"`
		} `json:"summary"`
		Violations []persist.Violation `json:"violations"`
	}
	if err := json.Unmarshal(out.Bytes(), &document); err != nil {
		t.Fatal(err)
	}
	if document.OK || document.Summary.Orders != 1000 || len(document.Violations) != 1 || document.Violations[0] != aViolation {
		t.Errorf("it says %s", &out)
	}
	if c := document.Summary.Checks; len(c) != 2 || c[1].Check != "order states" || c[1].Rows != 1000 || c[1].Violations != 1 {
		t.Errorf("it says %s", &out)
	}
	if strings.Contains(out.String(), "null") {
		t.Errorf("a list is null: %s", &out)
	}
}

func TestAudit_ProgressNamesTheStep(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]*persist.Progress{
		"beginning": nil, "carts": {Step: "carts"}, "journal 40%": {Step: "journal", Done: 2, Total: 5}, "journal 100%": {Step: "journal", Done: 7, Total: 5},
	} {
		if got := auditProgress(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
