package keys

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"time"
)

// How long a failing provider is left alone before the same question is asked
// again: doubled with each failure, from the one to the other.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// minRefresh bounds how often an answer is fetched ahead of its time: not more
// than once in that time, however short its time is.
const minRefresh = time.Second

// The questions, by their method of Provider.
const (
	callKey     = "GetKey"
	callCurrent = "CurrentKeyID"
	callList    = "ValidKeyIDs"
)

// moment is a point in time by the monotonic clock, so that no change of the
// wall clock makes an answer last longer: the time since the Cached was made.
type moment = time.Duration

// never is a moment so long ago that it counts for nothing.
const never = moment(math.MinInt64 / 2)

// answer is what a provider said. Only the field of its question is set.
type answer struct {
	key     *Key
	current ID
	list    map[ID]struct{}
	stale   error // why it is given out past its time; nil if it is not
}

func (a *answer) has(id ID) bool {
	_, ok := a.list[id]
	return ok
}

// entry is one question, the last answer to it, and what came of asking since.
// The mutex of its Cached guards it.
type entry struct {
	call string
	id   ID // of callKey

	value   answer
	filled  bool   // there is a value
	at      moment // when value was fetched
	due     moment // from when on it is fetched again if it is in use
	expires moment // the end of its time
	dropped moment // the end of the time for which it is given out while the provider fails

	answers int     // how many there were
	used    moment  // when a caller last asked
	err     error   // of the last call; nil if it was answered
	retry   moment  // the provider is not asked before
	fails   int     // calls that failed since the last answer
	flight  *flight // the call under way; nil if there is none
}

// freshness is what an entry's answer is good for.
type freshness int

const (
	absent freshness = iota // there is none, or it may not be given out any more
	fresh                   // within its time
	stale                   // past its time: given out while the provider fails
)

// flight is one call of the provider, for all callers that wait for it.
type flight struct {
	done  chan struct{} // closed when value and err are set, and events told
	value answer
	err   error
}

// freshness returns the state of an entry. The mutex is held.
func (e *entry) freshness(now moment) freshness {
	switch {
	case !e.usable():
		return absent
	case now < e.expires:
		return fresh
	case now < e.dropped:
		return stale
	default:
		return absent
	}
}

// next is from when on an entry in use is fetched again. The mutex is held.
func (e *entry) next(now moment) moment {
	if e.fails > 0 || e.freshness(now) == absent {
		return e.retry
	}
	return e.due
}

// usable reports whether there is an answer, whatever its age. The mutex is held.
func (e *entry) usable() bool {
	return e.filled && (e.value.key == nil || e.value.key.Err() == nil)
}

// clear drops the answer. The mutex is held.
func (e *entry) clear() { e.value, e.filled = answer{}, false }

func (c *Cached) now() moment { return time.Since(c.start) }

// date sets the times of an entry by when its answer was fetched. The mutex is
// held.
func (c *Cached) date(e *entry, now moment) {
	ttl := c.o.TTL
	if e == c.list {
		ttl = c.o.ListTTL
	}
	ahead := ttl / 5 * 4
	if e == c.current {
		ttl = c.currentTTL(now)
		// Not in a hurry: the expiry of the key comes nearer with each refresh.
		ahead = max(ttl/5*4, min(c.interval, ahead))
	}
	e.due = e.at + max(ahead, minRefresh)
	e.expires = e.at + ttl
	e.dropped = e.expires + c.o.MaxStale
}

// currentTTL is how long the current ID is used. If its key expires the ID is
// asked for at once, so that sealing goes on with the next one; if the answer is
// then still the same, soon. The mutex is held.
func (c *Cached) currentTTL(now moment) time.Duration {
	e := c.keys[c.current.value.current]
	if e == nil || !e.filled || e.value.key.Expires().IsZero() {
		return c.o.TTL
	}
	left := now - c.current.at + time.Until(e.value.key.Expires())
	if left <= 0 {
		left = c.interval
	}
	return min(c.o.TTL, left)
}

// kept reports whether an entry is kept fresh in the background: it has an answer,
// and was asked for recently. What has none is asked for by the callers that want
// it. The mutex is held.
func (c *Cached) kept(e *entry, now moment) bool {
	return c.local && e == c.list || e.filled && now-e.used < max(c.o.TTL, c.o.ListTTL)
}

// use notes that an entry is in use, and fetches it ahead of its time if that is
// due. The mutex is held, and the Cached is not closed.
func (c *Cached) use(e *entry, now moment) {
	e.used = now
	if now >= e.due {
		c.refresh(e, now)
	}
}

// get answers a question: from memory, or by asking the provider.
func (c *Cached) get(ctx context.Context, e *entry) (answer, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return answer{}, errClosed()
	}
	now := c.now()
	c.use(e, now)
	state := e.freshness(now)
	switch {
	case state == fresh:
		a := e.value
		c.mu.Unlock()
		c.tell(CacheEvent{Kind: CacheHit, Call: e.call, ID: e.id})
		return a, nil
	case now < e.retry:
		return c.fallback(e, e.err)
	}
	f := c.launch(e) //nolint:contextcheck // the call is for others, too: it ends with the Cached
	if state == stale && e.fails > 0 {
		// It failed before: no caller should wait for it to fail again.
		return c.fallback(e, e.err)
	}
	c.mu.Unlock()
	c.tell(CacheEvent{Kind: CacheMiss, Call: e.call, ID: e.id})
	return c.wait(ctx, e, f)
}

