package stack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// mendAOF takes a torn transaction off the end of the AOF before Redis reads it.
//
// Redis (seen with 7.0.15) loads an AOF whose last write is torn and cuts it behind
// the last whole command, also in the middle of a MULTI. The commands before the cut
// count as not executed, but they stay in the file, and what is written next
// completes the transaction: the load after that carries out half of a script.
// redis-check-aof cuts before the MULTI. It is redis-server under another name.
func (r *redisServer) mendAOF() error {
	manifest := filepath.Join(r.home, "appendonlydir", "appendonly.aof.manifest")
	if _, err := os.Stat(manifest); errors.Is(err, os.ErrNotExist) {
		return nil // the first start
	}
	cmd := exec.Command(r.binary)
	cmd.Args = []string{"redis-check-aof", "--fix", manifest}
	cmd.Dir = r.home
	cmd.Env = r.opts.system.childEnv()
	cmd.SysProcAttr = account{}.attr()
	cmd.Stdin = strings.NewReader("y\n")
	said, err := cmd.CombinedOutput()
	if err != nil {
		return &ConfigError{
			What: fmt.Sprintf("the AOF in %s cannot be mended: %v: %s", filepath.Dir(manifest), err, lastLine(said)),
			Do:   "look at it with redis-check-aof, or empty the directory and run stampede restore",
		}
	}
	if bytes.Contains(said, []byte("Successfully truncated")) {
		r.log.Warn("took a torn write off the end of the AOF", "dir", filepath.Dir(manifest))
	}
	return nil
}

func lastLine(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
