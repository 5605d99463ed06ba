package stack

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dataDir is the layout below Options.DataDir:
//
//	lock               flock of the owner, with its pid
//	redis/             redis.conf, redis.sock, appendonlydir, server.version (who wrote it)
//	redis-1/ ...       instead, with a cluster: of each node, and its nodes.conf
//	redis.password     secrets, mode 0600, kept across starts
//	postgres.password
//	postgres/          PostgreSQL's data directory, unless
//	postgres.path      names another home for it
//	log/               redis.log or redis-1.log ..., postgres.log
type dataDir struct {
	path    string // absolute, symlinks resolved: leftovers are found by it
	created bool   // by this start
}

func (d *dataDir) redis() string              { return filepath.Join(d.path, "redis") }
func (d *dataDir) redisNode(n int) string     { return filepath.Join(d.path, fmt.Sprintf("redis-%d", n)) }
func (d *dataDir) logFile(name string) string { return filepath.Join(d.path, "log", name+".log") }
func (d *dataDir) record() string             { return filepath.Join(d.path, "postgres.path") }

// openDataDir makes the directory when it is missing. Its parents get the usual
// mode, so that only the data itself is private.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, unusable(path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, unusable(path, err)
	}
	err = os.Mkdir(path, 0o700)
	created := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, unusable(path, err)
	}
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return nil, unusable(path, err)
	}
	return &dataDir{path: path, created: created}, nil
}

// prepare makes what all servers need; the lock must be held.
func (d *dataDir) prepare() error { return makeDir(filepath.Join(d.path, "log")) }

func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return unusable(dir, err)
	}
	return nil
}

// secret returns the password kept in <name>.password and makes it when there is
// none yet. It is hexadecimal: safe in a URL and in a configuration file.
func (d *dataDir) secret(name string) (string, error) {
	path := filepath.Join(d.path, name+".password")
	text, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(text))) > 0 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", unusable(path, err)
	}
	password := randomHex(24)
	if err := writeFile(path, password+"\n"); err != nil {
		return "", unusable(path, err)
	}
	return password, nil
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	rand.Read(raw) // never fails: crypto/rand ends the program instead
	return hex.EncodeToString(raw)
}

// writeFile replaces path with mode 0600, whole or not at all: after a crash a
// half-written password would lock us out of our own PostgreSQL.
func writeFile(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename or a new entry in dir survive a power cut.
func syncDir(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