// wait waits for a call of the provider.
func (c *Cached) wait(ctx context.Context, e *entry, f *flight) (answer, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
	if f.err == nil {
		return f.value, nil
	}
	c.mu.Lock()
	return c.fallback(e, f.err)
}

// fallback answers without the provider, which failed: with what is at hand, or
// with the failure. It unlocks the mutex.
func (c *Cached) fallback(e *entry, failure error) (answer, error) {
	state, a := e.freshness(c.now()), e.value
	c.mu.Unlock()
	switch state {
	case fresh:
		return a, nil
	case stale:
		c.tell(CacheEvent{Kind: CacheStale, Call: e.call, ID: e.id, Err: failure})
		a.stale = failure
		return a, nil
	default:
		return answer{}, failure
	}
}

// refresh begins to fetch an entry in the background if that is due. The mutex
// is held, and the Cached is not closed.
func (c *Cached) refresh(e *entry, now moment) {
	if e.flight == nil && now >= e.next(now) {
		c.launch(e)
	}
}

// launch asks the provider, unless a call for that entry is under way. The mutex
// is held, and the Cached is not closed.
func (c *Cached) launch(e *entry) *flight {
	if e.flight != nil {
		return e.flight
	}
	f := &flight{done: make(chan struct{})}
	e.flight = f
	c.flights[f] = struct{}{}
	go c.fly(e, f)
	return f
}

// fly runs a call of the provider from beginning to end.
func (c *Cached) fly(e *entry, f *flight) {
	ctx, cancel := context.WithTimeout(c.base, c.o.Timeout)
	defer cancel()
	start := time.Now()
	f.value, f.err = c.ask(ctx, e)
	if f.err != nil {
		f.err = c.classify(ctx, e.call, f.err)
	}
	took := time.Since(start)
	c.mu.Lock()
	retired := c.land(e, f)
	c.mu.Unlock()
	c.retire(retired)
	kind := CacheFetch
	if f.err != nil {
		kind = CacheError
	}
	c.tell(CacheEvent{Kind: kind, Call: e.call, ID: e.id, Took: took, Err: f.err})
	c.mu.Lock()
	delete(c.flights, f)
	c.mu.Unlock()
	close(f.done)
}

// ask asks the provider and checks what it answers.
func (c *Cached) ask(ctx context.Context, e *entry) (answer, error) {
	switch e.call {
	case callList:
		ids, err := c.inner.ValidKeyIDs(ctx)
		list := make(map[ID]struct{}, len(ids))
		for _, id := range ids {
			list[id] = struct{}{}
		}
		return answer{list: list}, err
	case callCurrent:
		id, err := c.inner.CurrentKeyID(ctx)
		if err == nil {
			err = id.Validate()
		}
		if err == nil {
			c.prepare(id)
		}
		return answer{current: id}, err
	}
	k, err := c.inner.GetKey(ctx, e.id)
	if err != nil {
		return answer{}, err
	}
	if k == nil || k.ID() != e.id {
		return answer{}, fmt.Errorf("%w: the provider answered another key than %q", ErrInvalidKey, clip(e.id))
	}
	fp, err := k.fingerprint()
	if err != nil {
		return answer{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.seen[e.id] // zero if the ID named none
	if was.refuses(fp) {
		return answer{}, fmt.Errorf("%w: the provider answered another secret for %s than before", ErrInvalidKey, e.id)
	}
	// What was derived from the key at hand stays good for its users.
	if old := e.value.key; old != nil && was.print.equal(fp) && old.Err() == nil && old.Alike(k) {
		k = old
	}
	c.seen[e.id] = was.next(k, fp)
	return answer{key: k}, nil
}

// prepare fetches the key that takes the place of the current one before that is
// known, so that no sender waits for it. That it fails is found by the sender.
func (c *Cached) prepare(id ID) {
	c.mu.Lock()
	if c.closed || !c.current.filled || c.keys[id] != nil {
		c.mu.Unlock()
		return
	}
	e := c.entryOf(id)
	e.used = c.now()
	f := c.launch(e)
	c.mu.Unlock()
	<-f.done
}

// land takes over what a call brought, and returns the IDs that left the list.
// The mutex is held.
func (c *Cached) land(e *entry, f *flight) (retired []ID) {
	now := c.now()
	e.flight = nil
	if e.call == callKey && c.keys[e.id] != e {
		// Its ID left the list during the call, so no caller may begin to use it.
		f.value, f.err = answer{}, fmt.Errorf("keys: cached: %w: %q", ErrNotFound, e.id)
		return nil
	}
	e.err = f.err
	switch {
	case f.err == nil:
		old := e.value
		e.value, e.filled, e.at, e.retry, e.fails = f.value, true, now, now, 0
		e.answers++
		c.date(e, now)
		if e.id == c.current.value.current {
			c.date(c.current, now) // by the expiry of its key
		}
		switch e.call {
		case callList:
			retired = c.landList(old.list, now)
		case callCurrent:
			retired = c.landCurrent(old.current, now)
		}
	case errors.Is(f.err, ErrNotFound):
		// The provider is sure, so an older answer is worth nothing.
		if e.value.key != nil {
			retired = []ID{e.id}
		}
		e.clear()
		e.retry, e.fails = now+c.interval, 0
	default:
		wait := min(lastRetry, firstRetry<<min(e.fails, 8))
		if e.freshness(now) == fresh {
			wait = max(wait, (e.expires-now)/4) // no caller needs it yet: four more attempts will do
		}
		e.retry = now + wait
		e.fails++
	}
	if e.call == callKey && !e.usable() && e.id == c.current.value.current {
		c.current.clear() // the provider may have made another one current
	}
	c.schedule(now)
	return retired
}

// landList drops the keys whose IDs are not in the new list, and returns these
// IDs. The mutex is held.
func (c *Cached) landList(old map[ID]struct{}, now moment) (retired []ID) {
	left := func(id ID) bool { return !c.list.value.has(id) && !c.isCurrent(id, now) }
	for id, e := range c.keys {
		if left(id) || c.local && e.value.key.Err() != nil {
			c.drop(id)
			retired = append(retired, id)
		}
	}
	for id := range old {
		if left(id) && !slices.Contains(retired, id) {
			retired = append(retired, id)
		}
	}
	if id := c.current.value.current; c.current.filled && !c.list.value.has(id) && !c.closed {
		c.launch(c.current) // one of the two answers is older
	}
	return retired
}

// landCurrent notes that another key has taken the place of the current one: a
// list without it is older, and the key before it may have left the list already.
// The mutex is held.
func (c *Cached) landCurrent(old ID, now moment) (retired []ID) {
	if old == c.current.value.current || !c.list.filled {
		return nil
	}
	if !c.list.value.has(c.current.value.current) && c.list.freshness(now) == fresh && !c.closed {
		c.launch(c.list)
	}
	if c.keys[old] == nil || c.list.value.has(old) {
		return nil
	}
	c.drop(old)
	return []ID{old}
}

// entries returns every entry. The mutex is held.
func (c *Cached) entries() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if !yield(c.list) || !yield(c.current) {
			return
		}
		for _, e := range c.keys {
			if !yield(e) {
				return
			}
		}
	}
}

