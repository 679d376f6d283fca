package envelope

import (
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
)

// cache keeps derived ciphers by key ID, sender and salt, at most as many as it has
// places. When full, the hand goes round and takes the first place that was not
// used since it last came by (the second-chance algorithm): finding an entry needs
// no exclusive lock.
type cache struct {
	mu     sync.RWMutex // guards the fields down to last
	index  map[cacheKey]*entry
	places []*entry // nil if free
	free   []int    // places that remove emptied
	limit  int
	hand   int
	last   cacheKey // of the entry that came in last

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

// cacheKey is what a cipher was derived for.
type cacheKey struct {
	salt          Salt
	keyID, sender string
}

// entry is an authenticated cipher. With thousands of senders most are in memory and not
// in the processor's caches, so that what a message needs of one stands together.
type entry struct {
	derived
	key     cacheKey
	deriver Deriver
	place   int
	used    atomic.Bool // since the hand last came by
}

func newCache(limit int) *cache {
	return &cache{index: make(map[cacheKey]*entry), limit: limit}
}

func keyOf(m *EncryptedMessage) cacheKey { return cacheKey{m.Salt, m.KeyID, m.Sender} }

// get returns the cipher of m if it came from the very d, and nil otherwise.
func (c *cache) get(m *EncryptedMessage, d Deriver) *derived {
	recent := &c.recent[m.Salt[0]%recents]
	e := recent.Load()
	if e == nil || e.key != keyOf(m) {
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
	return &e.derived
}

// find looks an entry up in the index and makes it a recent one.
func (c *cache) find(m *EncryptedMessage, recent *atomic.Pointer[entry]) *entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.index[keyOf(m)]
	if e != nil {
		recent.Store(e)
	}
	return e
}

// add puts in what d gave for m, in the place of an entry of the same key if there is
// one. m was authenticated with it. removals is their number before it was derived: if
// there were others since, it stays out, because one of them may have been for it.
func (c *cache) add(k *derived, m *EncryptedMessage, d Deriver, removals uint64) {
	if c.limit == 0 || !reflect.ValueOf(d).Comparable() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.removals.Load() != removals {
		return
	}
	e := &entry{derived: *k, key: c.own(keyOf(m)), deriver: d}
	if old := c.index[e.key]; old != nil {
		c.leave(old)
		e.place = old.place
	} else {
		e.place = c.makePlace()
	}
	c.places[e.place], c.index[e.key], c.last = e, e, e.key
}

// own returns k with strings that are no part of a message, which would be kept as long
// as the entry: those of the last entry where they are the same. mu is held.
func (c *cache) own(k cacheKey) cacheKey {
	own := func(s, last string) string {
		if s == last {
			return last
		}
		return strings.Clone(s)
	}
	return cacheKey{k.salt, own(k.keyID, c.last.keyID), own(k.sender, c.last.sender)}
}

// leave takes e, which loses its place, out of the recent ones. mu is held.
func (c *cache) leave(e *entry) {
	c.recent[e.key.salt[0]%recents].CompareAndSwap(e, nil)
}

// makePlace returns a free place, taking one if none is. mu is held.
func (c *cache) makePlace() int {
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
