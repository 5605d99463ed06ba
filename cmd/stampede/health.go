package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"stampede/cmd/shop"
)

// lookMax bounds a look at Redis and Postgres: who asks for readiness or metrics asks again in a few seconds.
const lookMax = 2 * time.Second

// lagUnknown stands for a lag that could not be measured: 0 would promise that everything is in the tables.
const lagUnknown = -1

var (
	errOpening = errors.New("the shop is being opened")
	errNoLag   = errors.New("the writer's lag cannot be measured")
)

// health answers /readyz.
type health struct {
	shop   *shop.Shop
	opened atomic.Bool // doors open and, where asked for, the demo catalogue filled in
}

// Check looks at Redis and Postgres at once, so that one that hangs does not speak for the other. The lag is -1 where
// it cannot be measured.
func (h *health) Check(ctx context.Context) (lag int64, problems []error) {
	ctx, cancel := context.WithTimeout(ctx, lookMax)
	defer cancel()
	var doors, books, measure, alarm error
	var looks sync.WaitGroup
	looks.Go(func() {
		if doors = h.shop.Engine.CheckDoors(ctx); doors == nil {
			doors = h.shop.Engine.Ready() // open in Redis, but not known here yet
		}
	})
	looks.Go(func() { books = h.shop.Books.Ping(ctx) })
	looks.Go(func() { lag, measure = h.shop.Books.Lag(ctx) })
	looks.Wait()
	if h.shop.Writer != nil {
		alarm = h.shop.Writer.Alarm()
	}
	if measure != nil {
		lag = lagUnknown
		if doors == nil && books == nil { // else they say why
			measure = fmt.Errorf("%w: %w", errNoLag, measure)
		} else {
			measure = errNoLag
		}
	}
	if !h.opened.Load() {
		problems = append(problems, errOpening)
	}
	for _, err := range []error{doors, books, measure, alarm} {
		problems = append(problems, lines(err)...)
	}
	return lag, problems
}

// lines takes joined errors apart: one a partition.
func lines(err error) (each []error) {
	if err == nil {
		return nil
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		each = append(each, errors.New(line))
	}
	return each
}
