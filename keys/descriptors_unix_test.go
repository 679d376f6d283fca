//go:build unix

package keys

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// withoutDescriptors calls f while the process can open no file.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}()
	f()
}

// A process that has run out of descriptors goes on with the keys that it knows, says why it
// reads no others, and reads them as soon as it can.
func TestNoDescriptorsLeft(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "keys.json"), filepath.Join(dir, "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	add := func(id ID) {
		t.Helper()
		if err := UpdateFile(file, func(s *Set) error { s.Current, s.Keys = id, append(s.Keys, testKey(t, id, id[0])); return nil }); err != nil {
			t.Fatal(err)
		}
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(id), Size)))
		if err := os.WriteFile(filepath.Join(folder, string(id)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add("a")
	o := &FileOptions{CheckEvery: 1}
	fromFile, err := OpenFile(file, o)
	if err != nil {
		t.Fatal(err)
	}
	fromFolder, err := OpenFolder(folder, o)
	if err != nil {
		t.Fatal(err)
	}
	type provider interface {
		Provider
		Err() error
	}
	check := func(p provider, current ID, why error) {
		t.Helper()
		if _, err := p.GetKey(t.Context(), "a"); err != nil {
			t.Errorf("%T: the known key: %v", p, err)
		}
		if id, err := p.CurrentKeyID(t.Context()); id != current || err != nil {
			t.Errorf("%T: current %q, %v; want %q", p, id, err, current)
		}
		if err := p.Err(); !errors.Is(err, why) || why != nil && !errors.Is(err, ErrUnavailable) {
			t.Errorf("%T: Err %v, want %v", p, err, why)
		}
	}
	add("b")
	withoutDescriptors(t, func() {
		check(fromFile, "a", syscall.EMFILE)
		check(fromFolder, "a", syscall.EMFILE)
		called := false
		err := UpdateFile(file, func(*Set) error { called = true; return nil })
		if called || !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EMFILE) {
			t.Errorf("UpdateFile: %v, called %t; want %v", err, called, syscall.EMFILE)
		}
	})
	check(fromFile, "b", nil)
	check(fromFolder, "b", nil)
}
