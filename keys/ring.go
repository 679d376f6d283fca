package keys

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Ring is a Provider of keys held in memory, changed while it is in use:
// rotation needs no restart. The zero Ring is empty and ready.
//
// To rotate: Add the new key to every receiver, then to the senders and
// SetCurrent it there, keep the old one for as long as messages sealed under it
// can come back (time to live and dead-letter life), then Remove it.
//
// The Ring owns its keys: a key that it removes, it destroys, even if another Ring
// was given the same *Key.
type Ring struct {
	mu      sync.RWMutex // guards what follows
	keys    map[ID]*Key
	current ID
	// seen remembers which secret an ID named, removed ones included: once it is
	// confirmed, one ID names one key for ever. It grows by what the application adds, not by
	// what messages ask for.
	seen map[ID]identity
}

// NewRing returns a Ring of these keys, the first being current. Without keys it
// is empty.
func NewRing(keys ...*Key) (*Ring, error) {
	r := new(Ring)
	for _, k := range keys {
		if err := r.Add(k); err != nil {
			return nil, err
		}
	}
	if len(keys) > 0 {
		r.current = keys[0].ID()
	}
	return r, nil
}

// Add gives the ring a key, which then opens; it seals only after SetCurrent. Adding
// the very same *Key again is fine. It fails with ErrInvalidKey for nil, for a second
// key of an ID that is there, and for an ID that named another secret before which
// was confirmed (Key.Confirm), and with ErrDestroyed for a destroyed key; the key
// then stays the caller's.
func (r *Ring) Add(k *Key) error {
	if k == nil {
		return fmt.Errorf("keys: ring: %w: nil", ErrInvalidKey)
	}
	f, err := k.fingerprint()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if have := r.keys[k.ID()]; have == k {
		return nil
	} else if have != nil {
		return fmt.Errorf("keys: ring: %w: %s is there already: give a new key a new ID", ErrInvalidKey, k.ID())
	}
	was := r.seen[k.ID()]
	if was.refuses(f) {
		return fmt.Errorf("keys: ring: %w: %s named another secret before: give a new key a new ID", ErrInvalidKey, k.ID())
	}
	if r.keys == nil {
		r.keys, r.seen = make(map[ID]*Key), make(map[ID]identity)
	}
	r.keys[k.ID()], r.seen[k.ID()] = k, was.next(k, f)
	return nil
}

// SetCurrent makes a key that is in the ring the one to seal with. It fails with
// ErrNotFound for any other ID, and then changes nothing. Whether the key is
// expired is not looked at here: sealing judges that.
func (r *Ring) SetCurrent(id ID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys[id] == nil {
		return fmt.Errorf("keys: ring: %w: %q: Add it before SetCurrent", ErrNotFound, clip(id))
	}
	r.current = id
	return nil
}

// Remove takes a key out of the ring and destroys it: it waits for uses under
// way, and later ones fail with ErrDestroyed. Messages sealed under it are no
// longer readable here. Removing the current key leaves the ring without one,
// and sealing fails until SetCurrent. It fails with ErrNotFound if the key is
// not there.
func (r *Ring) Remove(id ID) error {
	r.mu.Lock()
	k := r.keys[id]
	delete(r.keys, id)
	if r.current == id {
		r.current = ""
	}
	r.mu.Unlock()
	if k == nil {
		return fmt.Errorf("keys: ring: %w: %q", ErrNotFound, clip(id))
	}
	k.Destroy() // outside the lock: it waits
	return nil
}

// IDs returns the IDs of the keys in the ring, sorted. The caller owns the slice.
func (r *Ring) IDs() []ID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.keys))
}

// GetKey implements Provider. It does not look at ctx: it never waits.
func (r *Ring) GetKey(_ context.Context, id ID) (*Key, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k := r.keys[id]
	if k == nil {
		return nil, fmt.Errorf("keys: ring: %w: %q", ErrNotFound, clip(id))
	}
	return k, nil
}

// CurrentKeyID implements Provider. It fails with ErrNotFound while no key is
// current. An expired key stays current: its ID is returned, and sealing with
// it fails with ErrExpired.
func (r *Ring) CurrentKeyID(context.Context) (ID, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.current == "" {
		return "", fmt.Errorf("keys: ring: %w: no key is current: use SetCurrent", ErrNotFound)
	}
	return r.current, nil
}

// ValidKeyIDs implements Provider; it returns what IDs does.
func (r *Ring) ValidKeyIDs(context.Context) ([]ID, error) { return r.IDs(), nil }

// clip bounds an ID that was not validated before it goes into an error.
func clip(id ID) ID { return id[:min(len(id), MaxID)] }
