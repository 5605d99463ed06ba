package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const (
	logBytesMax  = 16 << 20 // a larger log is set aside as .1 at the next start
	tailBytesMax = 8 << 10
	tailLinesMax = 10
)

// logMark is the place in a log at which the output of one run begins, so that
// the reason of an older failure is never told as that of this one.
type logMark struct {
	path   string
	offset int64
}

// openLog opens a server's log for appending.
func openLog(path string) (*os.File, logMark, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > logBytesMax {
		err = os.Rename(path, path+".1")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, logMark{}, unusable(path, err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, logMark{}, unusable(path, err)
	}
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, logMark{}, errors.Join(fmt.Errorf("open %s: %w", path, err), file.Close())
	}
	return file, logMark{path: path, offset: end}, nil
}

// tail returns the last lines since the mark; none when the log cannot be read,
// for it only decorates an error that is already being told.
func (m logMark) tail() []string {
	file, err := os.Open(m.path)
	if err != nil {
		return nil
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return nil
	}
	from := max(m.offset, info.Size()-tailBytesMax)
	text, err := io.ReadAll(io.NewSectionReader(file, from, tailBytesMax))
	if err != nil {
		return nil
	}
	return lastLines(text)
}

func lastLines(text []byte) []string {
	text = bytes.TrimSpace(text)
	if len(text) == 0 {
		return nil
	}
	lines := strings.Split(string(text), "\n")
	return lines[max(0, len(lines)-tailLinesMax):]
}
