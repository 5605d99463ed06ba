package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary stand in for bench when it is started as a baseline, for a run starts
// os.Executable.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasSuffix(os.Args[1], "-server") {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	dir, err := os.MkdirTemp("", "stampede-bench-test-*")
	if err != nil {
		panic(err)
	}
	builds = dir
	goleak.VerifyTestMain(m,
		goleak.Cleanup(func(code int) {
			_ = os.RemoveAll(dir)
			os.Exit(code)
		}),
		// fasthttp's clock runs for ever, and the janitor of a server ends up to 10 s after it.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

var builds string // a directory

// stampedeBinary is built by the first test that needs it.
var stampedeBinary = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(builds, "stampede")
	// As the tests were built: then most of it lies in the build cache.
	args := []string{"build", "-buildvcs=false", "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				args = append(args, "-race")
			}
		}
	}
	if out, err := exec.Command("go", append(args, "stampede/cmd/stampede")...).CombinedOutput(); err != nil {
		return path, fmt.Errorf("build stampede: %w\n%s", err, out)
	}
	return path, nil
})

func buildStampede(t *testing.T) string {
	t.Helper()
	path, err := stampedeBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain_BadCommandLineIsUsage(t *testing.T) {
	for _, args := range [][]string{{"smok"}, {"smoke", "--rate"}, {"--scenario", "nope"}} {
		if code := run(args, t.Output(), t.Output()); code != exitUsage {
			t.Errorf("bench %v ended with %d, want %d", args, code, exitUsage)
		}
	}
}
