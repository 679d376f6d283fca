package keys

import (
	"fmt"
	"sync"
)

// Given remembers which keys a provider gave out: for providers that read a key from their
// store each time they are asked. The zero value is ready. It is safe for concurrent use.
type Given struct {
	mu   sync.Mutex // guards what follows
	keys map[ID]*Key
	seen map[ID]identity // also of keys that are gone; grows by what the store holds
}

// Take returns the key to give out for k, which was just made of what the store holds: the
// one from before if it has the same secret and is Alike, and then k is destroyed. It fails
// with ErrInvalidKey, and destroys k, if the ID named another secret before which was
// confirmed (Key.Confirm). A key whose secret was corrected is not destroyed: it is zeroed
// once it is no longer in use.
func (g *Given) Take(k *Key) (*Key, error) {
	f, err := k.fingerprint()
	if err != nil {
		return nil, err
	}
	id := k.ID()
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.seen[id]
	if was.refuses(f) {
		k.Destroy()
		return nil, fmt.Errorf("%w: it held another secret before, which messages were sealed under: restore that, and give a new key a new ID", ErrInvalidKey)
	}
	if old := g.keys[id]; old != nil && was.print.equal(f) && old.Alike(k) {
		k.Destroy()
		return old, nil
	}
	if g.keys == nil {
		g.keys, g.seen = make(map[ID]*Key), make(map[ID]identity)
	}
	g.keys[id], g.seen[id] = k, was.next(k, f)
	return k, nil
}

// Drop forgets a key that the store does not have any more, but not which secret its ID
// named. Callers that still use the key are not disturbed; it is zeroed once it is no longer
// in use.
func (g *Given) Drop(id ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.keys, id)
}
