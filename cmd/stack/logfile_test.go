package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestLog_TailHoldsOnlyTheLatestRun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "server.log")
	if err := os.WriteFile(path, []byte("of an older run\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file, mark, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if lines := mark.tail(); len(lines) != 0 {
		t.Errorf("a run that logged nothing has the lines %q", lines)
	}
	long := strings.Repeat("much\n", tailBytesMax) + "one\ntwo\n"
	if _, err := file.WriteString(long); err != nil {
		t.Fatal(err)
	}
	lines := mark.tail()
	if len(lines) != tailLinesMax || !slices.Equal(lines[tailLinesMax-2:], []string{"one", "two"}) {
		t.Errorf("got %q", lines)
	}
}

func TestLog_LargeOneIsSetAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "server.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, logBytesMax+1); err != nil {
		t.Fatal(err)
	}
	file, mark, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if mark.offset != 0 {
		t.Errorf("the new log begins at %d", mark.offset)
	}
	if info, err := os.Stat(path + ".1"); err != nil || info.Size() != logBytesMax+1 {
		t.Errorf("the old log: %v, %v", info, err)
	}
}
