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

// FileOptions says how a File or a Folder follows what it reads. Nil is the zero
// value.
type FileOptions struct {
	// CheckEvery is how often the file or folder is looked at for a change, at
	// most, by a stat of each file when something is asked of the provider. 0 means
	// 1 second; negative is refused.
	CheckEvery time.Duration
	// WorldReadable accepts files that every user of the machine may read, such as
	// mode 0444, but not files that others than the owner may write. Set it only if
	// no other user can reach them: in a container with one user, for example, to which
	// Docker mounts secrets with that mode.
	WorldReadable bool
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
// Only its owner may have access to the file (chmod 600, or 400). Its group may read
// it, too (0440 or 0640), if root owns it and the process is in the group: Kubernetes
// mounts a Secret so for a Pod that does not run as root. After the file changed, the
// next call of a method reads it again; no goroutine runs. Replace it by a rename, as
// UpdateFile does, so that no call reads half of it.
//
// If the file is gone, broken, open to other users, or gives an ID another secret
// than before, the keys known before stay in force, and FileOptions.OnError and Err
// say why. GetKey then fails with ErrUnavailable instead of ErrNotFound for an ID that
// is not among them. So deleting the file retires no key. Writing one without the key
// does: the key is then destroyed, as Ring.Remove does.
type File struct {
	name    string // in errors: "file /etc/app/keys.json"
	load    func() (*Set, snapshot, error)
	look    func() (snapshot, error) // what load would read now, without its content
	every   time.Duration
	onError func(error)
	start   time.Time // origin of next

	next  atomic.Int64 // when to look at the file again, nanoseconds since start
	state atomic.Pointer[fileState]

	looking sync.Mutex // held while looking at the file, only by TryLock; guards read and seen
	read    snapshot   // what the state was made of
	seen    map[ID]identity
}

// snapshot tells the files that keys were read from apart from later ones.
type snapshot struct {
	files []fileStamp
	at    time.Time // when it was taken
}

// fileStamp is one file of a snapshot.
type fileStamp struct {
	name string
	info fs.FileInfo
}

// same reports whether now surely describes the content that s describes.
func (s *snapshot) same(now snapshot) bool {
	return slices.EqualFunc(s.files, now.files, func(was, is fileStamp) bool {
		return was.name == is.name && os.SameFile(was.info, is.info) && was.info.Size() == is.info.Size() &&
			was.info.Mode() == is.info.Mode() && was.info.ModTime().Equal(is.info.ModTime()) &&
			s.at.Sub(is.info.ModTime()) > settled
	})
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
	rule := ruleOf(o)
	return follow(o, "file "+path,
		func() (*Set, snapshot, error) {
			at := time.Now()
			set, info, err := readFile(path, rule)
			return set, snapshot{[]fileStamp{{path, info}}, at}, err
		},
		func() (snapshot, error) {
			info, err := os.Stat(path)
			return snapshot{files: []fileStamp{{path, info}}}, err
		})
}

// follow returns a File of what load reads, once it has read it.
func follow(o *FileOptions, name string, load func() (*Set, snapshot, error), look func() (snapshot, error)) (*File, error) {
	if o == nil {
		o = new(FileOptions)
	}
	f := &File{name: name, load: load, look: look, every: o.CheckEvery, onError: o.OnError, start: time.Now(), seen: make(map[ID]identity)}
	if f.every < 0 {
		return nil, fmt.Errorf("keys: %s: CheckEvery is %v: use 0 for 1s, or more", name, f.every)
	}
	if f.every == 0 {
		f.every = time.Second
	}
	f.state.Store(new(fileState))
	if err := f.reload(); err != nil {
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
		return nil, fmt.Errorf("keys: %s: %w: cannot tell whether there is a key %q: %w", f.name, ErrUnavailable, clip(id), s.err)
	}
	return nil, fmt.Errorf("keys: %s: %w: %q", f.name, ErrNotFound, clip(id))
}

// CurrentKeyID implements Provider. It fails with ErrNotFound when the file
// names no current key.
func (f *File) CurrentKeyID(context.Context) (ID, error) {
	s := f.check()
	if s.current == "" {
		return "", fmt.Errorf("keys: %s: %w: no key is current: set current", f.name, ErrNotFound)
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
	if int64(now) < f.next.Load() || !f.looking.TryLock() {
		return f.state.Load()
	}
	defer f.looking.Unlock()
	f.next.Store(int64(now + f.every))
	s := f.state.Load()
	if s.err == nil && f.unchanged() {
		return s
	}
	err := f.reload() // stores what it took over
	if err != nil && (s.err == nil || s.err.Error() != err.Error()) {
		f.state.Store(&fileState{keys: s.keys, current: s.current, err: err})
		if f.onError != nil {
			f.onError(err)
		}
	}
	return f.state.Load()
}

// unchanged reports whether what was read is surely what is there.
func (f *File) unchanged() bool {
	now, err := f.look()
	return err == nil && f.read.same(now)
}

// reload takes over what is there, or changes nothing.
func (f *File) reload() error {
	set, read, err := f.load()
	if err != nil {
		return err
	}
	old := f.state.Load()
	next := &fileState{keys: make(map[ID]*Key, len(set.Keys)), current: set.Current}
	seen := make(map[ID]identity, len(set.Keys))
	same := make(map[ID]bool, len(set.Keys))
	for _, k := range set.Keys {
		id := k.ID()
		fp, err := k.fingerprint()
		was := f.seen[id]
		if err == nil && was.refuses(fp) {
			err = fmt.Errorf("keys: %s: %w: %s named another secret before: give a new key a new ID", f.name, ErrInvalidKey, id)
		}
		if err != nil {
			set.destroy()
			return err
		}
		same[id] = was.print.equal(fp)
		seen[id], next.keys[id] = was.next(k, fp), k
	}
	// Nothing refuses it any more.
	f.read = read
	for id, k := range next.keys {
		if was := old.keys[id]; was != nil && was.Err() == nil && same[id] && was.Alike(k) {
			next.keys[id] = was // what was derived from it stays good
			seen[id] = seen[id].of(was)
			k.Destroy()
		}
	}
	maps.Copy(f.seen, seen)
	f.state.Store(next)
	for id, k := range old.keys {
		if next.keys[id] == nil {
			k.Destroy()
		}
	}
	return nil
}
