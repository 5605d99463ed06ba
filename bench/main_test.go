package main

import (
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary stand in for bench when it is started as a baseline, for a run starts
// os.Executable.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasSuffix(os.Args[1], "-server") {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m,
		// fasthttp's clock runs for ever, and the janitor of a server ends up to 10 s after it.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

func TestMain_BadCommandLineIsUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"smok"}, {"smoke", "--rate"}} {
		if code := run(args, t.Output(), t.Output()); code != exitUsage {
			t.Errorf("bench %v ended with %d, want %d", args, code, exitUsage)
		}
	}
}
