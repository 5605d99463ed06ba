package rest

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// refusalLog writes about requests that were not done and that an operator should hear of. What comes in floods, such
// as refusals under overload, is a line a second for each route and code; the line says how many it speaks for.
type refusalLog struct {
	log   *slog.Logger
	mu    sync.Mutex
	lines map[refusalLine]*lineState
}

type refusalLine struct{ route, code string }

type lineState struct {
	next    time.Time
	skipped int
}

const refusalLogEvery = time.Second

// levels of the codes that are logged. All others are between the client and its request.
var levels = map[string]slog.Level{
	internal.code:     slog.LevelError,
	overloaded.code:   slog.LevelWarn,
	timedOut.code:     slog.LevelWarn,
	unauthorized.code: slog.LevelInfo,
	forbidden.code:    slog.LevelInfo,
	rateLimited.code:  slog.LevelInfo,
}

func newRefusalLog(log *slog.Logger) *refusalLog {
	return &refusalLog{log: log, lines: map[refusalLine]*lineState{}}
}

// note writes the line if it is due. Every internal error is: its id was given out.
func (l *refusalLog) note(ctx *fasthttp.RequestCtx, client netip.Addr, route string, p *problem, err error) {
	level, logged := levels[p.code]
	if !logged {
		return
	}
	skipped, due := 0, p.code == internal.code
	if !due {
		if skipped, due = l.due(refusalLine{route, p.code}, time.Now()); !due {
			return
		}
	}
	l.log.LogAttrs(context.Background(), level, "request refused",
		slog.String("route", route), slog.Int("status", p.status), slog.String("code", p.code),
		slog.String("request_id", requestID(ctx)), slog.String("client", client.String()),
		slog.Any("error", err), slog.Int("skipped", skipped))
}

// due tells whether a line may be written now, and how many like it were not since the last.
func (l *refusalLog) due(line refusalLine, now time.Time) (skipped int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.lines[line]
	if state == nil { // as many as routes times codes
		state = &lineState{}
		l.lines[line] = state
	}
	if now.Before(state.next) {
		state.skipped++
		return 0, false
	}
	skipped = state.skipped
	state.skipped, state.next = 0, now.Add(refusalLogEvery)
	return skipped, true
}
