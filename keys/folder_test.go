package keys_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

// mounted is a folder as the kubelet lays a Secret out: each name is a link to ..data/NAME,
// and ..data is a link to the folder of one state, which a rename swaps.
type mounted struct {
	t     *testing.T
	path  string
	state int
}

func (m *mounted) swap(files map[string]string, mode fs.FileMode) {
	m.t.Helper()
	m.state++
	target := fmt.Sprintf("..2026_01_31_%d", m.state)
	do := func(err error) {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
	}
	do(os.MkdirAll(filepath.Join(m.path, target), 0o755))
	for name, text := range files {
		path := filepath.Join(m.path, target, name)
		do(os.WriteFile(path, []byte(text), mode))
		do(os.Chmod(path, mode)) // whatever the umask
		if link := filepath.Join(m.path, name); !exists(link) {
			do(os.Symlink(filepath.Join("..data", name), link))
		}
	}
	old, _ := os.Readlink(filepath.Join(m.path, "..data"))
	next := filepath.Join(m.path, "..data_tmp")
	do(os.Symlink(target, next))
	do(os.Rename(next, filepath.Join(m.path, "..data")))
	if old != "" {
		do(os.RemoveAll(filepath.Join(m.path, old)))
	}
	names, err := os.ReadDir(m.path)
	do(err)
	for _, e := range names {
		if _, ok := files[e.Name()]; !ok && !strings.HasPrefix(e.Name(), ".") {
			do(os.Remove(filepath.Join(m.path, e.Name())))
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func text(fill byte) string { return base64.StdEncoding.EncodeToString(secret(fill)) }

// contentFiles are the files of a keytest.Content: those with times as in a key file.
func contentFiles(c keytest.Content) map[string]string {
	files := map[string]string{"current": string(c.Current) + "\n"}
	for _, m := range c.Keys {
		s := base64.StdEncoding.EncodeToString(m.Secret)
		if !m.Created.IsZero() || !m.Expires.IsZero() {
			s = fmt.Sprintf(`{"id": %q, "secret": %q`, m.ID, s)
			for name, at := range map[string]time.Time{"created": m.Created, "expires": m.Expires} {
				if !at.IsZero() {
					s += fmt.Sprintf(`, %q: %q`, name, at.UTC().Format(time.RFC3339Nano))
				}
			}
			s += "}"
		}
		files[string(m.ID)] = s + "\n"
	}
	return files
}

func TestFolderSuite(t *testing.T) {
	keytest.Run(t, keytest.Options{Open: func(t *testing.T, c keytest.Content) keytest.Backing {
		m := &mounted{t: t, path: t.TempDir()}
		m.swap(contentFiles(c), 0o400)
		f, err := keys.OpenFolder(m.path, &keys.FileOptions{CheckEvery: 1})
		must(t, err)
		return keytest.Backing{
			Provider: f,
			Replace: func(c keytest.Content) error {
				m.swap(contentFiles(c), 0o400)
				return f.Err()
			},
			Break: func(broken bool) {
				from, to := m.path, m.path+".gone"
				if !broken {
					from, to = to, from
				}
				must(t, os.Rename(from, to))
			},
		}
	}})
}

// TestFolderSwap rotates as the kubelet does, with the file that names the current key
// and without.
func TestFolderSwap(t *testing.T) {
	m := &mounted{t: t, path: t.TempDir()}
	current := func(f *keys.Folder) keys.ID {
		t.Helper()
		id, err := f.CurrentKeyID(t.Context())
		if err != nil && !errors.Is(err, keys.ErrNotFound) {
			t.Fatal(err)
		}
		return id
	}
	m.swap(map[string]string{"orders-9": text('a')}, 0o400)
	f, err := keys.OpenFolder(m.path, &keys.FileOptions{CheckEvery: 1})
	must(t, err)
	first, err := f.GetKey(t.Context(), "orders-9")
	must(t, err)
	if id := current(f); id != "orders-9" {
		t.Errorf("current: %q, want the only one", id)
	}
	m.swap(map[string]string{"orders-9": text('a'), "orders-10": text('b')}, 0o400)
	if id := current(f); id != "orders-10" {
		t.Errorf("current: %q, want the last by name", id)
	}
	if again, err := f.GetKey(t.Context(), "orders-9"); again != first || err != nil {
		t.Errorf("the kept key is another: %v, %v", again, err)
	}
	m.swap(map[string]string{"orders-9": text('a'), "orders-10": text('b'), "current": "orders-9"}, 0o400)
	if id := current(f); id != "orders-9" {
		t.Errorf("current: %q, want what the file says", id)
	}
	m.swap(map[string]string{"orders-9": text('a'), "current": "\n"}, 0o400)
	if id := current(f); id != "" {
		t.Errorf("current: %q, want none", id)
	}
	m.swap(map[string]string{"orders-10": text('b')}, 0o400)
	if ids, err := f.ValidKeyIDs(t.Context()); err != nil || !slices.Equal(ids, []keys.ID{"orders-10"}) || first.Err() == nil {
		t.Errorf("%v, %v; the key that is gone: %v; want it destroyed", ids, err, first.Err())
	}
}

// TestFileOfAMountedSecret: a key file that is an entry of a Secret follows its swaps.
func TestFileOfAMountedSecret(t *testing.T) {
	modes := []fs.FileMode{0o400}
	if os.Geteuid() == 0 { // the kubelet's for a Pod with a group: only root can make such files
		modes = append(modes, 0o440)
	}
	for _, mode := range modes {
		m := &mounted{t: t, path: t.TempDir()}
		m.swap(map[string]string{"keys.json": document("a")}, mode)
		f := open(t, filepath.Join(m.path, "keys.json"), &keys.FileOptions{CheckEvery: 1})
		for _, want := range []string{"b", "c"} {
			m.swap(map[string]string{"keys.json": document(want, "a")}, mode)
			if id, err := f.CurrentKeyID(t.Context()); string(id) != want || err != nil {
				t.Errorf("mode %v: current: %q, %v; want %s", mode, id, err, want)
			}
		}
	}
}

// TestFolderKeepsWhatItHas: a state that cannot be used changes nothing, and is told.
func TestFolderKeepsWhatItHas(t *testing.T) {
	good := map[string]string{"a": text('a'), "b": text('b')}
	with := func(name, content string) map[string]string {
		return map[string]string{"a": text('a'), "b": text('b'), name: content}
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		mode  fs.FileMode
		says  string
	}{
		{"open to all", good, 0o444, "mode 0444"},
		{"no key", with("webhook-secret", "correct horse"), 0o400, "webhook-secret"},
		{"short", with("c", base64.StdEncoding.EncodeToString([]byte("short"))), 0o400, "/c: "},
		{"broken over lines", with("c", text('c')[:20]+"\n"+text('c')[20:]), 0o400, "/c: "},
		{"another ID inside", with("c", fmt.Sprintf(`{"id": "d", "secret": %q}`, text('c'))), 0o400, "name the file so"},
		{"not an ID", with("c d", text('c')), 0o400, "must be the ID"},
		{"current is not there", with("current", "z"), 0o400, "not among the keys"},
		{"a secret in the place of current", with("current", text('a')), 0o400, "nothing else"},
		{"another secret", map[string]string{"a": text('x')}, 0o400, "a named another secret"},
		{"empty", map[string]string{}, 0o400, "no keys"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &mounted{t: t, path: t.TempDir()}
			m.swap(good, 0o400)
			var told []error
			f, err := keys.OpenFolder(m.path, &keys.FileOptions{CheckEvery: 1, OnError: func(err error) { told = append(told, err) }})
			must(t, err)
			a, err := f.GetKey(t.Context(), "a")
			must(t, err)
			a.Confirm() // a message opened under it
			m.swap(c.files, c.mode)
			if k, err := f.GetKey(t.Context(), "a"); err != nil || k.Err() != nil {
				t.Errorf("the known key: %v, %v", k, err)
			}
			if id, err := f.CurrentKeyID(t.Context()); id != "b" || err != nil {
				t.Errorf("current: %q, %v", id, err)
			}
			if len(told) != 1 || !strings.Contains(told[0].Error(), c.says) || strings.Contains(told[0].Error(), text('a')) || strings.Contains(told[0].Error(), "horse") {
				t.Errorf("told %v; want once %q and no content", told, c.says)
			}
			if err := f.Err(); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("Err: %v; want %q", err, c.says)
			}
			if _, err := keys.OpenFolder(m.path, nil); err == nil && c.name != "another secret" {
				t.Error("such a folder opens")
			}
			m.swap(good, 0o400)
			if err := f.Err(); err != nil {
				t.Errorf("repaired: %v", err)
			}
		})
	}
}

func TestFolderWorldReadable(t *testing.T) {
	m := &mounted{t: t, path: t.TempDir()}
	m.swap(map[string]string{"a": text('a')}, 0o444)
	if _, err := keys.OpenFolder(m.path, nil); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("without the option: %v", err)
	}
	if _, err := keys.OpenFolder(m.path, &keys.FileOptions{WorldReadable: true}); err != nil {
		t.Errorf("with the option: %v", err)
	}
	path := filepath.Join(m.path, "keys.json")
	write(t, path, document("a"))
	must(t, os.Chmod(path, 0o444))
	if _, err := keys.OpenFile(path, nil); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("a file without the option: %v", err)
	}
	if _, err := keys.OpenFile(path, &keys.FileOptions{WorldReadable: true}); err != nil {
		t.Errorf("a file with the option: %v", err)
	}
	must(t, os.Chmod(path, 0o466))
	if _, err := keys.OpenFile(path, &keys.FileOptions{WorldReadable: true}); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("a file that others may write: %v", err)
	}
}

