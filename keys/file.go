package keys

import (
	"context"
	"time"
)

// FileOptions says how a File follows its file. Nil is the zero value.
type FileOptions struct {
	// CheckEvery is how often the file is looked at for a change, at most, by
	// a stat when a key is asked for. 0 means 1 second; negative is refused.
	CheckEvery time.Duration
	// OnError is told why a changed file was not taken over; the keys known
	// before are still served. It is called by whoever asked for a key, must
	// be quick and safe for concurrent use. Nil means nobody is told; Err says
	// it, too.
	OnError func(error)
}

// File is a Provider of the keys in a file, which it reads again when it
// changes.
type File struct{ ring Ring }

// OpenFile reads a key file.
func OpenFile(path string, o *FileOptions) (*File, error) {
	return nil, ErrUnavailable
}

// GetKey implements Provider.
func (f *File) GetKey(ctx context.Context, id ID) (*Key, error) { return f.ring.GetKey(ctx, id) }

// CurrentKeyID implements Provider.
func (f *File) CurrentKeyID(ctx context.Context) (ID, error) { return f.ring.CurrentKeyID(ctx) }

// ValidKeyIDs implements Provider.
func (f *File) ValidKeyIDs(ctx context.Context) ([]ID, error) { return f.ring.ValidKeyIDs(ctx) }

// Err returns why the last change of the file was not taken over; nil if it was.
func (f *File) Err() error { return nil }
