package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/bench/load"
	"stampede/cmd/stack"
)

const (
	setPipeline    = 64      // commands that redis-benchmark sends together
	setKeys        = 1000000 // different keys, at random
	setBytes       = 34      // a value as long as the record of an order of one line
	yardstickMax   = time.Minute
	programSet     = "pipelined_set"
	yardstickMoves = 400_000 // SETs a second that it is planned with; a slower Redis takes longer
)

// yardstick is a Redis of its own, kept as Stampede keeps its own (the same AOF, synced before it answers), to which
// redis-benchmark does nothing but pipelined SETs: what the least that can be called a write costs this Redis.
type yardstick struct {
	stack  *stack.Stack
	meter  meter
	binary string
	opts   *redis.Options
}

func startYardstick(ctx context.Context, w workspace) (*yardstick, error) {
	binary, err := exec.LookPath("redis-benchmark")
	if err != nil {
		binary, err = exec.LookPath("valkey-benchmark")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: redis-benchmark and it come with the server (apt-get install redis-tools)", err)
	}
	log, err := os.Create(w.log(programSet))
	if err != nil {
		return nil, err
	}
	y := &yardstick{binary: binary}
	y.stack, err = stack.Start(ctx, stack.Options{
		DataDir: w.data(programSet), NoPostgres: true, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if y.opts, err = redis.ParseURL(y.stack.RedisURL()); err == nil {
		y.meter, err = newMeter("/proc", map[int]string{y.stack.Redis().Pid(): programRedis, os.Getpid(): programGenerator})
	}
	if err != nil {
		return nil, errors.Join(err, y.stop())
	}
	return y, nil
}

func (y *yardstick) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), yardstickMax)
	defer cancel()
	return y.stack.Stop(ctx)
}

// round has about as many keys set as take the given time.
func (y *yardstick) round(ctx context.Context, d time.Duration) (r round, err error) {
	ctx, cancel := context.WithTimeout(ctx, d+yardstickMax)
	defer cancel()
	if err := awaitQuiet(ctx, y.meter, d); err != nil {
		return r, err
	}
	sets := int64(d.Seconds() * yardstickMoves)
	host, port, _ := strings.Cut(y.opts.Addr, ":")
	// Its password stands in the arguments, where others may read it: nobody's data is behind it.
	cmd := exec.CommandContext(ctx, y.binary, "-h", host, "-p", port, "-a", y.opts.Password, "-q", "-t", "set",
		"-P", strconv.Itoa(setPipeline), "-r", strconv.Itoa(setKeys), "-d", strconv.Itoa(setBytes), "-n", strconv.FormatInt(sets, 10))
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	before, err := y.meter.read()
	if err != nil {
		return r, err
	}
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return r, fmt.Errorf("redis-benchmark: %w: %.300s", err, complaint.Bytes())
	}
	took := time.Since(began)
	after, err := y.meter.read()
	if err != nil {
		return r, err
	}
	spent := after.since(before)
	r = newRound(programSet, load.Tally{Accepted: sets}, took, 0, spent, spent)
	r.Load = loadSet
	return r, nil
}
