// Package result is what a load test came to, and how it is told: a table with a small plot, JSON, and a page of charts
// that needs nothing but a browser.
//
// What is not known is left out: a table, a chart or a tile stands there only if something was measured for it. Of a list of
// percentiles the tables and tiles tell 50, 90, 95, 99, 99.9, 99.99 and 100 where they are in it; the page's chart draws them all.
package result

import "time"

// Result is a load test. Rates are a second; latencies are in microseconds, from when a request was due (in a closed
// loop: from when it was sent) to the last byte of its answer.
type Result struct {
	Scenario    string     `json:"scenario"`
	Loop        string     `json:"loop"` // open or closed
	Pace        string     `json:"pace"` // in words, as "constant, 5000 a second"
	Seed        uint64     `json:"seed"`
	Connections int        `json:"connections"`
	Users       int        `json:"users"`
	Products    int        `json:"products"`
	Target      string     `json:"target"`  // what was loaded, in words
	Machine     []Fact     `json:"machine"` // on what it ran, as far as that is known
	Started     time.Time  `json:"started"`
	Seconds     float64    `json:"seconds"` // of the load, to its last answer
	Total       Counts     `json:"total"`
	Kinds       []Kind     `json:"kinds"`    // the same by kind of request
	Latency     []Quantile `json:"latency"`  // of accepted requests
	Timeline    []Interval `json:"timeline"` // equal pieces of the load
	Batches     []Bucket   `json:"batches"`  // operations a script call; empty where the target does not tell
	Search      []Step     `json:"search,omitempty"`
	Books       Books      `json:"books"`
	Marks       []string   `json:"marks"`    // why to doubt the numbers
	Failures    []string   `json:"failures"` // what the shop did wrong
}

// Fact is something known about a run, as {"Redis", "7.0.15"}.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Counts are requests by what became of them. Due = Accepted + Refused + Failed + NotSent.
type Counts struct {
	Due      int64         `json:"due"`      // by the pacer; in a closed loop as many as were sent
	Accepted int64         `json:"accepted"` // 2xx
	Refused  int64         `json:"refused"`  // a definite no: sold out, short of money, overloaded, too fast
	Failed   int64         `json:"failed"`   // no definite answer, even after asking again
	NotSent  int64         `json:"not_sent"` // every connection was busy for too long
	Asked    int64         `json:"asked_again"`
	Statuses map[int]int64 `json:"statuses"` // every answer by its status, of retries too
}

// Kind is a kind of request: browse, cart, order, pay, refund, charge.
type Kind struct {
	Name    string     `json:"name"`
	Counts  Counts     `json:"counts"`
	Latency []Quantile `json:"latency"`
}

// Quantile is a latency that Percent of the requests stayed below.
type Quantile struct {
	Percent float64 `json:"percent"`
	Us      int64   `json:"us"`
}

// Interval is a piece of the load. Latencies are of requests that were answered in it; 0 where there were none.
type Interval struct {
	At       float64            `json:"at"`      // seconds from the start to its begin
	Seconds  float64            `json:"seconds"` // its length
	Due      int64              `json:"due"`
	Accepted int64              `json:"accepted"`
	Refused  int64              `json:"refused"`
	Failed   int64              `json:"failed"`
	NotSent  int64              `json:"not_sent"`
	P50      int64              `json:"p50_us"`
	P99      int64              `json:"p99_us"`
	P999     int64              `json:"p999_us"`
	Max      int64              `json:"max_us"`
	Batch    float64            `json:"batch"`           // mean operations a script call; 0 where unknown
	Lag      int64              `json:"lag_events"`      // changes that PostgreSQL lacked at its end; -1 where unknown
	Cores    map[string]float64 `json:"cores,omitempty"` // CPU seconds a second by program, the generator's included
}

// Bucket is a bar of a histogram: how many script calls held more operations than the bar before, and up to UpTo.
type Bucket struct {
	UpTo  int   `json:"up_to"` // 0: without an upper bound
	Calls int64 `json:"calls"`
}

// Step is one rate that a search for the highest one has tried.
type Step struct {
	Rate    float64 `json:"rate"`
	Reached float64 `json:"reached"` // answers a second
	P99     int64   `json:"p99_us"`
	Held    bool    `json:"held"`
	Why     string  `json:"why,omitempty"` // it did not hold
}

// Books is whether what was answered is what happened.
type Books struct {
	Closed     bool   `json:"closed"`
	Violations string `json:"violations,omitempty"`
	Unaudited  string `json:"unaudited,omitempty"` // why nobody knows whether they close
}

// AcceptedPerSecond is the rate over the whole load.
func (r *Result) AcceptedPerSecond() float64 {
	if r.Seconds == 0 {
		return 0
	}
	return float64(r.Total.Accepted) / r.Seconds
}
