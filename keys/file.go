package keys

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// FileOptions says how a File follows its file. Nil is the zero value.
type FileOptions struct {
	// CheckEvery is how often the file is looked at for a change, at most, by
	// one stat when something is asked of the provider. 0 means 1 second;
	// negative is refused.
	CheckEvery time.Duration
	// OnError is called with the reason why a changed file was not taken over: once,
	// until the reason changes or goes away. It runs on the goroutine of the call
	// that noticed, and must return quickly. Nil means no callback; Err returns the
	// reason, too.
	OnError func(error)
}

// File is a Provider of the keys in a file, as JSON:
//
//	{"current": "id", "keys": [{
//	  "id": "id",
//	  "secret": "base64",
//	  "created": "2026-01-31T12:00:00Z", "expires": "2027-01-31T12:00:00Z",
//	  "queues": ["orders", "refunds"]
//	}]}
//
// A secret is 32 bytes in padded standard base64 (RFC 4648, Section 4). A sender
// key has "sender" with its sender ID and "sender_secret" in place of "secret", so
// that no key becomes one of the other kind by an edit of one name. The times are
// as in RFC 3339; times and queues are optional. Without current, nothing seals.
// UpdateFile writes such files.
//
// Only its owner may have access to the file (chmod 600, or 400). After it changed,
// the next call of a method reads it again; no goroutine runs. Replace it by a
// rename, as UpdateFile does, so that no call reads half of it.
//
// If the file is gone, broken, open to other users, or gives an ID another secret
// than before, the keys known before stay in force, and FileOptions.OnError and Err
// say why. GetKey then fails with ErrUnavailable instead of ErrNotFound for an ID that
// is not among them. So deleting the file retires no key. Writing one without the key
// does: the key is then destroyed, as Ring.Remove does.
type File struct {
	path    string
	every   time.Duration
	onError func(error)
	start   time.Time // origin of next

	next  atomic.Int64 // when to look at the file again, nanoseconds since start
	state atomic.Pointer[fileState]

	look sync.Mutex // held while looking at the file, only by TryLock; guards info and seen
	info fs.FileInfo
	at   time.Time // when info was taken
	seen map[ID]fingerprint
}

// fileState is what was read, or why the last change was not. It is not changed
// once it is there.
type fileState struct {
	keys    map[ID]*Key
	current ID
	err     error
}

// settled is how old a change has to be for the file's time to tell it from the
// next one: file systems count in steps of up to two seconds.
const settled = 2 * time.Second

// OpenFile reads a key file. It fails with ErrUnavailable if the file cannot be
// read or is open to others than its owner, and with ErrInvalidKey if it is
// malformed.
func OpenFile(path string, o *FileOptions) (*File, error) {
	if o == nil {
		o = new(FileOptions)
	}
	f := &File{path: path, every: o.CheckEvery, onError: o.OnError, start: time.Now(), seen: make(map[ID]fingerprint)}
	if f.every < 0 {
		return nil, fmt.Errorf("keys: file: CheckEvery is %v: use 0 for 1s, or more", f.every)
	}
	if f.every == 0 {
		f.every = time.Second
	}
	f.state.Store(new(fileState))
	if err := f.read(); err != nil {
		return nil, err
	}
	f.next.Store(int64(f.every))
	return f, nil
}

// GetKey implements Provider. It does not look at ctx: it waits for nothing but
// the file system.
func (f *File) GetKey(_ context.Context, id ID) (*Key, error) {
	s := f.check()
	if k := s.keys[id]; k != nil {
		return k, nil
	}
	if s.err != nil {
		return nil, fmt.Errorf("keys: file: %w: cannot tell whether there is a key %q: %w", ErrUnavailable, clip(id), s.err)
	}
	return nil, fmt.Errorf("keys: file %s: %w: %q", f.path, ErrNotFound, clip(id))
}

// CurrentKeyID implements Provider. It fails with ErrNotFound when the file
// names no current key.
func (f *File) CurrentKeyID(context.Context) (ID, error) {
	s := f.check()
	if s.current == "" {
		return "", fmt.Errorf("keys: file %s: %w: no key is current: set current", f.path, ErrNotFound)
	}
	return s.current, nil
}

// ValidKeyIDs implements Provider.
func (f *File) ValidKeyIDs(context.Context) ([]ID, error) {
	return slices.Collect(maps.Keys(f.check().keys)), nil
}

// Err returns why the last change of the file was not taken over; nil if it was.
func (f *File) Err() error { return f.check().err }

// check looks at the file if it is time, and returns what is known then. While
// one caller looks, the others go on with what is known.
func (f *File) check() *fileState {
	now := time.Since(f.start)
	if int64(now) < f.next.Load() || !f.look.TryLock() {
		return f.state.Load()
	}
	defer f.look.Unlock()
	f.next.Store(int64(now + f.every))
	s := f.state.Load()
	if s.err == nil && f.unchanged() {
		return s
	}
	err := f.read() // stores what it took over
	if err != nil && (s.err == nil || s.err.Error() != err.Error()) {
		f.state.Store(&fileState{keys: s.keys, current: s.current, err: err})
		if f.onError != nil {
			f.onError(err)
		}
	}
	return f.state.Load()
}

// unchanged reports whether the file is surely the one that was read.
func (f *File) unchanged() bool {
	info, err := os.Stat(f.path)
	return err == nil && os.SameFile(info, f.info) && info.Size() == f.info.Size() &&
		info.Mode() == f.info.Mode() && info.ModTime().Equal(f.info.ModTime()) &&
		f.at.Sub(info.ModTime()) > settled
}

// read takes the file over, or changes nothing.
func (f *File) read() error {
	at := time.Now()
	set, info, err := readFile(f.path)
	if err != nil {
		return err
	}
	old := f.state.Load()
	next := &fileState{keys: make(map[ID]*Key, len(set.Keys)), current: set.Current}
	prints := make(map[ID]fingerprint, len(set.Keys))
	for _, k := range set.Keys {
		id := k.ID()
		fp, err := k.fingerprint()
		if was, ok := f.seen[id]; err == nil && ok && !was.equal(fp) {
			err = fmt.Errorf("keys: file %s: %w: %s named another secret before: give a new key a new ID", f.path, ErrInvalidKey, id)
		}
		if err != nil {
			set.destroy()
			return err
		}
		prints[id], next.keys[id] = fp, k
	}
	// Nothing refuses it any more.
	maps.Copy(f.seen, prints)
	f.info, f.at = info, at
	for id, k := range next.keys {
		if was := old.keys[id]; was != nil && was.Err() == nil && was.Alike(k) {
			next.keys[id] = was // what was derived from it stays good
			k.Destroy()
		}
	}
	f.state.Store(next)
	for id, k := range old.keys {
		if next.keys[id] == nil {
			k.Destroy()
		}
	}
	return nil
}
