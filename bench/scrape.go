package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"stampede/bench/result"
)

// scrape is what /metrics tells of the load: of all scripts together, and of all partitions.
type scrape struct {
	lag        int64 // events
	operations float64
	calls      float64
	upTo       map[float64]float64 // calls of so many operations or fewer
}

const lagUnseen = -1

const batchMetric = "stampede_batch_operations"

// scrape reads /metrics.
func (a *api) scrape(ctx context.Context) (s scrape, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+"/metrics", http.NoBody)
	if err != nil {
		return s, err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return s, err
	}
	if response.StatusCode != http.StatusOK {
		return s, errors.Join(fmt.Errorf("/metrics: %s", response.Status), response.Body.Close())
	}
	s, err = readScrape(response.Body)
	return s, errors.Join(err, response.Body.Close())
}

// readScrape reads Prometheus' text format.
func readScrape(from io.Reader) (scrape, error) {
	s := scrape{lag: lagUnseen, upTo: make(map[float64]float64)}
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		line := lines.Text()
		name, _, _ := strings.Cut(line, " ")
		name, labels, _ := strings.Cut(name, "{")
		if name != lagMetric && !strings.HasPrefix(name, batchMetric+"_") {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return s, fmt.Errorf("/metrics: %s: %w", name, err)
		}
		switch name {
		case lagMetric:
			s.lag = max(0, s.lag) + int64(value)
		case batchMetric + "_sum":
			s.operations += value
		case batchMetric + "_count":
			s.calls += value
		case batchMetric + "_bucket":
			_, bound, _ := strings.Cut(labels, `le="`)
			bound, _, _ = strings.Cut(bound, `"`)
			most, err := strconv.ParseFloat(bound, 64) // "+Inf" is the last one
			if err != nil {
				return s, fmt.Errorf("/metrics: %s: %w", line, err)
			}
			s.upTo[most] += value
		}
	}
	return s, lines.Err()
}

// batch is the mean of the calls since an earlier look; 0 where there were none.
func (s scrape) batch(before scrape) float64 {
	if s.calls <= before.calls {
		return 0
	}
	return (s.operations - before.operations) / (s.calls - before.calls)
}

// batches is the histogram of the calls since an earlier look, from its first bar to its last.
func (s scrape) batches(before scrape) []result.Bucket {
	var bounds []float64
	for bound := range s.upTo {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	var bars []result.Bucket
	below, last := 0.0, 0
	for _, bound := range bounds {
		calls := s.upTo[bound] - before.upTo[bound]
		bar := result.Bucket{Calls: int64(calls - below)}
		if !math.IsInf(bound, 1) {
			bar.UpTo = int(bound)
		}
		bars = append(bars, bar)
		if below = calls; bar.Calls > 0 {
			last = len(bars)
		}
	}
	return bars[:last]
}
