package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// resolve returns the absolute path of the file with every symbolic link
// followed, and creates it empty, readable by its owner alone, when it is not
// there and create is set. SQLite gives its -wal and -shm files the same mode.
func resolve(path string, create bool) (string, error) {
	switch {
	case path == "":
		return "", errors.New("no path: name a file")
	case strings.ContainsRune(path, 0):
		return "", errors.New("the path has a NUL byte")
	case path == ":memory:" || strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf("%q is not a path: name a file on a local disk", path)
	}
	for _, suffix := range [...]string{"-wal", "-shm", "-journal"} {
		if strings.HasSuffix(path, suffix) {
			// Empty ones look like a new database.
			return "", fmt.Errorf("%q is the name of a file that belongs to a database: use another", path)
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("the folder %q does not exist: create it first: %w", filepath.Dir(path), fs.ErrNotExist)
	case err != nil:
		return "", err
	}
	path = filepath.Join(parent, filepath.Base(path))
	full, err := filepath.EvalSymlinks(path)
	switch {
	case err == nil:
		path = full
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	case !create:
		return "", fmt.Errorf("%q does not exist: %w", path, fs.ErrNotExist)
	default:
		if err := createEmpty(path); err != nil {
			return "", err
		}
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case info.IsDir():
		return "", fmt.Errorf("%q is a folder: name a file in it", path)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%q is not a regular file", path)
	case links(info) > 1:
		// The log belongs to a name: opened by two, each would have its own,
		// and the file would be destroyed (sqlite.org/howtocorrupt.html, 2.5).
		return "", fmt.Errorf("%q has %d names (hard links): remove all but one", path, links(info))
	}
	return path, refuseNetwork(path)
}

// createEmpty creates the file. An existing one is never opened here: closing a
// descriptor of it would drop the locks that SQLite holds on it in this process
// (fcntl(2)). For the same reason the caller holds the package's opening mutex.
func createEmpty(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// SameFile reports whether two paths lead to the same file, through symbolic
// and hard links too. A file that does not exist is the same as none.
func SameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// openError classifies an error of opening; a context that has ended is the
// caller's own doing.
func openError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return Classify(err)
}
