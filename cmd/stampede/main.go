// Command stampede sells: an order engine that decides in Redis and keeps its books in PostgreSQL.
//
// `stampede up` brings its own servers; `stampede serve` takes those it is given.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"stampede/persist"
)

// Set by the linker: see the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

// commands are all there are. Every flag is also a variable, STAMPEDE_ and its name; a flag wins.
type commands struct {
	Up      upCommand      `cmd:"" help:"Run everything: a private Redis and PostgreSQL with their data in one directory, and the API."`
	Serve   serveCommand   `cmd:"" help:"Run the API against a Redis and a PostgreSQL that run already."`
	Audit   auditCommand   `cmd:"" help:"Check the books: exit 0 when all holds, 1 with each violation, 2 when it could not look."`
	Restore restoreCommand `cmd:"" help:"Rebuild an empty Redis from PostgreSQL."`
	Move    moveCommand    `cmd:"" help:"Move a partition to another master of the Redis Cluster, while the others sell."`
	Rebuild rebuildCommand `cmd:"" name:"rebuild-reports" help:"Fill the tables of orders, ledgers, carts and sales anew from the journal."`
	Version versionCommand `cmd:"" help:"Print version, commit and Go."`
}

// Exit codes.
const (
	exitDone       = 0
	exitViolations = 1 // of an audit
	exitFailed     = 2 // it could not do what it was asked to; stderr says why
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c commands
	dropEmptyVariables()
	parser, err := kong.New(&c,
		kong.Name("stampede"),
		kong.Description("Sells what there is, once: an order engine on Redis, with its books in PostgreSQL."),
		kong.DefaultEnvars("STAMPEDE"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return report(os.Stderr, err)
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return report(os.Stderr, fmt.Errorf("%w; see stampede --help", err))
	}
	return report(os.Stderr, parsed.Run(newConsole(parsed)))
}

// report tells why a command failed, in a line, and returns the exit code. What fails carries in its text what to do,
// and no secrets.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	text := strings.TrimPrefix(err.Error(), persist.ErrRefused.Error()+": ")
	fmt.Fprintln(w, "stampede:", text)
	if errors.Is(err, errViolations) {
		return exitViolations
	}
	return exitFailed
}

// dropEmptyVariables makes a variable that is set to nothing count as not set: compose files and units write them
// so, and an empty address would listen everywhere.
func dropEmptyVariables() {
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if value == "" && strings.HasPrefix(name, "STAMPEDE_") {
			_ = os.Unsetenv(name) // fails only on names that cannot be
		}
	}
}
