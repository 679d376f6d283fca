package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// CachedOptions says how Cached keeps what its provider answered. Zero durations
// mean the default; negative ones are refused. Nil is the zero value.
type CachedOptions struct {
	// TTL is for how long a key and the current ID are used without asking
	// again, and so how long it takes at most until a new current key is
	// sealed with. 0 means 5 minutes.
	TTL time.Duration
	// ListTTL is for how long the list of IDs is used, and so for how long an
	// ID that is not in it is unknown without asking. A flood of unknown IDs
	// costs one call in that time, however many there are. 0 means 30 seconds.
	ListTTL time.Duration
	// MaxStale is for how long beyond their time answers are still used while
	// the provider fails: the outage that sealing and opening survive. A key
	// that was revoked in the meantime stays in use for that long, too. 0
	// means 1 hour; 1 means practically none.
	MaxStale time.Duration
	// Timeout bounds one call of the provider. 0 means 10 seconds.
	Timeout time.Duration
	// OnEvent is told what happens, for metrics and logs. It is called while
	// somebody waits, from several goroutines at once, and never with a lock
	// held. Nil means nobody is told.
	OnEvent func(CacheEvent)
}

// CacheEventKind says what happened in a Cached.
type CacheEventKind int

const (
	// CacheHit: answered from memory.
	CacheHit CacheEventKind = iota + 1
	// CacheMiss: the caller has to wait for the provider.
	CacheMiss
	// CacheUnknown: an ID that is not in the list was refused without asking.
	CacheUnknown
	// CacheStale: the provider fails, and an answer past its time was given.
	CacheStale
	// CacheFetch: the provider was asked, for a caller or in the background,
	// and answered.
	CacheFetch
	// CacheError: the provider was asked and failed. Err says how; that there
	// is no such key (ErrNotFound) is an error here, too.
	CacheError
)

// String returns hit, miss, unknown, stale, fetch or error.
func (k CacheEventKind) String() string {
	switch k {
	case CacheHit:
		return "hit"
	case CacheMiss:
		return "miss"
	case CacheUnknown:
		return "unknown"
	case CacheStale:
		return "stale"
	case CacheFetch:
		return "fetch"
	case CacheError:
		return "error"
	}
	return "invalid"
}

// CacheEvent is one thing that happened in a Cached.
type CacheEvent struct {
	Kind CacheEventKind
	// Call is the method of Provider that it is about: GetKey, CurrentKeyID or
	// ValidKeyIDs.
	Call string
	// ID is that of GetKey. With CacheUnknown it is the attacker's choice: not
	// for a metric label.
	ID ID
	// Took is how long the provider took; of CacheFetch and CacheError.
	Took time.Duration
	// Err is why; of CacheStale and CacheError.
	Err error
}

// Cached is a Provider that remembers what another one answered, for secret
// stores that are slow, cost money, or may be down.
//
// However many callers want the same thing, the provider is asked once; that
// call ends by Timeout and Close, not with the context of whoever began it. A
// caller whose own context ends stops waiting and gets its error.
//
// Only IDs that the provider lists are asked for, so that messages with forged
// key IDs cost no calls beyond the list (see ListTTL) and no memory. While
// CurrentKeyID is in use, the current ID and its key are fetched again in the
// background before their time is over, so that no sender waits; when nobody
// asked since the last time, that stops.
//
// A key that it gave out is never destroyed by it, and the same *Key is given
// out while the provider answers the same secret and times, even as another
// *Key. A key that its provider destroyed (a Ring that removed it) is asked for
// anew at once. An answer with another secret than an ID had before is refused
// with ErrInvalidKey.
//
// An error of the provider is passed on with its sentinel; one without any
// becomes ErrUnavailable.
type Cached struct {
	inner Provider
	o     CachedOptions
	base  context.Context // of every call of inner; ends with Close
	stop  context.CancelFunc
	calls sync.WaitGroup // calls under way, each a goroutine

	mu      sync.Mutex // guards what follows, cells included; never held across a wait
	closed  bool
	keys    map[ID]*cell[*Key]
	seen    map[ID]fingerprint // of every key that the provider ever answered
	list    *cell[listing]
	current *cell[ID]
	refresh *time.Timer // pending background refresh; nil if none
	used    bool        // CurrentKeyID was called since the last one
}

