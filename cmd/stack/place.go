package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// place is the directory that holds the cluster, and the user who runs it.
type place struct {
	home string
	user account
}

// homePattern is the name of a home outside of the data directory. It is random,
// so that a data directory that was removed and made anew never meets the data of
// the old one.
var homePattern = regexp.MustCompile(`^[0-9a-f]{16}$`)

const homeNameBytes = 8 // of randomness

// placeCluster decides where PostgreSQL's data lies and who runs it, once: a
// later start finds the same place.
func (s *Stack) placeCluster(sys system) (place, error) {
	home, err := s.enterHome()
	if err != nil {
		return place{}, err
	}
	data := filepath.Join(home, clusterName)
	if _, err := os.Stat(data); err == nil {
		return existingPlace(home, data)
	}
	if os.Geteuid() != 0 {
		return place{home: home}, nil
	}
	runner, err := serverAccount()
	if err != nil {
		return place{}, err
	}
	if home == s.dir.path {
		if home, err = s.chooseHome(sys, runner); err != nil {
			return place{}, err
		}
	}
	return place{home: home, user: runner}, nil
}

// existingPlace is that of a cluster which an earlier start has made.
func existingPlace(home, data string) (place, error) {
	owner, err := ownerAccount(data)
	if err != nil {
		return place{}, err
	}
	if owner.other && !owner.reaches(home) {
		return place{}, &ConfigError{
			What: fmt.Sprintf("user %s, who runs PostgreSQL, cannot reach its data in %s", owner.name, data),
			Do:   "let that user pass the directories above it (chmod a+x), or take another directory with --data-dir",
		}
	}
	return place{home: home, user: owner}, nil
}

// enterHome returns the data directory, or the place outside of it that an earlier
// start of root's recorded. That one is locked too: a copy of the data directory
// names the same place, and must not run a second PostgreSQL there.
func (s *Stack) enterHome() (string, error) {
	record := s.dir.record()
	text, err := os.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) {
		return s.dir.path, nil
	}
	if err != nil {
		return "", unusable(record, err)
	}
	home := strings.TrimSpace(string(text))
	if !filepath.IsAbs(home) || !homePattern.MatchString(filepath.Base(home)) {
		return "", &ConfigError{
			What: fmt.Sprintf("%s names %q, which is no place that stampede made", record, home),
			Do:   "write the right one back, or take another directory with --data-dir",
		}
	}
	if _, err := os.Stat(home); err != nil {
		return "", &ConfigError{
			What: fmt.Sprintf("PostgreSQL's data, which %s says is in %s, cannot be reached", record, home),
			Do:   "put it back, or start as the user who made it, or take another directory with --data-dir",
			Err:  err,
		}
	}
	return home, s.lockHome(home)
}

func (s *Stack) lockHome(home string) error {
	held, err := acquire(home)
	if err != nil {
		return err
	}
	s.locks = append(s.locks, held)
	return nil
}

// chooseHome picks the place of root's new cluster: the data directory when the
// user who runs PostgreSQL can get there, else a new one below sys.outside.
func (s *Stack) chooseHome(sys system, runner account) (string, error) {
	path := s.dir.path
	if s.dir.created && runner.reaches(filepath.Dir(path)) {
		// Private still: only that user's group may pass, and nobody may look.
		if err := errors.Join(os.Chown(path, 0, int(runner.gid)), os.Chmod(path, 0o710)); err != nil {
			return "", unusable(path, err)
		}
	}
	if runner.reaches(path) {
		return path, nil
	}
	home := filepath.Join(sys.outside, randomHex(homeNameBytes))
	for _, dir := range []string{sys.outside, home} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return "", unusable(dir, err)
		}
		if err := os.Chmod(dir, 0o711); err != nil { // whatever the umask took away
			return "", unusable(dir, err)
		}
	}
	// Recorded before anything lies there: no data is ever lost sight of.
	if err := writeFile(s.dir.record(), home+"\n"); err != nil {
		return "", unusable(s.dir.record(), err)
	}
	return home, s.lockHome(home)
}
