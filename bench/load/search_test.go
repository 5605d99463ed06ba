package load

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/bench/result"
)

func TestSearch_ClosesInOnTheHighestRate(t *testing.T) {
	for _, from := range []float64{10, 900, 1000, 1100, 50_000} {
		highest := 0.0
		steps, best, err := Search(from, func(rate float64) (result.Step, error) {
			s := result.Step{Rate: rate, Held: rate <= 1000}
			if s.Held {
				highest = max(highest, rate)
			}
			return s, nil
		})
		if err != nil || best > 1000 || best < 1000/searchExact || best != highest {
			t.Errorf("from %v: %v after %d steps (%v)", from, best, len(steps), err)
		}
	}
}

func TestSearch_Ends(t *testing.T) {
	never := func(held bool) func(float64) (result.Step, error) {
		return func(rate float64) (result.Step, error) { return result.Step{Rate: rate, Held: held}, nil }
	}
	if steps, best, err := Search(1000, never(false)); best != 0 || err != nil || len(steps) != searchStepsMax {
		t.Errorf("nothing holds: %v after %d steps (%v)", best, len(steps), err)
	}
	want := 1000 * math.Pow(searchFactor, searchStepsMax-1)
	if steps, best, err := Search(1000, never(true)); math.Abs(best-want) > 1 || err != nil || len(steps) != searchStepsMax {
		t.Errorf("everything holds: %v after %d steps (%v)", best, len(steps), err)
	}
	gone := errors.New("gone")
	if steps, _, err := Search(1000, func(float64) (result.Step, error) { return result.Step{}, gone }); !errors.Is(err, gone) || len(steps) != 0 {
		t.Errorf("a server that is gone: %d steps (%v)", len(steps), err)
	}
}

// queue is a server that answers one order after the other, each after a time: above 1 / time its latency has no bound.
func queue(each time.Duration) fasthttp.RequestHandler {
	turn := make(chan struct{}, 1)
	var free time.Time
	return func(ctx *fasthttp.RequestCtx) {
		turn <- struct{}{}
		free = maxTime(free, time.Now()).Add(each)
		at := free
		<-turn
		time.Sleep(time.Until(at))
		accept(ctx)
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func TestSearch_FindsWhereAServersLatencyJumps(t *testing.T) {
	const d, bound = 200 * time.Millisecond, 60 * time.Millisecond
	s := serve(t, queue(2*time.Millisecond)) // 500 a second
	g, err := Dial(t.Context(), s.addr, 64)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	steps, best, err := Search(200, func(rate float64) (result.Step, error) {
		r := NewRecorder(someOrders())
		took := g.OpenLoop(t.Context(), d, Constant(rate), someOrders(), r)
		return Judge(rate, r, d, took, bound), nil
	})
	// In 200 ms a queue takes a while to grow by what is allowed: 500 * (1 + 10/200). A busy machine holds less.
	if err != nil || best < 50 || best > 600 {
		t.Errorf("found %v (%v): %+v", best, err, steps)
	}
	for _, step := range steps {
		if step.Held != (step.Why == "") || step.Held != (step.Rate <= best) {
			t.Errorf("step %+v, best %v", step, best)
		}
	}
}

func TestJudge_SaysWhyARateDoesNotHold(t *testing.T) {
	const d, bound = time.Second, 20 * time.Millisecond
	for want, feedIt := range map[string]func(f feed){
		"":                                    func(feed) {},
		"1 not sent":                          func(f feed) { f.notSent(&Hit{}, 0) },
		"1 without a definite answer":         func(f feed) { f.unanswered(&Hit{}, passage{}, errors.New("reset")) },
		"1 turned away, too much or too fast": func(f feed) { f.answer(503, "", d, time.Millisecond) },
		"p99 30.0 ms": func(f feed) {
			for range 5 {
				f.answer(201, placed, d, 30*time.Millisecond)
			}
		},
	} {
		f := newFeed()
		for range 100 {
			f.answer(201, placed, d, time.Millisecond)
		}
		feedIt(f)
		if step := Judge(100, f.Recorder, d, d+bound, bound); step.Why != want || step.Held != (want == "") {
			t.Errorf("%+v, want %q", step, want)
		}
	}
	f := newFeed()
	if step := Judge(100, f.Recorder, d, d, bound); step.Held || step.Why != "nothing was accepted" {
		t.Errorf("nothing: %+v", step)
	}
	for range 100 {
		f.answer(201, placed, d, time.Millisecond)
	}
	if step := Judge(100, f.Recorder, d, 2*d, bound); step.Held || step.Why != "51 of 100 a second were answered" {
		t.Errorf("answers that come late: %+v", step)
	}
}
