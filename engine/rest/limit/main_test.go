package limit_test

import (
	"flag"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

// rapidChecks is how many random runs a property gets in the short tests.
const rapidChecks = 100

func TestMain(m *testing.M) {
	flag.Parse()
	// What rapid found goes to the output with its seed; a file in the source tree would go stale.
	mustSet("rapid.nofailfile", "true")
	if !isSet("rapid.checks") {
		checks := rapidChecks
		if os.Getenv("STAMPEDE_TEST_LONG") != "" {
			checks *= 50
		}
		mustSet("rapid.checks", strconv.Itoa(checks))
	}
	goleak.VerifyTestMain(m)
}

func mustSet(name, value string) {
	if err := flag.Set(name, value); err != nil {
		panic(err)
	}
}

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}
