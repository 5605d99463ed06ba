package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	aofDir         = "appendonlydir" // below the home of a server
	aofManifest    = "appendonly.aof.manifest"
	checkAOFMax    = 15 * time.Minute // as for loading the file, which takes longer
	tornBytesMax   = 256 << 20        // no transaction of a shop is as large
	cutNameLayout  = "20060102T150405.000000000Z"
	manifestBase   = "b" // types of the manifest's entries; "h" is a file that Redis is about to remove
	manifestIncr   = "i"
	manifestFields = 6 // file NAME seq N type T; Redis 8.2 adds others after them
)

// cutTornWrite takes a torn write off the end of the AOF before Redis reads it, and keeps what it
// cut in a file beside it.
//
// Redis (seen with 7.0.15) loads an AOF whose last write is torn and cuts it after the last whole
// command, even in the middle of a MULTI. The commands before the cut count as not executed, but
// they stay in the file, and what is written next completes the transaction: the load after that
// executes half of a script. The cut must be before the MULTI.
//
// Only the file that was written last can end in a torn write, so only that one is looked at. The
// check of the manifest reads the base file too, and Valkey 9 cannot check its own.
func (r *redisServer) cutTornWrite(ctx context.Context) error {
	path, err := lastIncrement(filepath.Join(r.home, aofDir))
	if err != nil || path == "" {
		return err
	}
	size, whole, err := r.checkAOF(ctx, path)
	if err != nil || whole == size {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return unusable(path, err)
	}
	defer func() { _ = file.Close() }() // what was written to it has been synced
	tail := io.NewSectionReader(file, whole, size-whole)
	torn, err := isTorn(tail)
	if err != nil {
		return unusable(path, err)
	}
	if !torn {
		return damaged(path, whole, size)
	}
	kept := path + ".cut-" + time.Now().UTC().Format(cutNameLayout)
	if err := copyTo(kept, tail); err != nil {
		return unusable(kept, err)
	}
	if err := errors.Join(file.Truncate(whole), file.Sync()); err != nil {
		return unusable(path, err)
	}
	r.log.Warn("cut a torn write off the end of the AOF", "file", path, "bytes", size-whole, "of", size, "kept_in", kept)
	return nil
}

func damaged(path string, whole, size int64) error {
	return &ConfigError{
		What: fmt.Sprintf("%s is damaged at byte %d, and the %d bytes after it are more than one torn write: "+
			"they hold changes that PostgreSQL may lack", path, whole, size-whole),
		Do: fmt.Sprintf("put the file back from a copy of the disk; or copy it to another disk, cut the original with "+
			"redis-check-aof --fix %s and start again: what PostgreSQL lacks of those changes is then in the copy alone", path),
	}
}

// lastIncrement returns the file of the AOF that was written last; empty if there is none, or
// nothing in it. A manifest that cannot be understood is left to Redis, which then does not start.
func lastIncrement(dir string) (string, error) {
	files, err := manifestFiles(dir, manifestIncr)
	if err != nil {
		return "", err
	}
	// A rewrite that has just begun leaves an empty one at the end.
	for i := len(files) - 1; i >= 0; i-- {
		info, err := os.Stat(files[i])
		if errors.Is(err, os.ErrNotExist) {
			return "", nil // Redis says so, better than we could
		}
		if err != nil {
			return "", unusable(files[i], err)
		}
		if info.Size() > 0 {
			return files[i], nil
		}
	}
	return "", nil
}

// manifestFiles are the files of one type that the manifest lists, in its order: none before the
// first start.
func manifestFiles(dir, kind string) ([]string, error) {
	path := filepath.Join(dir, aofManifest)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unusable(path, err)
	}
	var files []string
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < manifestFields || words[0] != "file" || words[4] != "type" || words[5] != kind {
			continue
		}
		files = append(files, filepath.Join(dir, words[1]))
	}
	return files, nil
}

// aofAnalyzed is the line of redis-check-aof that holds the size of a file and of the part of it
// that is whole.
var aofAnalyzed = regexp.MustCompile(`AOF analyzed: .*size=(\d+), ok_up_to=(\d+)`)

// checkAOF runs redis-check-aof, which is redis-server (or valkey-server) under another name. It
// changes nothing.
func (r *redisServer) checkAOF(ctx context.Context, path string) (size, whole int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkAOFMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.binary.path)
	cmd.Args = []string{"redis-check-aof", path}
	cmd.Dir = r.home
	cmd.Env = r.opts.system.childEnv()
	cmd.SysProcAttr = account{}.attr()
	cmd.WaitDelay = killWaitMax
	said, err := cmd.CombinedOutput() // it fails when the file is not whole
	if ctx.Err() != nil {
		return 0, 0, fmt.Errorf("check %s: %w", path, context.Cause(ctx))
	}
	if match := aofAnalyzed.FindSubmatch(said); match != nil {
		size, err1 := strconv.ParseInt(string(match[1]), 10, 64)
		whole, err2 := strconv.ParseInt(string(match[2]), 10, 64)
		if err1 == nil && err2 == nil && whole <= size {
			return size, whole, nil
		}
	}
	return 0, 0, &ConfigError{
		What: fmt.Sprintf("%s cannot be checked, as %s says: %s", path, r.binary, lastOf(lastLines(said))),
		Do:   "keep the file, since PostgreSQL may lack what is in it; run redis-check-aof on it, and see that this server can",
		Err:  err,
	}
}

// copyTo writes a new file that survives a power cut.
func copyTo(path string, content io.Reader) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return syncDir(filepath.Dir(path))
}
