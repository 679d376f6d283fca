package sqlitefile

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// identity is a file as the system knows it, whatever its name.
type identity struct {
	path string
	info fs.FileInfo
}

// identify returns the identities of the file, of its log and of the log's index,
// which exist while the file is open.
func identify(path string) ([]identity, error) {
	var all []identity
	for _, p := range [...]string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(p)
		if err != nil {
			return nil, err
		}
		all = append(all, identity{p, info})
	}
	return all, nil
}

// inPlace fails when one of these is no longer what its path leads to. SQLite does
// not notice: it would go on writing, and confirm, what is gone with the last
// process that has it open, or what clashes with another's log
// (sqlite.org/howtocorrupt.html, 2.4). Looking takes some microseconds. What
// happens after the look and before the commit is seen by the next one only.
func (f *File) inPlace() error {
	now := time.Now()
	for _, o := range f.opened {
		info, err := os.Stat(o.path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, o.info) {
			return driver.Errorf(driver.Corrupt, "%q was removed or replaced while it was open: nothing more is written to it; put it back, or open the file anew", o.path)
		}
	}
	f.looked.Store(&now)
	return nil
}

// lookEvery is how often what confirms nothing looks at the file's place.
const lookEvery = 100 * time.Millisecond

// lately is inPlace for reads and for writes that a crash of the machine may undo: they
// rely on a look that is not older than lookEvery.
func (f *File) lately() error {
	if last := f.looked.Load(); last != nil && time.Since(*last) < lookEvery {
		return nil
	}
	return f.inPlace()
}
