package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// CachedOptions says how long a Cached uses what its provider answered. Zero
// durations mean the default; negative ones are refused. Nil is the zero value.
type CachedOptions struct {
	// TTL is how long a key and the current ID are used without asking again,
	// and so the longest time until a new current key seals. 0 means 5 minutes.
	TTL time.Duration
	// ListTTL is how long the list of valid IDs is used without asking again,
	// and so the longest time for which a retired key goes on opening messages.
	// 0 means 1 minute.
	ListTTL time.Duration
	// MaxStale is how long past their time answers are still used while the
	// provider fails: the outage that sealing and opening survive. A key that was
	// retired in the meantime stays in use for that long, too. 0 means 1 hour; 1
	// means practically none.
	MaxStale time.Duration
	// Timeout bounds one call of the provider. 0 means 10 seconds.
	Timeout time.Duration
	// OnEvent is called with what happens, for metrics and logs. It is called
	// while a caller waits, from several goroutines at once, and never with a
	// lock held. Nil means no callback.
	OnEvent func(CacheEvent)
}

// lookInterval is the flood limit. An ID that is not in the list may be newer
// than the list, so it causes another call of ValidKeyIDs, but only one in this
// time (or in ListTTL, if that is shorter), however many messages name unknown
// IDs. Without a flood a new key is known at once, and in one after this time,
// which is short beside the 15 minutes for which receivers wait for a key. A
// refusal by the provider is believed for the same time.
const lookInterval = 30 * time.Second

// Cached is a Provider in front of another one. It keeps the list of valid IDs,
// the keys that were asked for and the current ID, and limits the calls that
// unknown IDs cause. Package queue puts one in front of every provider that is
// not a Cached already.
//
// If several callers want the same answer at once, the provider is asked once. That
// call ends by Timeout and Close, not with the context of the caller that began
// it. A caller whose own context ends stops waiting and gets its error.
//
// The provider is asked only for IDs that it lists, or that it says are current.
// So messages with forged key IDs cost a bounded rate of calls and no memory. A
// key whose ID has left the list is not given out any more, even if the provider
// would still answer for it; OnRetired tells its users.
//
// Answers in use are fetched again in the background after four fifths of their
// time, so that a caller waits for a slow provider only the first time. An answer
// that was not used for a TTL (or a ListTTL, if that is longer) is left to
// expire. While the provider fails, expired answers are given out for up to
// MaxStale; after that they are dropped.
//
// # Local providers
//
// Ring, File, Folder and Env answer from memory. To cache their answers would save
// nothing, and would keep a key in use that an operator removed. So Cached passes each
// call on to one of them, and a change takes effect at once. It fetches nothing ahead and
// needs no flood limit. It compares the list every ListTTL only to call OnRetired. This
// holds for the types *Ring, *File, *Folder and *Env themselves. A type that embeds one
// of them, or any other Provider, is cached, because its own methods may be slow.
//
// # Keys
//
// Cached never destroys a key that it gave out. It gives out the same *Key while
// the provider answers the same secret and times, even if that answers another
// *Key. A key that its provider destroyed is asked for anew at once. An answer
// with another secret than the ID had before is refused with ErrInvalidKey once the key was
// confirmed (Key.Confirm). Before, it takes the place of the old one, so that a wrong
// secret can be corrected without a restart.
//
// # Errors
//
// GetKey and Check fail with ErrNotFound only if the provider says that there is
// no such key. An error of the provider without a sentinel of this package
// becomes ErrUnavailable, and so does any failure to get the list.
type Cached struct {
	inner    Provider
	local    bool          // inner is a local provider
	interval time.Duration // lookInterval, or ListTTL if that is shorter
	o        CachedOptions
	start    time.Time       // origin of moments
	base     context.Context // of every call of inner; ends with Close
	stop     context.CancelFunc
	noted    atomic.Pointer[Key] // the key of a local provider which was given out last: keys has it. Written with mu held

	mu        sync.Mutex // guards what follows, entries included; never held across a call or a wait
	closed    bool
	list      *entry
	current   *entry
	keys      map[ID]*entry
	seen      map[ID]identity      // of every key that the provider ever answered
	flights   map[*flight]struct{} // calls under way
	lookAt    moment               // unknown IDs cause no call before
	timer     *time.Timer          // runs tick; nil if nothing is to be done
	listeners map[*listener]struct{}
}

// listener is a callback of OnRetired. It is known by its address.
type listener struct{ f func(ID) }

