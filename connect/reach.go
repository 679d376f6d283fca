package connect

import (
	"errors"
	"os"
	"path/filepath"
)

// ErrWithinReach says that a replay store lies where whoever controls the broker
// controls it, too.
var ErrWithinReach = errors.New("the replay store is within the broker's reach")

// CheckReach fails with [ErrWithinReach] where both URLs lead to one file or one
// server. Paths are followed through links, and files are compared as the system
// knows them. It passes where nonces is empty or lies in this process. What it
// cannot see (one disk, one administrator) is for the operator to judge.
func CheckReach(queue, nonces string) error {
	q, qerr := parse("broker", queue, "")
	n, nerr := parse("nonces", nonces, "")
	if queue == "" || nonces == "" || qerr != nil || nerr != nil {
		return nil // opening them says what is wrong
	}
	if schemeOf(queue) != "sqlite" || schemeOf(nonces) != "sqlite" {
		return nil
	}
	qp, qerr := filePath(q)
	np, nerr := filePath(n)
	if qerr != nil || nerr != nil {
		return nil
	}
	if sameFile(qp, np) {
		return within("use a file of its own, where the queue's owner cannot write")
	}
	return nil
}

func within(advice string) error {
	return &reachError{advice}
}

type reachError struct{ advice string }

func (e *reachError) Error() string {
	return "connect: " + ErrWithinReach.Error() + ", who could make it forget and then replay: " + e.advice
}

func (e *reachError) Is(target error) bool { return target == ErrWithinReach }

// sameFile reports whether two paths lead to one file, whether or not it exists
// yet. SQLite's own files beside it (-wal, -shm, -journal) count as part of it.
func sameFile(a, b string) bool {
	if a, aerr := os.Stat(a); aerr == nil {
		if b, berr := os.Stat(b); berr == nil {
			return os.SameFile(a, b)
		}
	}
	a, b = resolve(a, maxLinks), resolve(b, maxLinks)
	for _, tail := range []string{"", "-wal", "-shm", "-journal"} {
		if a+tail == b || b+tail == a {
			return true
		}
	}
	return false
}

// maxLinks is how many links to follow: more is a loop.
const maxLinks = 40

// resolve returns the path without links, as far as it exists.
func resolve(path string, links int) string {
	abs, err := filepath.Abs(path)
	if err != nil || links == 0 {
		return path
	}
	if full, err := filepath.EvalSymlinks(abs); err == nil {
		return full
	}
	dir, file := filepath.Dir(abs), filepath.Base(abs)
	if target, err := os.Readlink(abs); err == nil { // a link to what does not exist yet
		if !filepath.IsAbs(target) {
			target = filepath.Join(dir, target)
		}
		return resolve(target, links-1)
	}
	if dir == abs {
		return abs
	}
	return filepath.Join(resolve(dir, links), file)
}
