package load

import (
	"fmt"
	"net/http"
	"time"

	"stampede/bench/result"
)

const (
	searchFactor   = 1.5  // from one rate to the next, while it is not known between which it lies
	searchExact    = 1.05 // the rate that holds and the one that does not are no further apart
	searchStepsMax = 16
	searchReached  = 0.99 // of the rate that is due must be answered
	searchTail     = 20   // the last answers take no more than this part of a load
)

// Search looks for the highest rate that holds: from a first one upwards or downwards, by half as much again, until it has
// one that holds and one that does not, and then between those, until they differ by a twentieth. try puts a load on a
// server. The best is the highest rate that held; 0 if none of the steps did.
func Search(from float64, try func(rate float64) (result.Step, error)) (steps []result.Step, best float64, err error) {
	held, broke := 0.0, 0.0
	for rate := from; len(steps) < searchStepsMax; {
		step, err := try(rate)
		if err != nil {
			return steps, held, err
		}
		steps = append(steps, step)
		if step.Held {
			held = rate
		} else {
			broke = rate
		}
		switch {
		case broke == 0:
			rate = held * searchFactor
		case held == 0:
			rate = broke / searchFactor
		case broke/held <= searchExact:
			return steps, held, nil
		default:
			rate = (held + broke) / 2
		}
	}
	return steps, held, nil
}

// Judge says whether a load of a rate has held: everything that was due was sent and answered definitely, no later than
// it came, and 99 of 100 accepted requests within a bound. d is how long requests came due; took, until the last answer.
func Judge(rate float64, r *Recorder, d, took, bound time.Duration) result.Step {
	var counts result.Result
	r.Fill(&counts)
	total := counts.Total
	// The last answers may come within the bound after the last request; but that must not hide a queue that grew.
	seconds := max(d, took-min(bound, d/searchTail)).Seconds()
	step := result.Step{Rate: rate, Reached: float64(total.Accepted+total.Refused) / seconds}
	due := float64(total.Due) / d.Seconds() // of a random plan, not quite the rate
	for _, q := range counts.Latency {
		if q.Percent == 99 {
			step.P99 = q.Us
		}
	}
	turnedAway := total.Statuses[http.StatusServiceUnavailable] + total.Statuses[http.StatusTooManyRequests]
	switch {
	case total.Accepted == 0:
		step.Why = "nothing was accepted"
	case total.Failed > 0:
		step.Why = fmt.Sprintf("%d without a definite answer", total.Failed)
	case total.NotSent > 0:
		step.Why = fmt.Sprintf("%d not sent", total.NotSent)
	case turnedAway > 0:
		step.Why = fmt.Sprintf("%d turned away, too much or too fast", turnedAway)
	case step.P99 > bound.Microseconds():
		step.Why = fmt.Sprintf("p99 %.1f ms", float64(step.P99)/1000)
	case step.Reached < searchReached*due:
		step.Why = fmt.Sprintf("%.0f of %.0f a second were answered", step.Reached, due)
	}
	step.Held = step.Why == ""
	return step
}
