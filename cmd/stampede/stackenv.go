package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// stackEnv is <data-dir>/stack.env: how to join the stack that runs there. Its lines are assignments that a shell,
// systemd and docker read too; the values need no quotes.
type stackEnv struct {
	address     string
	redisURL    string
	postgresURL string
	adminToken  string
}

func stackEnvPath(dataDir string) string { return filepath.Join(dataDir, "stack.env") }

// fields names the variables, in the order of the file.
func (e *stackEnv) fields() []struct {
	name  string
	value *string
} {
	return []struct {
		name  string
		value *string
	}{
		{"STAMPEDE_ADDR", &e.address},
		{"STAMPEDE_REDIS_URL", &e.redisURL},
		{"STAMPEDE_POSTGRES_URL", &e.postgresURL},
		{"STAMPEDE_ADMIN_TOKEN", &e.adminToken},
	}
}

// readStackEnv returns what the last `up` wrote; an error that is fs.ErrNotExist when none ever did.
func readStackEnv(dataDir string) (e stackEnv, err error) {
	text, err := os.ReadFile(stackEnvPath(dataDir))
	if err != nil {
		return e, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		for _, field := range e.fields() {
			if field.name == name {
				*field.value = value
			}
		}
	}
	return e, nil
}

// write replaces the file, whole or not at all: a token lost half-way would lock every admin client out. Mode 0600.
func (e *stackEnv) write(dataDir string) error {
	var text strings.Builder
	for _, field := range e.fields() {
		fmt.Fprintf(&text, "%s=%s\n", field.name, *field.value)
	}
	path := stackEnvPath(dataDir)
	file, err := os.CreateTemp(dataDir, "stack.env.*")
	if err != nil {
		return unwritable(path, err)
	}
	_, err = file.WriteString(text.String())
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(unwritable(path, err), os.Remove(file.Name()))
	}
	return nil
}

func unwritable(path string, err error) error {
	return fmt.Errorf("cannot write %s (%w): give this user the right to, or take another directory with --data-dir", path, err)
}

// keptToken returns the admin token to use: the one given, else the one of the last start, else a new one.
func keptToken(given, dataDir string) (string, error) {
	if given != "" {
		return given, nil
	}
	last, err := readStackEnv(dataDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot read %s, which holds the admin token (%w): give this user the right to, or give --admin-token",
			stackEnvPath(dataDir), err)
	}
	if last.adminToken != "" {
		return last.adminToken, nil
	}
	return rand.Text(), nil
}