// listing is an answer of ValidKeyIDs.
type listing struct {
	ids []ID
	set map[ID]struct{}
}

// NewCached puts a cache in front of a provider. Close it when it is no longer
// used; the provider stays the caller's.
func NewCached(inner Provider, o *CachedOptions) (*Cached, error) {
	if inner == nil {
		return nil, errors.New("keys: cached: no provider to ask")
	}
	c := &Cached{inner: inner, keys: make(map[ID]*cell[*Key]), seen: make(map[ID]fingerprint)}
	if o != nil {
		c.o = *o
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"TTL", &c.o.TTL, 5 * time.Minute},
		{"ListTTL", &c.o.ListTTL, 30 * time.Second},
		{"MaxStale", &c.o.MaxStale, time.Hour},
		{"Timeout", &c.o.Timeout, 10 * time.Second},
	} {
		if *d.value < 0 {
			return nil, fmt.Errorf("keys: cached: %s is %v: use 0 for %v, or more", d.name, *d.value, d.zero)
		}
		if *d.value == 0 {
			*d.value = d.zero
		}
	}
	c.base, c.stop = context.WithCancel(context.Background())
	c.list = &cell[listing]{c: c, call: "ValidKeyIDs", fetch: c.fetchList, deadline: func(at time.Time) time.Time { return at.Add(c.o.ListTTL) }}
	c.current = &cell[ID]{c: c, call: "CurrentKeyID", fetch: c.fetchCurrent, deadline: c.currentDeadline}
	return c, nil
}

// Close ends the background refresh and the calls of the provider under way,
// and returns when they are done; a provider that heeds its context is so at
// once. Later calls fail with ErrUnavailable. Calling it again is fine.
func (c *Cached) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.refresh != nil {
		c.refresh.Stop()
	}
	c.mu.Unlock()
	c.stop()
	c.calls.Wait()
	return nil
}

// GetKey implements Provider.
func (c *Cached) GetKey(ctx context.Context, id ID) (*Key, error) {
	c.mu.Lock()
	l := c.keys[id]
	c.mu.Unlock()
	if l == nil {
		if err := c.know(ctx, id); err != nil {
			return nil, err
		}
		c.mu.Lock()
		l = c.cellOf(id)
		c.mu.Unlock()
	}
	k, _, err := l.get(ctx)
	return k, err
}

// know returns nil if the provider lists the ID, or says that it is current. It
// asks for the list only when the one at hand is past its time.
func (c *Cached) know(ctx context.Context, id ID) error {
	c.mu.Lock()
	current := c.current.has && c.current.value == id
	c.mu.Unlock()
	if current {
		return nil // made current after the list was fetched
	}
	l, old, err := c.list.get(ctx)
	if err != nil {
		return err
	}
	if _, ok := l.set[id]; ok {
		return nil
	}
	if old != nil {
		return fmt.Errorf("keys: cached: %w: cannot tell whether there is a key %q: %w", ErrUnavailable, clip(id), old)
	}
	c.tell(CacheEvent{Kind: CacheUnknown, Call: "GetKey", ID: id})
	return fmt.Errorf("keys: cached: %w: %q", ErrNotFound, clip(id))
}

// CurrentKeyID implements Provider.
func (c *Cached) CurrentKeyID(ctx context.Context) (ID, error) {
	id, _, err := c.current.get(ctx)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = true
	if c.refresh == nil && !c.closed {
		c.schedule()
	}
	return id, nil
}

// ValidKeyIDs implements Provider.
func (c *Cached) ValidKeyIDs(ctx context.Context) ([]ID, error) {
	l, _, err := c.list.get(ctx)
	return slices.Clone(l.ids), err
}

