package keys

import (
	"bytes"
	"encoding/base64"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// mask hides the text that a test looks for in its own memory.
const mask = 0x55

// masked returns how a key file writes the secret of k, masked.
func masked(t *testing.T, k *Key) []byte {
	t.Helper()
	text := make([]byte, base64.StdEncoding.EncodedLen(Size))
	if err := k.with(func(secret *[Size]byte) error {
		base64.StdEncoding.Encode(text, secret[:])
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i := range text {
		text[i] ^= mask
	}
	return text
}

// inMemory returns how often a masked text is on the heap, garbage included.
func inMemory(t *testing.T, text []byte) int {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "heap"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	debug.WriteHeapDump(f.Fd())
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	found, kept := 0, 0
	for {
		n, err := f.Read(window[kept:])
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		dump := window[:kept+n]
		for i := 0; i+len(text) <= len(dump); i++ {
			next := bytes.IndexByte(dump[i:], text[0]^mask)
			if i += next; next < 0 || i+len(text) > len(dump) {
				break
			}
			n := 1
			for n < len(text) && dump[i+n]^mask == text[n] {
				n++
			}
			if n == len(text) {
				found++
			}
		}
		if err == io.EOF {
			return found
		}
		kept = copy(window, dump[max(0, len(dump)-len(text)+1):])
	}
}

// window is what inMemory sees of a dump at once: a dump that was read as a whole would be in
// the next one.
var window = make([]byte, 1<<20)

// No buffer of a key file is left in memory with a secret in it: neither of a
// file that is written nor of one that is read, good or malformed.
func TestBuffersAreCleared(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // garbage stays, to be looked at
	path := filepath.Join(t.TempDir(), "keys.json")
	k, err := Generate("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	text := masked(t, k)
	check := func(what string) {
		t.Helper()
		if n := inMemory(t, text); n > 0 {
			t.Errorf("%s left the secret in memory %d times", what, n)
		}
	}
	err = UpdateFile(path, func(s *Set) error { s.Current, s.Keys = "a", []*Key{k}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	check("UpdateFile")
	if _, err := OpenFile(path, nil); err != nil {
		t.Fatal(err)
	}
	check("OpenFile")
	if err := UpdateFile(path, func(*Set) error { return nil }); err != nil {
		t.Fatal(err)
	}
	check("the second UpdateFile")
	late, err := Generate("late", &Options{Expires: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	if err := UpdateFile(path, func(s *Set) error { s.Keys = append(s.Keys, late); return nil }); err == nil {
		t.Error("a year of five digits was written")
	}
	check("UpdateFile of what cannot be written")
	func() {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer clear(data)
		broken := bytes.TrimRight(data, "\n}")
		if err := os.WriteFile(path, broken, 0o600); err != nil {
			t.Fatal(err)
		}
	}()
	if _, err := OpenFile(path, nil); err == nil {
		t.Fatal("a malformed file was opened")
	}
	check("OpenFile of a malformed file")
	// Of a sender key whose names take the most room.
	name := strings.Repeat("s", MaxID)
	long, err := Generate(ID(name), nil)
	if err != nil {
		t.Fatal(err)
	}
	bot, err := long.Sender(name)
	if err != nil {
		t.Fatal(err)
	}
	text = masked(t, bot)
	path = filepath.Join(t.TempDir(), "senders.json")
	if err := UpdateFile(path, func(s *Set) error { s.Keys = []*Key{bot}; return nil }); err != nil {
		t.Fatal(err)
	}
	check("UpdateFile of a sender key")
	// Of a folder with a key, and of one beside it that is none.
	text = masked(t, k)
	folder := t.TempDir()
	put := func(name string, k *Key, more string) {
		t.Helper()
		if err := k.with(func(secret *[Size]byte) error {
			data := make([]byte, base64.StdEncoding.EncodedLen(Size), base64.StdEncoding.EncodedLen(Size)+len(more))
			defer clear(data[:cap(data)])
			base64.StdEncoding.Encode(data, secret[:])
			return os.WriteFile(filepath.Join(folder, name), append(data, more...), 0o600)
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("a", k, "\n")
	if _, err := OpenFolder(folder, nil); err != nil {
		t.Fatal(err)
	}
	check("OpenFolder")
	put("a", k, "!")
	if _, err := OpenFolder(folder, nil); err == nil {
		t.Fatal("a malformed file of a folder was read")
	}
	check("OpenFolder of a malformed file")
	put("current", k, "")
	if _, err := OpenFolder(folder, nil); err == nil {
		t.Fatal("a secret was taken for the name of the current key")
	}
	check("OpenFolder of a secret in the place of a name")
	kept := []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, Size)))
	if n := inMemory(t, masked(t, testKey(t, "b", 9))); n == 0 {
		t.Error("nothing is found in memory: this test cannot fail")
	}
	clear(kept) // and so it was alive until here
}