// TestFolderPlain: without ..data the files of the folder itself are read.
func TestFolderPlain(t *testing.T) {
	dir := t.TempDir()
	if _, err := keys.OpenFolder(filepath.Join(dir, "none"), nil); !errors.Is(err, keys.ErrUnavailable) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
	write(t, filepath.Join(dir, "a"), text('a')+"\r\n")
	write(t, filepath.Join(dir, ".hidden"), "passed over")
	f, err := keys.OpenFolder(dir, &keys.FileOptions{CheckEvery: 1})
	must(t, err)
	if id, err := f.CurrentKeyID(t.Context()); id != "a" || err != nil {
		t.Errorf("current: %q, %v", id, err)
	}
	write(t, filepath.Join(dir, "b"), text('b'))
	if id, err := f.CurrentKeyID(t.Context()); id != "b" || err != nil {
		t.Errorf("current: %q, %v", id, err)
	}
	if _, err := keys.OpenFolder(filepath.Join(dir, "a"), nil); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("a file: %v", err)
	}
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	if _, err := keys.OpenFolder(dir, nil); !errors.Is(err, keys.ErrInvalidKey) || !strings.Contains(err.Error(), "sub is a folder") {
		t.Errorf("a folder in it: %v", err)
	}
}

// TestFolderSwappedWhileInUse: readers see one state or the other, never a mixture, and no
// key that is gone before its time.
func TestFolderSwappedWhileInUse(t *testing.T) {
	m := &mounted{t: t, path: t.TempDir()}
	states := []map[string]string{{"a": text('a'), "current": "a"}, {"a": text('a'), "b": text('b'), "current": "b"}}
	m.swap(states[0], 0o400)
	f, err := keys.OpenFolder(m.path, &keys.FileOptions{CheckEvery: 1, OnError: func(err error) { t.Errorf("told %v", err) }})
	must(t, err)
	done, tick := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := range 60 {
			<-tick // not so often that no state lasts for one read
			m.swap(states[(i+1)%2], 0o400)
		}
	}()
	for {
		select {
		case tick <- struct{}{}:
		case <-done:
			return
		default:
		}
		if k, err := f.GetKey(t.Context(), "a"); err != nil || k.Err() != nil {
			t.Errorf("key %v, %v; want it usable", k, err)
			break
		}
		if id, err := f.CurrentKeyID(t.Context()); err != nil || id != "a" && id != "b" {
			t.Errorf("%q, %v", id, err)
			break
		}
	}
	for { // let it end
		select {
		case tick <- struct{}{}:
		case <-done:
			return
		}
	}
}
