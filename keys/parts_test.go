package keys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSnapshotSame: each thing by which a file is told from the one before it, alone.
func TestSnapshotSame(t *testing.T) {
	dir := t.TempDir()
	long := time.Now().Add(-time.Hour)
	stamp := func(name, text string, mode os.FileMode, at time.Time) fileStamp {
		t.Helper()
		path := filepath.Join(dir, name)
		for _, err := range []error{os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode), os.Chtimes(path, at, at)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return fileStamp{path, info}
	}
	a := stamp("a", "text", 0o600, long)
	s := snapshot{files: []fileStamp{a}, at: time.Now()}
	renamed := a
	renamed.name = "other"
	b := stamp("b", "text", 0o600, long)
	b.name = a.name
	for name, c := range map[string]struct {
		now  fileStamp
		want bool
	}{
		"the same":           {a, true},
		"another name":       {renamed, false},
		"another file":       {b, false},
		"another size":       {stamp("a", "text and more", 0o600, long), false},
		"another mode":       {stamp("a", "text", 0o400, long), false},
		"another time":       {stamp("a", "text", 0o600, long.Add(time.Second)), false},
		"as it was at first": {stamp("a", "text", 0o600, long), true},
	} {
		if got := s.same(snapshot{files: []fileStamp{c.now}}); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if s.same(snapshot{}) || s.same(snapshot{files: []fileStamp{a, a}}) {
		t.Error("another number of files is the same")
	}
	for since, want := range map[time.Duration]bool{settled: false, settled + 1: true} {
		s.at = a.info.ModTime().Add(since)
		if got := s.same(snapshot{files: []fileStamp{a}}); got != want {
			t.Errorf("changed %s before it was read: %v, want %v", since, got, want)
		}
	}
	f := &File{look: func() (snapshot, error) { return snapshot{files: []fileStamp{a}}, errors.New("away") }, read: s}
	if f.read.at = time.Now(); f.unchanged() {
		t.Error("a file that cannot be looked at counts as unchanged")
	}
}

// TestFolderKeyAlone: what one file of a folder may hold.
func TestFolderKeyAlone(t *testing.T) {
	secret := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", Size)))
	for name, c := range map[string]struct {
		id   ID
		text string
		ok   bool
	}{
		"a secret":               {"k1", secret, true},
		"a line end":             {"k1", secret + "\r\n", true},
		"a key":                  {"k1", `{"id": "k1", "secret": "` + secret + `"}`, true},
		"a key, and a line end":  {"k1", `{"id": "k1", "secret": "` + secret + `"}` + "\n", true},
		"a key, and more":        {"k1", `{"id": "k1", "secret": "` + secret + `"} {}`, false},
		"another key":            {"k1", `{"id": "k2", "secret": "` + secret + `"}`, false},
		"half a key":             {"k1", `{"id": "k1"`, false},
		"nothing":                {"k1", "", false},
		"a line end alone":       {"k1", "\n", false},
		"a line end in a secret": {"k1", secret[:8] + "\n" + secret[8:], false},
		"no base64":              {"k1", strings.Repeat("!", len(secret)), false},
		"a short secret":         {"k1", "AAAA", false},
		"a name that is no ID":   {"k 1", secret, false},
	} {
		k, err := parseFolderKey(c.id, []byte(c.text))
		if (err == nil) != c.ok || (k != nil) != c.ok || err != nil && !errors.Is(err, ErrInvalidKey) {
			t.Errorf("%s: %v, %v; want that it is accepted: %v", name, k, err, c.ok)
		}
		if k != nil && k.ID() != c.id {
			t.Errorf("%s: key %q", name, k.ID())
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error repeats the secret", name)
		}
	}
}

// TestFolderThatCannotBeRead: the error says why, and the path once.
func TestFolderThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{filepath.Join(dir, "none"): "no such file", file: "not a folder"} {
		_, err := OpenFolder(path, nil)
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, errChanged) || !strings.Contains(err.Error(), says) || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%v: want %q, and the path once", err, says)
		}
	}
	links := filepath.Join(dir, "links")
	for _, err := range []error{os.Mkdir(links, 0o700), os.Symlink(filepath.Join(dir, "none"), filepath.Join(links, "k1"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenFolder(links, nil); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a link to nothing: %v", err)
	}
	if _, err := OpenFile(filepath.Join(dir, "none"), nil); !errors.Is(err, ErrUnavailable) || strings.Count(err.Error(), dir) != 1 {
		t.Errorf("%v: want the path once", err)
	}
	// The file that names the current key is open to all: nothing of the folder is believed.
	folder := filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	secret := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", Size)))
	for name, text := range map[string]string{"k1": secret, "current": "k1"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(folder, "current"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(folder, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a current file that all may write: %v", err)
	}
}

// TestFolderIsReadAgain as long as it changes, but not without end.
func TestFolderIsReadAgain(t *testing.T) {
	for _, want := range []int{1, 2, folderTries, 100} {
		n := 0
		set, _, err := whileChanging(func() (*Set, snapshot, error) {
			if n++; n < want {
				return nil, snapshot{}, fmt.Errorf("%w: %d", errChanged, n)
			}
			return new(Set), snapshot{}, nil
		})
		if n != min(want, folderTries) || (set != nil) != (want <= folderTries) || errors.Is(err, errChanged) != (want > folderTries) {
			t.Errorf("it changes until reading %d: read %d times, %v, %v", want, n, set, err)
		}
	}
}

// TestReloadDestroys what it read and does not give out: the keys of a state that is refused, and
// copies of known ones. A known key that its user destroyed is given out anew.
func TestReloadDestroys(t *testing.T) {
	known := testKey(t, "a", 1)
	known.Confirm()
	set := &Set{Keys: []*Key{known}}
	f, err := follow(&FileOptions{CheckEvery: 1}, "test",
		func() (*Set, snapshot, error) { return set, snapshot{}, nil },
		func() (snapshot, error) { return snapshot{}, errors.New("away") })
	if err != nil {
		t.Fatal(err)
	}
	given := func() *Key {
		k, err := f.GetKey(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	set = &Set{Keys: []*Key{testKey(t, "b", 2), testKey(t, "a", 9)}} // another secret under a confirmed ID
	if k := given(); k != known || k.Err() != nil || f.Err() == nil {
		t.Errorf("a refused state: key %v (%v), Err %v; want the known key and an error", k, k.Err(), f.Err())
	}
	for _, k := range set.Keys {
		if k.Err() == nil {
			t.Errorf("%s of a refused state lives", k)
		}
	}
	set = &Set{Keys: []*Key{testKey(t, "a", 1)}}
	if k := given(); k != known || k.Err() != nil || set.Keys[0].Err() == nil {
		t.Errorf("the same key again: %v (%v), the copy %v; want the known key, and the copy destroyed", k, k.Err(), set.Keys[0].Err())
	}
	known.Destroy()
	set = &Set{Keys: []*Key{testKey(t, "a", 1)}}
	if k := given(); k == known || k.Err() != nil {
		t.Errorf("a known key that was destroyed: %v (%v), want the one that was read", k, k.Err())
	}
}

// TestFolderIsBounded: maxFolder files with the folder itself, and no more; a folder that was
// read knows when.
func TestFolderIsBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range maxFolder - 1 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	r := folderReader{path: dir}
	if s, err := r.look(); err != nil || len(s.files) != maxFolder {
		t.Errorf("%d files: %v", len(s.files), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "more"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.look(); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("one more: %v", err)
	}
	small := t.TempDir()
	secret := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", Size)))
	if err := os.WriteFile(filepath.Join(small, "k1"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	_, read, err := folderReader{path: small}.load()
	if err != nil || read.at.Before(before) || read.at.After(time.Now()) {
		t.Errorf("read at %s, %v", read.at, err)
	}
}

// TestFilesAreClosed: reading and replacing key files leaves no descriptor open.
func TestFilesAreClosed(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("descriptors are counted in /proc")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // no finalizer closes them
	open := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	k := testKey(t, "a", 1)
	before := open()
	for range 20 {
		if err := UpdateFile(path, func(s *Set) error { s.Current, s.Keys = "a", []*Key{k}; return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(path, nil); err != nil {
			t.Fatal(err)
		}
	}
	if after := open(); after > before+5 {
		t.Errorf("%d descriptors are open, and %d were before", after, before)
	}
}

// TestNamesOfVariables has the characters at the ends of each range.
func TestNamesOfVariables(t *testing.T) {
	for _, r := range "_09AZaz" {
		if notInName(r) {
			t.Errorf("%q is refused", r)
		}
	}
	for _, r := range "/:@[`{-= \u00e4" {
		if !notInName(r) {
			t.Errorf("%q is accepted", r)
		}
	}
}

// TestAlike: each property alone tells two keys apart.
func TestAlike(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000)
	base := Key{id: "a", sender: "s", created: at, expires: at, queues: []string{"q"}}
	same := Key{id: "a", sender: "s", created: at.UTC(), expires: at.UTC(), queues: []string{"q"}}
	if !base.Alike(&same) {
		t.Error("the same is not alike")
	}
	for name, other := range map[string]*Key{
		"id":      {id: "b", sender: "s", created: at, expires: at, queues: []string{"q"}},
		"sender":  {id: "a", sender: "t", created: at, expires: at, queues: []string{"q"}},
		"created": {id: "a", sender: "s", created: at.Add(1), expires: at, queues: []string{"q"}},
		"expires": {id: "a", sender: "s", created: at, expires: at.Add(1), queues: []string{"q"}},
		"queues":  {id: "a", sender: "s", created: at, expires: at},
	} {
		if base.Alike(other) {
			t.Errorf("another %s is alike", name)
		}
	}
}

// TestUnusedSecretStaysUnconfirmed: that a secret is read again confirms nothing: another one may
// still take its ID, until one was used.
func TestUnusedSecretStaysUnconfirmed(t *testing.T) {
	ring, err := NewRing(testKey(t, "a", 1))
	if err != nil {
		t.Fatal(err)
	}
	turn := func(id ID, fill byte) error {
		t.Helper()
		if err := ring.Remove(id); err != nil {
			t.Fatal(err)
		}
		return ring.Add(testKey(t, id, fill))
	}
	for _, fill := range []byte{1, 1, 2} {
		if err := turn("a", fill); err != nil {
			t.Errorf("secret %d: %v", fill, err)
		}
	}
	k, err := ring.GetKey(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	k.Confirm()
	if err := turn("a", 2); err != nil {
		t.Errorf("the secret that was used: %v", err)
	}
	if err := turn("a", 3); !errors.Is(err, ErrInvalidKey) {
		t.Errorf("another secret than was used, although it was read again: %v", err)
	}
}

// TestFreshnessAtItsBounds: an answer is fresh before its time is over, stale before it is
// dropped, and then absent; a destroyed key is absent at once.
func TestFreshnessAtItsBounds(t *testing.T) {
	k := testKey(t, "a", 1)
	e := &entry{filled: true, value: answer{key: k}, due: 4, expires: 5, dropped: 9, retry: 7}
	for at, want := range map[moment]freshness{0: fresh, 4: fresh, 5: stale, 8: stale, 9: absent} {
		if got := e.freshness(at); got != want {
			t.Errorf("at %d: %d, want %d", at, got, want)
		}
	}
	if e.next(4) != 4 || e.next(9) != 7 {
		t.Errorf("next at %d and %d", e.next(4), e.next(9))
	}
	if e.fails = 1; e.next(4) != 7 {
		t.Errorf("after a failure next at %d, want 7", e.next(4))
	}
	k.Destroy()
	if e.freshness(0) != absent {
		t.Error("a destroyed key is given out")
	}
	if (&entry{dropped: 9, expires: 9}).freshness(0) != absent {
		t.Error("an answer that there is not is given out")
	}
}

// TestDatesOfAnswers: each kind of answer has its own time, and is fetched after four fifths of it.
func TestDatesOfAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &CachedOptions{TTL: 500 * time.Second, ListTTL: 100 * time.Second, MaxStale: time.Hour}
		ring, err := NewRing()
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCached(quick{ring}, o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close(t.Context()) }()
		key := &entry{call: callKey, id: "a", at: time.Second}
		check := func(what string, e *entry, due, expires time.Duration) {
			t.Helper()
			c.date(e, e.at)
			if e.due != e.at+due || e.expires != e.at+expires || e.dropped != e.expires+time.Hour {
				t.Errorf("%s: due %s, expires %s, dropped %s after %s; want %s, %s", what, e.due-e.at, e.expires-e.at, e.dropped-e.at, e.at, due, expires)
			}
		}
		check("a key", key, 400*time.Second, 500*time.Second)
		check("the list", c.list, 80*time.Second, 100*time.Second)
		check("the current ID", c.current, 400*time.Second, 500*time.Second)
		for left, want := range map[time.Duration][2]time.Duration{
			1000 * time.Second: {400 * time.Second, 500 * time.Second},
			200 * time.Second:  {160 * time.Second, 200 * time.Second},
			10 * time.Second:   {c.interval, 10 * time.Second},
			-time.Second:       {c.interval, c.interval},
		} {
			k, err := New("a", []byte(strings.Repeat("k", Size)), &Options{Expires: time.Now().Add(left)})
			if err != nil {
				t.Fatal(err)
			}
			c.keys["a"] = &entry{call: callKey, id: "a", filled: true, value: answer{key: k}}
			c.current.value.current = "a"
			check(fmt.Sprintf("the ID of a key that expires in %s", left), c.current, max(want[0], minRefresh), want[1])
		}
		delete(c.keys, "a")
		c.o.TTL = time.Millisecond
		check("a key of a short time", key, minRefresh, time.Millisecond)
	})
}

// TestKeptInTheBackground: an answer that was asked for within the longer of both times, and the
// list of a local provider always.
func TestKeptInTheBackground(t *testing.T) {
	ring, err := NewRing()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Provider{ring, quick{ring}} {
		c, err := NewCached(p, &CachedOptions{TTL: 5, ListTTL: 7})
		if err != nil {
			t.Fatal(err)
		}
		e := &entry{call: callKey, filled: true, used: 10}
		if !c.kept(e, 16) || c.kept(e, 17) {
			t.Error("a key is kept for another time than 7")
		}
		e.filled = false
		if c.kept(e, 10) {
			t.Error("an answer that there is not is kept")
		}
		if got := c.kept(c.list, 1000); got != c.local {
			t.Errorf("%T: the list is kept: %v", p, got)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestAtHand: a key in memory, and nothing that would have to be asked for.
func TestAtHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := NewRing(testKey(t, "a", 1))
		if err != nil {
			t.Fatal(err)
		}
		local, err := NewCached(ring, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCached(quick{ring}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = local.Close(t.Context()), c.Close(t.Context()) }()
		if local.AtHand("a") == nil || local.AtHand("b") != nil || !local.Local() {
			t.Error("a local provider answers otherwise")
		}
		if c.AtHand("a") != nil || c.Local() {
			t.Error("a key that was not fetched is at hand")
		}
		k, err := c.GetKey(t.Context(), "a")
		if err != nil || c.AtHand("a") != k || c.AtHand("b") != nil {
			t.Errorf("%v, %v is at hand", err, c.AtHand("a"))
		}
		time.Sleep(48 * time.Hour) // long past MaxStale, and not asked for
		if c.AtHand("a") != nil {
			t.Error("a key is at hand that may not be given out any more")
		}
	})
}
