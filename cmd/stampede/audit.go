package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"stampede/engine"
	"stampede/persist"
)

// errViolations is how an audit ends that looked at everything and found something.
var errViolations = errors.New("the books do not hold")

const (
	auditCallMax   = 10 * time.Second // one look at many keys
	auditListedMax = 10_000           // violations in the JSON document; the summary counts all
)

type auditCommand struct {
	stackFlags `embed:""`
	JSON       bool `help:"Print one JSON document."`
}

// Run proves the books of a shop, running or quiet, and changes nothing.
func (a *auditCommand) Run(c *console) error {
	given, err := a.byURL(c)
	if err != nil {
		return err
	}
	from, postgresURL := a.redis(), a.PostgresURL
	if !given {
		env, err := a.readStack()
		if err != nil {
			return err
		}
		from, postgresURL = engine.Redis{URL: env.redisURL}, env.postgresURL
	}
	found := &findings{console: c, asJSON: a.JSON, Violations: []persist.Violation{}, Losses: []persist.Loss{}}
	if err := found.audit(c.interrupts.stop, from, postgresURL); err != nil {
		if !given {
			return fmt.Errorf("%w (does `stampede up` run in %s?)", err, a.DataDir)
		}
		return err
	}
	return found.conclude()
}

// findings of an audit; the exported fields are the JSON document.
type findings struct {
	console *console
	asJSON  bool
	live    bool // progress is told
	at      atomic.Pointer[persist.Progress]

	OK         bool                `json:"ok"`
	Summary    persist.Summary     `json:"summary"`
	Violations []persist.Violation `json:"violations"`
	Losses     []persist.Loss      `json:"losses"` // no violations: the books close without what was lost
}

// audit looks. It goes by the deployment that Redis names, so that nothing is founded or claimed on the way.
func (f *findings) audit(ctx context.Context, from engine.Redis, postgresURL string) error {
	client, err := engine.Connect(from, 4, auditCallMax)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // it only read
	deployment, found, err := engine.FindDeployment(ctx, client)
	if err != nil {
		return unreadable(err)
	}
	if !found {
		return errors.New("this Redis holds no shop: correct the Redis URL, or rebuild it with stampede restore")
	}
	books, err := persist.OpenExistingPatient(ctx, postgresURL, f.console.log)
	if err != nil {
		return err
	}
	defer books.Close()
	if _, err := books.Bind(ctx, client, deployment.Partitions, false); err != nil {
		return err
	}
	unstarted, err := engine.New(engine.Config{Redis: client, Partitions: deployment.Partitions, OperationTimeout: auditCallMax})
	if err != nil {
		return err
	}
	books.Attach(unstarted)
	told := f.watch()
	f.Summary, err = books.WatchedAudit(ctx, client, f.note, func(p persist.Progress) { f.at.Store(&p) })
	told()
	if err == nil {
		f.Losses, err = books.Losses(ctx)
	}
	if err != nil && strings.Contains(err.Error(), "NOPERM") {
		return unreadable(err)
	}
	return err
}

// watch tells on a terminal how far the audit is, until stop is called.
func (f *findings) watch() (stop func()) {
	if f.live = isTerminal(os.Stderr); !f.live {
		return func() {}
	}
	return tellLines(os.Stderr, true, func(time.Duration) string { return "Auditing: " + auditProgress(f.at.Load()) })
}

// auditProgress names the step and how far it is.
func auditProgress(p *persist.Progress) string {
	switch {
	case p == nil:
		return "beginning"
	case p.Total == 0:
		return p.Step
	}
	return fmt.Sprintf("%s %d%%", p.Step, min(100, 100*p.Done/p.Total))
}

func (f *findings) note(v persist.Violation) {
	if f.live {
		_, _ = os.Stderr.WriteString("\r\x1b[K") // it is written on the line of the progress otherwise
	}
	if !f.asJSON {
		// An audit whose output nobody reads still ends in its exit code.
		_, _ = fmt.Fprintf(f.console.out, "%s: %s: %s\n", v.Check, v.Subject, v.Detail)
	} else if len(f.Violations) < auditListedMax {
		f.Violations = append(f.Violations, v)
	}
}

// conclude prints the result.
func (f *findings) conclude() error {
	f.OK = f.Summary.Violations == 0
	var err error
	if f.asJSON {
		err = json.NewEncoder(f.console.out).Encode(f)
	} else {
		for i := range f.Losses {
			_, _ = fmt.Fprintln(f.console.out, &f.Losses[i])
		}
		err = f.summarize()
	}
	if err == nil && !f.OK {
		err = errViolations
	}
	return err
}

// summarize prints what was checked, a line a check, and the verdict.
func (f *findings) summarize() error {
	for _, c := range f.Summary.Checks {
		verdict := "holds"
		if c.Violations > 0 {
			verdict = fmt.Sprintf("%d violation(s)", c.Violations)
		}
		_, _ = fmt.Fprintf(f.console.out, "%12d looked at  %s: %s\n", c.Rows, c.Check, verdict)
	}
	s, verdict := f.Summary, "all holds"
	if !f.OK {
		verdict = fmt.Sprintf("%d violation(s)", s.Violations)
	}
	_, err := fmt.Fprintf(f.console.out, "Audited %d events, %d users, %d products, %d orders: %s.\n",
		s.Events, s.Users, s.Products, s.Orders, verdict)
	return err
}
