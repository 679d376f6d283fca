package connect

import (
	"cmp"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ErrWithinReach means that a replay store is stored where the operator of the
// broker controls it too.
var ErrWithinReach = errors.New("the replay store is within the broker's reach")

// The advice of an ErrWithinReach.
const (
	ownFile     = "use a file of its own, in a folder where the broker's operator cannot write"
	ownDatabase = "use a database of its own, or set trust_database_operators=true in the replay store's URL if they may"
)

// CheckReach fails with [ErrWithinReach] if the URLs of a broker and of a replay
// store lead to one file or to one database. It follows links and compares files as the
// system does; databases by the text of their URLs, and [Open] and queue.New by what the
// server says. An empty URL, an invalid one, a store in this process and one with
// trust_database_operators=true pass. CheckReach cannot see what else the two share, such
// as a disk or an administrator.
func CheckReach(broker, replayStore string) error {
	b, berr := parse("broker", broker, "")
	r, rerr := parse("replay store", replayStore, "")
	if broker == "" || replayStore == "" || berr != nil || rerr != nil {
		return nil // opening them reports the error
	}
	if isPostgres(broker) && isPostgres(replayStore) {
		if sameDatabase(b, r) && r.Query().Get("trust_database_operators") != "true" {
			return within(ownDatabase)
		}
		return nil
	}
	if schemeOf(broker) != "sqlite" || schemeOf(replayStore) != "sqlite" {
		return nil
	}
	brokerPath, berr := filePath(b)
	storePath, rerr := filePath(r)
	if berr != nil || rerr != nil {
		return nil
	}
	if sameFile(brokerPath, storePath) {
		return within(ownFile)
	}
	return nil
}

func isPostgres(rawURL string) bool {
	scheme := schemeOf(rawURL)
	return scheme == "postgres" || scheme == "postgresql"
}

// sameDatabase reports whether two URLs name one database, as far as their text tells.
func sameDatabase(a, b *url.URL) bool {
	place := func(u *url.URL) string {
		q := u.Query()
		return strings.ToLower(cmp.Or(q.Get("host"), u.Hostname())) + " " + cmp.Or(q.Get("port"), u.Port(), "5432") + " " + strings.Trim(u.Path, "/")
	}
	return place(a) == place(b)
}

func within(advice string) error {
	return &reachError{advice}
}

type reachError struct{ advice string }

func (e *reachError) Error() string {
	return "connect: " + ErrWithinReach.Error() + ", and the broker's operator could delete it and replay messages: " + e.advice
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
