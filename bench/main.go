package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"stampede/bench/load"
)

type cli struct {
	Load           loadCmd     `cmd:"" default:"withargs" help:"Loads a private stampede, or a deployment of yours, as you say: rate, pace, scenario; latencies from when requests were due, and an audit at the end. It is what runs without a command."`
	Smoke          smokeCmd    `cmd:"" help:"Orders a second and CPU an order beside an empty handler, in about 15 seconds."`
	Compare        compareCmd  `cmd:"" help:"Everything that is promised beside what it is held against: an empty handler, one EVALSHA a request, PostgreSQL with row locks. About eight minutes."`
	Profile        profileCmd  `cmd:"" help:"CPU and allocation profiles of Stampede while a crowd buys one product."`
	Memory         memoryCmd   `cmd:"" help:"Bytes of Redis memory an order and a user, once they are in PostgreSQL."`
	EmptyServer    emptyCmd    `cmd:"" hidden:"" help:"The baseline, started by the other commands: the same HTTP server whose shop does nothing."`
	EvalshaServer  evalshaCmd  `cmd:"" hidden:"" help:"A baseline: one order a script call."`
	PostgresServer postgresCmd `cmd:"" hidden:"" help:"A baseline: one transaction an order, with row locks."`
}

// Exit codes beside 0.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, progress io.Writer) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("bench"), kong.Writers(out, progress), kong.Vars{"rows": strings.Join(rowNames(), ", "), "shares": load.MixedShares()},
		kong.Description("Puts load on Stampede and measures it."))
	if err != nil {
		panic(err) // the struct above is malformed
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(progress, "bench: %v (see bench --help)\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the clean-up too
	command.BindTo(ctx, (*context.Context)(nil))
	switch err := command.Run(console{out: out, progress: progress}); {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintf(progress, "bench: interrupted: %v\n", err)
	default:
		fmt.Fprintf(progress, "bench: %v\n", err)
	}
	return exitFailed
}

// console is where a command writes: results apart from how it goes, so that results can be piped.
type console struct{ out, progress io.Writer }

func (c console) say(format string, args ...any) { fmt.Fprintf(c.progress, format+"\n", args...) }
