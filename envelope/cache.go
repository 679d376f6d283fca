package envelope

import (
	"reflect"
	"sync"
	"sync/atomic"
)

// cache keeps derived ciphers by key ID, sender and salt, at most as many as it has
// places. When full, the hand goes round and takes the first place that was not
// used since it last came by (the second-chance algorithm): finding an entry needs
// no exclusive lock.
type cache struct {
	mu     sync.RWMutex // guards the fields down to hand
	index  map[cacheKey]int
	places []*entry // nil if free
	free   []int    // places that remove emptied
	limit  int
	hand   int

	// recent holds entries that were found, by the first byte of their salt,
	// which is random: they are found again without a lock. It is written with mu
	// held, for reading at least, so that what remove drops does not come back.
	recent [recents]atomic.Pointer[entry]

	// removals counts the calls of remove, so that a cipher derived before one
	// does not come in after it. It is written with mu held.
	removals atomic.Uint64
}

// recents is the number of places of cache.recent, a power of two.
const recents = 64

// cacheKey has a fixed size and no pointer, so that it is found without
// allocation.
type cacheKey struct {
	lengths    [2]uint8 // of id and sender
	id, sender [MaxKeyID]byte
	salt       Salt
}

// entry is an authenticated cipher.
type entry struct {
	*derived
	key           cacheKey
	keyID, sender string
	deriver       Deriver
	used          atomic.Bool // since the hand last came by
}

func newCache(limit int) *cache {
	return &cache{index: make(map[cacheKey]int), limit: limit}
}

func keyOf(keyID, sender string, salt *Salt) cacheKey {
	k := cacheKey{lengths: [2]uint8{uint8(len(keyID)), uint8(len(sender))}, salt: *salt} //nolint:gosec // G115: at most MaxKeyID
	copy(k.id[:], keyID)
	copy(k.sender[:], sender)
	return k
}

// get returns the cipher of m if it came from the very d, and nil otherwise.
func (c *cache) get(m *EncryptedMessage, d Deriver) *derived {
	recent := &c.recent[m.Salt[0]%recents]
	e := recent.Load()
	if e == nil || e.key.salt != m.Salt || e.keyID != m.KeyID || e.sender != m.Sender {
		if e = c.find(m, recent); e == nil {
			return nil
		}
	}
	// Comparing does not panic: the entry's Deriver is comparable.
	if e.deriver != d {
		return nil
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.derived
}

// find looks an entry up in the index and makes it a recent one.
func (c *cache) find(m *EncryptedMessage, recent *atomic.Pointer[entry]) *entry {
	k := keyOf(m.KeyID, m.Sender, &m.Salt)
	c.mu.RLock()
	defer c.mu.RUnlock()
	i, ok := c.index[k]
	if !ok {
		return nil
	}
	recent.Store(c.places[i])
	return c.places[i]
}

// add puts e in, in the place of one of the same key if there is one. A message
// was authenticated with it. removals is their number before e was derived: if
// there were others since, e stays out, because one of them may have been for it.
func (c *cache) add(e *entry, removals uint64) {
	if c.limit == 0 || !reflect.ValueOf(e.deriver).Comparable() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removals.Load() != removals {
		return
	}
	i, ok := c.index[e.key]
	if ok {
		c.leave(c.places[i])
	} else {
		i = c.place()
		c.index[e.key] = i
	}
	c.places[i] = e
}

// leave takes e, which loses its place, out of the recent ones. mu is held.
func (c *cache) leave(e *entry) {
	c.recent[e.key.salt[0]%recents].CompareAndSwap(e, nil)
}

// place returns a free place, making one if all are taken. mu is held.
func (c *cache) place() int {
	if n := len(c.free); n > 0 {
		i := c.free[n-1]
		c.free = c.free[:n-1]
		return i
	}
	if len(c.places) < c.limit {
		c.places = append(c.places, nil)
		return len(c.places) - 1
	}
	// No place is free, so each holds an entry; after one round, all are unused.
	for {
		i := c.hand
		c.hand = (c.hand + 1) % len(c.places)
		if !c.places[i].used.Swap(false) {
			c.leave(c.places[i])
			delete(c.index, c.places[i].key)
			return i
		}
	}
}

// remove drops the entries for which drop reports true.
func (c *cache) remove(drop func(*entry) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.removals.Add(1)
	for i, e := range c.places {
		if e != nil && drop(e) {
			c.leave(e)
			delete(c.index, e.key)
			c.places[i] = nil
			c.free = append(c.free, i)
		}
	}
}
