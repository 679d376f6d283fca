package sqlitefile

import (
	"errors"
	"io/fs"
	"os"

	"github.com/queue-runtime/queue/driver"
)

// identity is a file as the system knows it, whatever its name.
type identity struct {
	path string
	info fs.FileInfo
}

// identify returns the identities of the file and of its log, which exists while
// the file is open.
func identify(path string) ([]identity, error) {
	var all []identity
	for _, p := range [...]string{path, path + "-wal"} {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		all = append(all, identity{p, info})
	}
	return all, nil
}

// inPlace fails when the file or its log is no longer what its path leads to.
// SQLite does not notice: it would go on writing, and confirm, what is gone with
// the last process that has it open (sqlite.org/howtocorrupt.html, 2.4). Looking
// takes some microseconds. What happens to the file after the look and before
// the commit is not seen by this one, but by the next.
func (f *File) inPlace() error {
	for _, o := range f.opened {
		info, err := os.Stat(o.path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, o.info) {
			return driver.Errorf(driver.Corrupt, "%q was removed or replaced while it was open: nothing more is written to it; put it back, or open the file anew", o.path)
		}
	}
	return nil
}
