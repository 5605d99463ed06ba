package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"stampede/bench/load"
)

const (
	liveEvery  = 500 * time.Millisecond
	plainEvery = 5 * time.Second
	barWidth   = 20
)

// tell tells how a load goes, in a line that changes or, where no terminal reads it, in a line now and then, until the
// function is called that it returns.
func (l *loading) tell(recorder *load.Recorder) (stop func()) {
	start, ended := time.Now(), make(chan struct{})
	file, ok := l.progress.(*os.File)
	terminal := ok && term.IsTerminal(int(file.Fd()))
	every := plainEvery
	show := func(text string, at time.Duration) { l.say("%3.0f s  %s", at.Seconds(), text) }
	clean := func() {}
	if terminal {
		every = liveEvery
		bar := progressbar.NewOptions64(l.For.Milliseconds(), progressbar.OptionSetWriter(file), progressbar.OptionSetWidth(barWidth),
			progressbar.OptionSetElapsedTime(false), progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish(),
			progressbar.OptionShowDescriptionAtLineEnd())
		show = func(text string, at time.Duration) {
			bar.Describe(text)
			_ = bar.Set64(min(at, l.For-time.Millisecond).Milliseconds()) // full, it would be gone
		}
		clean = func() { _ = bar.Clear() }
	}
	var telling sync.WaitGroup
	telling.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		last, before := start, load.Tally{}
		for {
			select {
			case <-ended:
				clean()
				return
			case now := <-tick.C:
				t := recorder.Tally()
				show(progressText(t, before, now.Sub(last)), now.Sub(start))
				last, before = now, t
			}
		}
	})
	return func() {
		close(ended)
		telling.Wait()
	}
}

// progressText is how a load goes: the rate of the time since it was told before, all else from its start.
func progressText(t, before load.Tally, since time.Duration) string {
	text := fmt.Sprintf("%.0f accepted a second, %d refused, %d failed, p99 %.1f ms",
		float64(t.Accepted-before.Accepted)/since.Seconds(), t.RefusedAll(), t.Failed, t.P99.Seconds()*1000)
	if t.NotSent > 0 {
		text += fmt.Sprintf(", %d not sent", t.NotSent)
	}
	return text
}
