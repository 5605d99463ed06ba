package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/engine/rest"
	"stampede/persist"
)

// answerMax bounds an answer of /readyz and a measurement of /metrics: who asks asks again in a few seconds. A caller waits
// for the look under way, if there is one, and then for one that began after it came: so a look has half of it.
const (
	answerMax = 2 * time.Second
	lookMax   = answerMax / 2
)

// What is said more than once.
const (
	stillOpening      = "the shop is being opened: wait; where that lasts, the log says what it waits for"
	notLooked         = "this process did not finish its look within 2 s: see whether it is short of CPU, or Redis and Postgres hang"
	noPostgres        = "Postgres does not answer: see that it runs, is not overloaded, and takes the user and password of the Postgres URL; sales go on until the backlog in Redis is full"
	partitionsUnknown = "the partitions cannot be looked at, since Redis does not answer"
	partitionsUnseen  = "the partitions could not be looked at in time"
	lagUnmeasured     = "the writer's lag cannot be measured"
	lagIsLate         = "the oldest event that Postgres lacks has waited for %.0f s: see whether PostgreSQL is frozen, slow or cut off, or the sale is larger than the machine; sales go on until the backlog in Redis is full"
	howDoorsOpen      = "; it opens by itself once Redis and Postgres answer, else the log says what it waits for (door shut)"
	howBacklogsEmpty  = ": see whether PostgreSQL answers and its writer writes; it sells again by itself once they do"
	howAlarmsEnd      = "; sales go on until the backlog in Redis is full: keep Redis' data, and mend what the text names"
	someQuarantined   = "%d event(s) are in quarantine: nothing could be derived of them, all else goes on; the table quarantine says why; run `stampede rebuild-reports` once the cause is gone"
	howWritingGoesOn  = "; it is tried again all the time: mend what the text names in Postgres"
)

// health answers /readyz.
type health struct {
	shop   *shop.Shop
	opened atomic.Bool // doors open and, where asked for, the demo catalogue filled in
	looks  engine.Shared[rest.Readiness]
}

// Check looks at Redis and Postgres now. Callers that wait together share a look, so that many probes cost as much as
// a few.
func (h *health) Check(ctx context.Context) rest.Readiness {
	ctx, cancel := context.WithTimeout(ctx, answerMax)
	defer cancel()
	found, err := h.looks.Do(ctx, lookMax, h.look)
	if err != nil {
		return rest.Readiness{
			NoOrders:  h.shop.Engine.Selling() == 0,
			LagEvents: rest.LagUnknown, LagSeconds: h.shop.Books.LagAge().Seconds(),
			Redis: []string{notLooked}, Partitions: []string{partitionsUnseen}, Postgres: []string{notLooked}, Writer: []string{lagUnmeasured + " in time"},
		}
	}
	return found
}

// look asks Redis and Postgres side by side, so that one that hangs does not speak for the other.
func (h *health) look(ctx context.Context) (found rest.Readiness, _ error) {
	var answers, books, measure error
	var partitions engine.Checked
	var lag persist.Lag
	var looks sync.WaitGroup
	looks.Go(func() { answers = h.shop.Engine.Ping(ctx) })
	looks.Go(func() {
		if partitions = h.shop.Engine.CheckPartitions(ctx); partitions.Fenced == nil {
			partitions.Fenced = h.shop.Engine.Ready() // open in Redis, but not known here yet
		}
	})
	looks.Go(func() { books = h.shop.Books.Ping(ctx) })
	looks.Go(func() { lag, measure = h.shop.Books.Lag(ctx) })
	looks.Wait()
	found.NoOrders = partitions.Selling == 0
	if !h.opened.Load() {
		found.Opening = []string{stillOpening}
	}
	found.Redis = lines(answers, "")
	found.Partitions = append(lines(partitions.Fenced, howDoorsOpen), lines(partitions.Full, howBacklogsEmpty)...)
	if answers != nil && !h.shop.Engine.InCluster() { // of a cluster, the others answer
		found.Partitions = []string{partitionsUnknown}
	}
	if books != nil {
		found.Postgres = []string{noPostgres}
	}
	found.LagEvents = lag.Events
	if measure != nil {
		found.LagEvents, lag.Age = rest.LagUnknown, h.shop.Books.LagAge()
	}
	found.LagSeconds = lag.Age.Seconds()
	found.Writer = h.writer(measure, answers == nil && books == nil)
	if lag.Age >= persist.LagLate {
		found.Writer = append(found.Writer, fmt.Sprintf(lagIsLate, lag.Age.Seconds()))
	}
	if lag.Quarantined > 0 {
		found.Warnings = []string{fmt.Sprintf(someQuarantined, lag.Quarantined)}
	}
	found.Warnings = append(found.Warnings, leadingClocks(h.shop.Engine)...)
	return found, nil
}

// writer says what is wrong with it. What Redis or Postgres said already is not said again.
func (h *health) writer(measure error, bothAnswer bool) (problems []string) {
	switch {
	case measure != nil && bothAnswer:
		problems = append(problems, lines(fmt.Errorf("%s: %w", lagUnmeasured, measure), "; see whether Redis or Postgres is slow")...)
	case measure != nil:
		problems = append(problems, lagUnmeasured+", since Redis or Postgres does not answer")
	}
	if h.shop.Writer == nil {
		return problems
	}
	problems = append(problems, lines(h.shop.Writer.Alarm(), howAlarmsEnd)...)
	if bothAnswer {
		problems = append(problems, lines(h.shop.Writer.Interrupted(), howWritingGoesOn)...)
	}
	return problems
}

// lines takes joined errors apart, and adds to each what to do. That nothing was done is for requests to know.
func lines(err error, next string) (each []string) {
	if err == nil {
		return nil
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		each = append(each, strings.ReplaceAll(line, engine.ErrUnavailable.Error()+": ", "")+next)
	}
	return each
}