// cellOf returns the cell of a key. The mutex is held.
func (c *Cached) cellOf(id ID) *cell[*Key] {
	l := c.keys[id]
	if l == nil {
		l = &cell[*Key]{
			c: c, call: "GetKey", id: id,
			fetch:    func(ctx context.Context) (*Key, error) { return c.fetchKey(ctx, id) },
			deadline: func(at time.Time) time.Time { return at.Add(c.o.TTL) },
			dead:     func(k *Key) bool { return k.Err() != nil },
		}
		c.keys[id] = l
	}
	return l
}

func (c *Cached) fetchKey(ctx context.Context, id ID) (*Key, error) {
	k, err := c.inner.GetKey(ctx, id)
	if err != nil {
		return nil, err
	}
	if k == nil || k.ID() != id {
		return nil, fmt.Errorf("%w: the provider answered another key than %q", ErrInvalidKey, clip(id))
	}
	f, err := k.fingerprint()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if was, ok := c.seen[id]; ok && !was.equal(f) {
		return nil, fmt.Errorf("%w: the provider answered another secret for %s than before", ErrInvalidKey, id)
	}
	c.seen[id] = f
	// What was derived from the key at hand stays good for its users.
	if l := c.keys[id]; l != nil && l.has && l.value.Err() == nil &&
		l.value.Created().Equal(k.Created()) && l.value.Expires().Equal(k.Expires()) {
		return l.value, nil
	}
	return k, nil
}

func (c *Cached) fetchList(ctx context.Context) (listing, error) {
	ids, err := c.inner.ValidKeyIDs(ctx)
	if err != nil {
		return listing{}, err
	}
	l := listing{ids: slices.Clone(ids), set: make(map[ID]struct{}, len(ids))}
	for _, id := range ids {
		l.set[id] = struct{}{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.keys {
		if _, ok := l.set[id]; !ok && id != c.current.value {
			delete(c.keys, id) // retired
		}
	}
	return l, nil
}

func (c *Cached) fetchCurrent(ctx context.Context) (ID, error) {
	id, err := c.inner.CurrentKeyID(ctx)
	if err != nil {
		return "", err
	}
	if err := id.Validate(); err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.list.value.set[id]; !ok {
		// The list is older than this key: its time is over now.
		if now := time.Now(); now.Before(c.list.deadline(c.list.at)) {
			c.list.at = now.Add(-c.o.ListTTL)
		}
	}
	return id, nil
}

// currentDeadline is when the current ID has to be asked for again. When its key
// expires that is at once, so that sealing goes on with the next; and if that is
// still the same, soon.
func (c *Cached) currentDeadline(at time.Time) time.Time {
	end := at.Add(c.o.TTL)
	l := c.keys[c.current.value]
	if l == nil || !l.has || l.value.Expires().IsZero() {
		return end
	}
	next := l.value.Expires()
	if !at.Before(next) {
		next = at.Add(c.o.ListTTL)
	}
	if next.Before(end) {
		return next
	}
	return end
}

// schedule arranges the next background refresh, after four fifths of the time
// that is left. The mutex is held.
func (c *Cached) schedule() {
	now := time.Now()
	left := c.current.deadline(c.current.at).Sub(now) / 5 * 4
	if c.current.fails > 0 {
		left = c.current.retry.Sub(now)
	}
	// Never in a hurry: an expiry comes nearer with each refresh.
	c.refresh = time.AfterFunc(max(left, min(c.o.ListTTL, c.o.TTL/5*4)), c.renew)
}

// renew fetches the current ID and its key again, if somebody still uses them.
func (c *Cached) renew() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !c.used {
		c.refresh = nil
		return
	}
	c.used = false
	c.calls.Add(1)
	defer c.calls.Done()
	current := c.current.launch()
	c.mu.Unlock()
	<-current.done
	c.mu.Lock()
	if current.err == nil && !c.closed {
		key := c.cellOf(current.value).launch()
		c.mu.Unlock()
		<-key.done
		c.mu.Lock()
	}
	if !c.closed {
		c.schedule()
	}
}

func (c *Cached) tell(e CacheEvent) {
	if c.o.OnEvent != nil {
		c.o.OnEvent(e)
	}
}