// schedule arranges the next tick: when an entry in use is due, or the answer of
// another may not be given out any more. The mutex is held.
func (c *Cached) schedule(now moment) {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	if c.closed {
		return
	}
	next := moment(math.MaxInt64)
	for e := range c.entries() {
		switch {
		case e.flight != nil: // when it lands
		case c.kept(e, now):
			next = min(next, e.next(now))
		case e.filled:
			next = min(next, e.dropped)
		}
	}
	if next < math.MaxInt64 {
		c.timer = time.AfterFunc(next-now, c.tick)
	}
}

// tick fetches what is in use and due, and drops what may not be given out any
// more.
func (c *Cached) tick() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	now := c.now()
	var dropped []ID
	for e := range c.entries() {
		if e.filled && e.freshness(now) == absent {
			if e.call == callKey {
				dropped = append(dropped, e.id)
			}
			e.clear()
		}
		switch {
		case e.flight != nil:
		case c.kept(e, now):
			c.refresh(e, now)
		case e.call == callKey && !e.filled && !c.local && now >= e.retry:
			c.drop(e.id)
		}
	}
	c.schedule(now)
	c.mu.Unlock()
	c.retire(dropped)
}

// retire tells the listeners. The mutex is not held.
func (c *Cached) retire(ids []ID) {
	if len(ids) == 0 {
		return
	}
	c.mu.Lock()
	listeners := slices.Collect(maps.Keys(c.listeners))
	c.mu.Unlock()
	for _, l := range listeners {
		for _, id := range ids {
			l.f(id)
		}
	}
}

// classify gives an error of the provider a sentinel if it has none. A context
// that ended was that of the call, not that of the error's reader.
func (c *Cached) classify(ctx context.Context, call string, err error) error {
	switch {
	case c.base.Err() != nil:
		return errClosed()
	case ctx.Err() != nil:
		return fmt.Errorf("keys: cached: %w: %s: no answer within %v", ErrUnavailable, call, c.o.Timeout)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("keys: cached: %w: %s: %s", ErrUnavailable, call, err.Error())
	case call == callList && errors.Is(err, ErrNotFound):
		// That there is no list proves of no key that it is not there.
		return fmt.Errorf("keys: cached: %w: %s: %s", ErrUnavailable, call, err.Error())
	}
	for _, s := range []error{ErrNotFound, ErrUnavailable, ErrInvalidKey, ErrDestroyed, ErrExpired} {
		if errors.Is(err, s) {
			return fmt.Errorf("keys: cached: %w", err)
		}
	}
	return fmt.Errorf("keys: cached: %w: %s: %w", ErrUnavailable, call, err)
}