// NewCached puts a cache in front of a provider. Close it when it is no longer
// used; the provider stays the caller's.
func NewCached(inner Provider, o *CachedOptions) (*Cached, error) {
	if inner == nil {
		return nil, errors.New("keys: cached: no provider to ask")
	}
	c := &Cached{
		inner:     inner,
		start:     time.Now(),
		list:      &entry{call: callList, used: never},
		current:   &entry{call: callCurrent, used: never},
		keys:      make(map[ID]*entry),
		seen:      make(map[ID]identity),
		flights:   make(map[*flight]struct{}),
		listeners: make(map[*listener]struct{}),
	}
	switch inner.(type) {
	case *Ring, *File, *Folder, *Env:
		c.local = true
	}
	if o != nil {
		c.o = *o
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		zero  time.Duration
	}{
		{"TTL", &c.o.TTL, 5 * time.Minute},
		{"ListTTL", &c.o.ListTTL, time.Minute},
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
	c.interval = min(lookInterval, c.o.ListTTL)
	c.base, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the background refreshes and the calls of the provider under way,
// and returns when they have ended, which is at once if the provider heeds its
// context. It fails with the error of ctx if that ends first. Later calls of the
// other methods fail with ErrUnavailable. Calling Close again is fine.
func (c *Cached) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	flights := slices.Collect(maps.Keys(c.flights))
	c.mu.Unlock()
	c.stop()
	for _, f := range flights {
		select {
		case <-f.done:
		case <-ctx.Done():
			return fmt.Errorf("keys: cached: close: the provider has not returned: %w", ctx.Err())
		}
	}
	return nil
}

// Format writes the types of the cache and of its provider, whatever the verb:
// the fields are not read, because they change while the cache is in use.
func (c *Cached) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "keys.Cached(%T)", c.inner) }

// LogValue returns what Format writes.
func (c *Cached) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(c)) }

// OnRetired makes f be called with each key ID that leaves the list of valid
// keys, so that what was derived from the key can be dropped: at most ListTTL
// later while the cache is in use. It is also called if the cache drops a key
// that it may not give out any more, because the provider failed for longer than
// MaxStale or the key was not used for that long. f is called by the goroutine
// that fetched the list, never with a lock held, and must be quick. stop ends
// the calls; one that is under way may still be.
func (c *Cached) OnRetired(f func(ID)) (stop func()) {
	l := &listener{f: f}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners[l] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.listeners, l)
	}
}

// GetKey implements Provider.
func (c *Cached) GetKey(ctx context.Context, id ID) (*Key, error) {
	if c.local {
		return c.getLocal(ctx, id)
	}
	now := c.now()
	c.mu.Lock()
	if e := c.keys[id]; e != nil && !c.closed && e.freshness(now) == fresh && c.valid(id, now) {
		c.use(e, now)
		if !c.isCurrent(id, now) { // else it is valid without the list, as for a sender
			c.use(c.list, now)
		}
		k := e.value.key
		c.mu.Unlock()
		c.tell(CacheEvent{Kind: CacheHit, Call: callKey, ID: id})
		return k, nil
	}
	c.mu.Unlock()
	if err := c.Check(ctx, id); err != nil {
		return nil, err
	}
	c.mu.Lock()
	e := c.entryOf(id)
	c.mu.Unlock()
	a, err := c.get(ctx, e)
	return a.key, err
}

// getLocal asks a local provider, and notes which key was given out, so that
// OnRetired can be called when it is gone.
func (c *Cached) getLocal(ctx context.Context, id ID) (*Key, error) {
	k, err := c.inner.GetKey(ctx, id)
	if err != nil {
		kind := CacheError
		if errors.Is(err, ErrNotFound) {
			kind = CacheUnknown
		}
		c.tell(CacheEvent{Kind: kind, Call: callKey, ID: id, Err: err})
		return nil, err
	}
	if c.noted.Load() != k || c.base.Err() != nil {
		if err := c.note(id, k); err != nil {
			return nil, err
		}
	}
	c.tell(CacheEvent{Kind: CacheHit, Call: callKey, ID: id})
	return k, nil
}

// note notes that a key of a local provider is given out.
func (c *Cached) note(id ID, k *Key) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed()
	}
	if e := c.entryOf(id); e.value.key != k {
		e.value.key = k
		c.schedule(c.now())
	}
	c.noted.Store(k)
	return nil
}

// drop forgets a key. The mutex is held.
func (c *Cached) drop(id ID) {
	delete(c.keys, id)
	c.noted.Store(nil)
}

// Local reports whether the provider answers from memory, as Ring, File and Env do: a
// question costs no call.
func (c *Cached) Local() bool { return c.local }

