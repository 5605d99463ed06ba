package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// ErrConfig is the kind of every error that the operator can mend: a missing
// server, a path that cannot be written, a data directory in use. The command
// answers it with exit code 2.
var ErrConfig = errors.New("stack: needs the operator")

// ConfigError says what is wrong with the set-up and what to do about it.
type ConfigError struct {
	What string // what is wrong
	Do   string // what the operator does about it
	Err  error  // the cause; may be nil
}

func (e *ConfigError) Error() string {
	if e.Err == nil {
		return e.What + ": " + e.Do
	}
	return fmt.Sprintf("%s (%v): %s", e.What, e.Err, e.Do)
}

func (e *ConfigError) Unwrap() error { return e.Err }

// Is makes every ConfigError an ErrConfig.
func (e *ConfigError) Is(target error) bool { return target == ErrConfig }

// HeldError says that another living process owns the data directory.
type HeldError struct {
	Dir string
	Pid int // 0 when the holder has not written it yet
}

func (e *HeldError) Error() string {
	who, how := "another process", "stop it"
	if e.Pid != 0 {
		who, how = fmt.Sprintf("process %d", e.Pid), fmt.Sprintf("stop it (kill %d)", e.Pid)
	}
	return fmt.Sprintf("%s is in use by %s: %s, or take another directory with --data-dir", e.Dir, who, how)
}

// Is makes every HeldError an ErrConfig.
func (e *HeldError) Is(target error) bool { return target == ErrConfig }

// ExitError says that a server ended before it was ready, and carries the last
// lines of its log, which name the reason.
type ExitError struct {
	Name    string // the program
	Status  string // as in os.ProcessState.String
	LogPath string
	Lines   []string
	Advice  string // what to do, if the cause is known; may be empty
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("%s ended while it started (%s)", e.Name, e.Status)
	if e.Advice != "" {
		text += ": " + e.Advice
	}
	if len(e.Lines) == 0 {
		return fmt.Sprintf("%s; it logged nothing to %s", text, e.LogPath)
	}
	return fmt.Sprintf("%s; the end of %s says what to put right:\n\t%s", text, e.LogPath, strings.Join(e.Lines, "\n\t"))
}

// Is makes every ExitError an ErrConfig.
func (e *ExitError) Is(target error) bool { return target == ErrConfig }

// unusable says why a path of the data directory cannot be read or written.
func unusable(path string, err error) error {
	advice := "give this user the right to read and write it"
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		advice = "free some space on its disk"
	case errors.Is(err, syscall.ENOTDIR):
		advice = "move the file away that stands where a directory should be"
	}
	what := "cannot use " + path
	var cause *fs.PathError
	if errors.As(err, &cause) {
		if cause.Path != path {
			what += " because of " + cause.Path
		}
		err = cause.Err // its path stands in the text already
	}
	return &ConfigError{What: what, Do: advice + ", or take another directory with --data-dir", Err: err}
}
