package keys

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
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

// masked returns how a key file writes the secret of k, and the secret itself, both masked.
func masked(t *testing.T, k *Key) (text, bare []byte) {
	t.Helper()
	// Of the secret all but its end, which a malformed one has not.
	text, bare = make([]byte, base64.StdEncoding.EncodedLen(Size)), make([]byte, Size-8)
	if err := k.with(func(secret *[Size]byte) error {
		base64.StdEncoding.Encode(text, secret[:])
		for i := range text {
			text[i] ^= mask
		}
		for i := range bare {
			bare[i] = secret[i] ^ mask
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return text, bare
}

// inMemory returns how often a masked text is on the heap, garbage included.
func inMemory(t *testing.T, text []byte) int {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "heap"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	clear(window) // it has a part of the dump before
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
// file that is written nor of one that is read, good or malformed. The secret itself is in
// memory once for each key that its owner has.
func TestBuffersAreCleared(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // garbage stays, to be looked at
	path := filepath.Join(t.TempDir(), "keys.json")
	k, err := Generate("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	text, bare := masked(t, k)
	check := func(what string, keys int) {
		t.Helper()
		if n := inMemory(t, text); n > 0 {
			t.Errorf("%s left the secret as a file has it in memory %d times", what, n)
		}
		if n := inMemory(t, bare); n != keys {
			t.Errorf("%s left the secret in memory %d times, want %d", what, n, keys)
		}
	}
	check("Generate", 1)
	err = UpdateFile(path, func(s *Set) error { s.Current, s.Keys = "a", []*Key{k}; return nil })
	if err != nil {
		t.Fatal(err)
	}
	check("UpdateFile", 1)
	if _, err := OpenFile(path, nil); err != nil {
		t.Fatal(err)
	}
	check("OpenFile", 2)
	if err := UpdateFile(path, func(*Set) error { return nil }); err != nil {
		t.Fatal(err)
	}
	check("the second UpdateFile", 2)
	late, err := Generate("late", &Options{Expires: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	if err := UpdateFile(path, func(s *Set) error { s.Keys = append(s.Keys, late); return nil }); err == nil {
		t.Error("a year of five digits was written")
	}
	check("UpdateFile of what cannot be written", 2)
	gone := testKey(t, "gone", 5)
	gone.Destroy()
	if err := UpdateFile(path, func(s *Set) error { s.Keys = append(s.Keys, gone); return nil }); !errors.Is(err, ErrDestroyed) {
		t.Errorf("a destroyed key was written: %v", err)
	}
	check("UpdateFile with a destroyed key", 2)
	queues := make([]string, maxQueues)
	for i := range queues {
		queues[i] = fmt.Sprintf("%0*d", maxQueue, i)
	}
	if err := UpdateFile(path, func(s *Set) error {
		for i := range 17 {
			k, err := Generate(ID(fmt.Sprint("large-", i)), &Options{Queues: queues})
			if err != nil {
				return err
			}
			s.Keys = append(s.Keys, k)
		}
		return nil
	}); !errors.Is(err, ErrInvalidKey) {
		t.Errorf("a file that is too large was written: %v", err)
	}
	check("UpdateFile of too many bytes", 2)
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
	check("OpenFile of a malformed file", 2)
	func() {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		defer clear(data)
		data[bytes.IndexByte(data, '=')-1] = '?' // the last character of the secret
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}()
	if _, err := OpenFile(path, nil); err == nil {
		t.Fatal("a malformed secret was read")
	}
	check("OpenFile of a malformed secret", 2)
	// Of sender keys whose names and times take the most room.
	at := time.Date(2026, 1, 31, 12, 0, 0, 123456789, time.UTC)
	var bots []*Key
	var long *Key // the master key of the first
	for i := range 10 {
		name := strings.Repeat("s", MaxID-1) + string(rune('0'+i))
		k, err := Generate(ID(name), &Options{Created: at, Expires: at.Add(time.Hour), Queues: []string{strings.Repeat("\"", maxQueue)}})
		if err != nil {
			t.Fatal(err)
		}
		bot, err := k.Sender(name)
		if err != nil {
			t.Fatal(err)
		}
		if bots = append(bots, bot); i == 0 {
			long = k
		}
	}
	text, bare = masked(t, bots[0])
	// That of the key, and what crypto/hkdf leaves of what it derives.
	made := inMemory(t, bare)
	if err := long.with(func(secret *[Size]byte) error {
		out, err := hkdf.Expand(sha256.New, secret[:], senderInfo(bots[0].SenderID()), Size)
		clear(out)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if left := inMemory(t, bare) - made; made != 1+left {
		t.Errorf("Sender left the secret in memory %d times, want %d", made, 1+left)
	} else {
		made += left
	}
	path = filepath.Join(t.TempDir(), "senders.json")
	if err := UpdateFile(path, func(s *Set) error { s.Keys = bots; return nil }); err != nil {
		t.Fatal(err)
	}
	check("UpdateFile of sender keys", made)
	if err := UpdateFile(path, func(*Set) error { return nil }); err != nil {
		t.Fatal(err)
	}
	check("the second UpdateFile of sender keys", made)
	// Of a folder with a key, and of one beside it that is none.
	text, bare = masked(t, k)
	folder := t.TempDir()
	put := func(name, before, more string) {
		t.Helper()
		if err := k.with(func(secret *[Size]byte) error {
			data := make([]byte, 0, len(before)+base64.StdEncoding.EncodedLen(Size)+len(more))
			defer clear(data[:cap(data)])
			data = append(base64.StdEncoding.AppendEncode(append(data, before...), secret[:]), more...)
			return os.WriteFile(filepath.Join(folder, name), data, 0o600)
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("a", "", "\n")
	if _, err := OpenFolder(folder, nil); err != nil {
		t.Fatal(err)
	}
	check("OpenFolder", 3)
	put("b", "", "!")
	if _, err := OpenFolder(folder, nil); err == nil {
		t.Fatal("a malformed file beside a key was read")
	}
	check("OpenFolder of a key and a malformed file", 3)
	put("a", "", "!")
	if _, err := OpenFolder(folder, nil); err == nil {
		t.Fatal("a malformed file of a folder was read")
	}
	check("OpenFolder of a malformed file", 3)
	put("a", `{"id": "a", "secret": "`, `"} {}`)
	if _, err := OpenFolder(folder, nil); err == nil {
		t.Fatal("a file with more than a key was read")
	}
	check("OpenFolder of a file with more than a key", 3)
	put("a", "", "\n")
	if err := os.Remove(filepath.Join(folder, "b")); err != nil {
		t.Fatal(err)
	}
	put("current", "", "")
	if _, err := OpenFolder(folder, nil); err == nil {
		t.Fatal("a secret was taken for the name of the current key")
	}
	check("OpenFolder of a secret in the place of a name", 3)
	if err := k.with(func(secret *[Size]byte) error {
		_, err := parseEnv("P", []string{"P=a=" + base64.StdEncoding.EncodeToString(secret[:])})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if n := inMemory(t, bare); n != 4 {
		t.Errorf("parseEnv left the secret in memory %d times, want 4 with its own", n)
	}
	kept := []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{9}, Size)))
	if text, _ := masked(t, testKey(t, "b", 9)); inMemory(t, text) == 0 {
		t.Error("nothing is found in memory: this test cannot fail")
	}
	clear(kept) // and so it was alive until here
}