// AtHand returns the key if it is in memory, nil if not. It asks no key store, so it may be
// called as often as one likes.
func (c *Cached) AtHand(id ID) *Key {
	if c.local {
		k, err := c.inner.GetKey(c.base, id)
		if err != nil {
			return nil
		}
		return k
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.keys[id]
	if e == nil || e.freshness(c.now()) == absent {
		return nil
	}
	return e.value.key
}

// Check returns nil if the provider lists the ID or says that it is current, and
// so GetKey may ask for the key. It fails with ErrNotFound if the list does not
// have the ID, with ErrUnavailable if that could not be found out, and with the
// error of ctx if that ended first. Nothing needs to be known about the ID: it
// may come from an attacker.
func (c *Cached) Check(ctx context.Context, id ID) error {
	if c.local {
		if c.base.Err() != nil {
			return errClosed()
		}
		_, err := c.inner.GetKey(ctx, id)
		return err
	}
	now := c.now()
	c.mu.Lock()
	if !c.closed && c.valid(id, now) {
		c.use(c.list, now)
		c.mu.Unlock()
		return nil
	}
	answers := c.list.answers
	c.mu.Unlock()
	a, err := c.get(ctx, c.list)
	if err == nil && a.stale == nil && !a.has(id) {
		a, err = c.look(ctx, a, answers)
	}
	switch {
	case err != nil:
		return err
	case a.has(id):
		return nil
	case a.stale != nil:
		return fmt.Errorf("keys: cached: %w: cannot tell whether there is a key %q: %w", ErrUnavailable, clip(id), a.stale)
	}
	c.tell(CacheEvent{Kind: CacheUnknown, Call: callKey, ID: id})
	return fmt.Errorf("keys: cached: %w: %q", ErrNotFound, clip(id))
}

// valid reports whether an ID is valid by what is at hand. The mutex is held.
func (c *Cached) valid(id ID, now moment) bool {
	return c.isCurrent(id, now) || c.list.freshness(now) == fresh && c.list.value.has(id)
}

// isCurrent reports whether an ID is the current one by an answer that may still
// be given out. The list may be older than that key. The mutex is held.
func (c *Cached) isCurrent(id ID, now moment) bool {
	if c.current.value.current != id {
		return false
	}
	switch c.current.freshness(now) {
	case fresh:
		return true
	case stale:
		return c.current.fails > 0
	default:
		return false
	}
}

// look returns a newer list than a, if the flood limit allows to ask for one or
// another caller is asking. It returns a if not, or if the provider fails: a is
// within its time. answers is how many lists there had been before this question.
func (c *Cached) look(ctx context.Context, a answer, answers int) (answer, error) {
	now := c.now()
	c.mu.Lock()
	if c.closed || c.list.answers != answers { // a came after the question
		c.mu.Unlock()
		return a, nil
	}
	if c.list.flight == nil {
		if now < max(c.lookAt, c.list.retry) {
			c.mu.Unlock()
			return a, nil
		}
		c.lookAt = now + c.interval
	}
	f := c.launch(c.list) //nolint:contextcheck // the call is for others, too: it ends with the Cached
	failing := c.list.fails > 0
	c.mu.Unlock()
	if failing { // no caller should wait for it to fail again
		return a, nil
	}
	c.tell(CacheEvent{Kind: CacheMiss, Call: callList})
	return c.wait(ctx, c.list, f)
}

// CurrentKeyID implements Provider.
func (c *Cached) CurrentKeyID(ctx context.Context) (ID, error) {
	if c.local && c.base.Err() == nil {
		return c.inner.CurrentKeyID(ctx)
	}
	a, err := c.get(ctx, c.current)
	return a.current, err
}

// ValidKeyIDs implements Provider.
func (c *Cached) ValidKeyIDs(ctx context.Context) ([]ID, error) {
	if c.local && c.base.Err() == nil {
		return c.inner.ValidKeyIDs(ctx)
	}
	a, err := c.get(ctx, c.list)
	return slices.Collect(maps.Keys(a.list)), err
}

// entryOf returns the entry of a key. The mutex is held.
func (c *Cached) entryOf(id ID) *entry {
	e := c.keys[id]
	if e == nil {
		e = &entry{call: callKey, id: id, used: never}
		c.keys[id] = e
	}
	return e
}

func (c *Cached) tell(e CacheEvent) {
	if c.o.OnEvent != nil {
		c.o.OnEvent(e)
	}
}

func errClosed() error { return fmt.Errorf("keys: cached: %w: closed", ErrUnavailable) }
