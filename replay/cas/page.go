package cas

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/internal/replaystate"
)

// ErrContention reports that other receivers wrote the same page again and again.
// Nothing was written; the call can be repeated.
var ErrContention = errors.New("cas: other receivers changed the item each time")

// pause waits after a conflict, longer each time, and at random so that the
// receivers come apart. It fails after MaxTries, or when ctx ends.
func (e *engine) pause(ctx context.Context, try int) error {
	if try+1 >= e.o.MaxTries {
		return fmt.Errorf("%w %d times", ErrContention, e.o.MaxTries)
	}
	// Of receivers that meet on a page one is always done: wait about as long as a
	// request takes, and longer if that does not help.
	wait := time.Millisecond << min(try, 3+try/8, 7)
	if !backoff.Sleep(ctx, wait/2+rand.N(wait)) { //nolint:gosec // G404: jitter, not a secret
		return ctx.Err()
	}
	return nil
}

// work is what a call has to do on one page: apply runs the items of the page in
// order, possibly several times, each time from the beginning.
type work struct {
	group string
	key   replaystate.Key
	index uint64
	apply func(env *replaystate.Env, s replaystate.Stream)
	// doubted: what is stored is not what this process knows of it, so the memory may be
	// another one.
	doubted bool
	// remembered: the page may be an old version.
	remembered bool
}

// page names the page of a work.
func (w *work) page() pageID { return pageID{w.key, w.index} }

// view is one attempt at a work: the replaystate.Stream that its items see. After
// a failure it loads nothing more.
type view struct {
	ctx   context.Context //nolint:containedctx // one attempt
	e     *engine
	w     *work
	err   error
	page  *replaystate.Page // nil: none
	head  *replaystate.Head
	item  Item // of the head
	read  bool // the head was read
	other map[uint64]*replaystate.Page
	added bool
	// before is what the page held before the work.
	before replaystate.Counts
}

// Page implements replaystate.Stream. Other pages than that of the work are read
// for the sake of Previous alone.
func (v *view) Page(index uint64) *replaystate.Page {
	if index == v.w.index || v.err != nil {
		return v.page
	}
	if p, ok := v.other[index]; ok {
		return p
	}
	item, err := v.e.b.Get(v.ctx, v.e.pageKey(v.w.group, v.w.key, index))
	if err != nil {
		v.err = err
		return nil
	}
	var p *replaystate.Page
	if item.Version != "" && !isReserved(item) {
		p, v.err = replaystate.DecodePage(item.Value, index, v.e.o.PageSpan)
	}
	if v.other == nil {
		v.other = make(map[uint64]*replaystate.Page)
	}
	v.other[index] = p
	return p
}

// Head implements replaystate.Stream.
func (v *view) Head() *replaystate.Head {
	if v.read || v.err != nil {
		return v.head
	}
	v.read = true
	if v.item, v.err = v.e.b.Get(v.ctx, v.e.headKey(v.w.group, v.w.key)); v.err == nil && v.item.Version != "" {
		v.head, v.err = replaystate.DecodeHead(v.item.Value)
	}
	return v.head
}

// Add implements replaystate.Stream.
func (v *view) Add(h *replaystate.Head, p *replaystate.Page) { v.head, v.page, v.added = h, p, true }

// writesHead reports whether the head has to be written before the page.
func (v *view) writesHead() bool { return v.head != nil && (v.head.Dirty || v.head.Held) }

// progress says how an attempt ended.
type progress uint8

const (
	finished  progress = iota + 1
	unwritten          // finished, if the page is as it was taken to be
	advanced           // a step further: go on at once
	conflict           // another receiver was faster: wait, and go on
)

// run performs a work.
func (e *engine) run(ctx context.Context, w *work) error {
	key := e.pageKey(w.group, w.key, w.index)
	e.mu.Lock()
	var item Item
	item, w.remembered = e.pages[key]
	e.mu.Unlock()
	if !w.remembered {
		w.doubted = true
		var err error
		if item, err = e.b.Get(ctx, key); err != nil {
			return err
		}
	}
	for try := 0; ; {
		next, p, err := e.attempt(ctx, w, key, item)
		if p == unwritten && w.remembered {
			// Nothing has shown yet that the version is still the present one.
			p, w.remembered = advanced, false
			next, err = e.b.Get(ctx, key)
			w.doubted = w.doubted || next.Version != item.Version
		}
		if err != nil {
			e.forget(key) // whether it was written is not known
			return err
		}
		w.doubted = w.doubted || p == conflict
		e.remember(key, next, w.doubted)
		w.remembered = w.remembered && next.Version == item.Version
		item = next
		switch p {
		case finished, unwritten:
			return nil
		case conflict:
			if err := e.pause(ctx, try); err != nil {
				return err
			}
			if try++; try == 1 {
				continue // the wait was shorter than a request
			}
			// By now it has changed once more, most likely. A page that others write all the
			// time would never be this one's turn if it was written as before the wait.
			if item, err = e.b.Get(ctx, key); err != nil {
				return err
			}
			e.remember(key, item, true)
		}
	}
}

// reserved is the value of a page that is being made. It holds the place while
// its maker reads the head, so that what is folded meanwhile has to pass it.
var reserved = []byte{0}

func isReserved(item Item) bool { return len(item.Value) == 1 && item.Value[0] == reserved[0] }

// attempt applies the work to one version of the page and writes it. It returns
// the page as it is now.
func (e *engine) attempt(ctx context.Context, w *work, key string, item Item) (Item, progress, error) {
	v, err := e.apply(ctx, w, item)
	if err != nil {
		return item, 0, err
	}
	switch {
	case v.added && item.Version == "":
		next, made, err := e.b.Create(ctx, key, reserved)
		return next, either(made, advanced), err
	case v.added:
		return e.fill(ctx, v, key, item)
	case v.page == nil:
		return e.refuse(ctx, v, key, item)
	case !v.page.Dirty:
		return item, unwritten, nil
	}
	if done, err := e.writeHead(ctx, v); err != nil || !done {
		return item, conflict, err
	}
	next, done, err := e.b.Swap(ctx, key, item.Version, replaystate.AppendPage(nil, v.page))
	if done && err == nil {
		e.count(w.group, w.key.Sender, size(v.page).Sub(v.before))
	}
	return next, either(done, finished), err
}

// apply applies the work to one version of the page. It writes nothing but the
// group.
func (e *engine) apply(ctx context.Context, w *work, item Item) (*view, error) {
	v := &view{ctx: ctx, e: e, w: w}
	g, err := e.load(ctx, v, item)
	if err != nil {
		return nil, err
	}
	v.before = size(v.page)
	w.apply(e.env(w.group, &g), v)
	if v.err != nil {
		return nil, v.err
	}
	if g.Dirty {
		e.noteNewest(w.group, g.Newest)
		if err := e.raise(ctx, w.group, g); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// noteNewest keeps the newest SealedAt that this process consumed, or refused for lack of room,
// for the next sweep. It is not written: a sweep finds what was consumed in the heads, and the
// process that sweeps for lack of room is one that refused.
func (e *engine) noteNewest(group string, sealedAt int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.cache(group)
	c.newest = max(c.newest, sealedAt)
}

func either(done bool, p progress) progress {
	if done {
		return p
	}
	return conflict
}

// load takes the page apart, and reads the head and the group if there is none.
func (e *engine) load(ctx context.Context, v *view, item Item) (g replaystate.Group, err error) {
	if item.Version != "" && !isReserved(item) {
		if v.page, err = replaystate.DecodePage(item.Value, v.w.index, e.o.PageSpan); err != nil {
			return g, err
		}
		return e.group(ctx, v.w.group, false)
	}
	v.w.doubted = true
	if v.Head() == nil && v.err == nil {
		// If the stream was dropped, its mark is in the group by now.
		return e.group(ctx, v.w.group, true)
	}
	if v.err != nil {
		return g, v.err
	}
	return e.group(ctx, v.w.group, false)
}

// fill writes a page in the place that was reserved for it, and first the head of
// its stream.
func (e *engine) fill(ctx context.Context, v *view, key string, item Item) (Item, progress, error) {
	delta := size(v.page)
	if v.item.Version == "" {
		_, made, err := e.b.Create(ctx, e.headKey(v.w.group, v.w.key), replaystate.AppendHead(nil, v.head))
		if err != nil || !made {
			return item, conflict, err
		}
		delta.Streams++
	} else if done, err := e.writeHead(ctx, v); err != nil || !done {
		return item, conflict, err
	}
	next, done, err := e.b.Swap(ctx, key, item.Version, replaystate.AppendPage(nil, v.page))
	if !done {
		delta.Records, delta.Recents = 0, 0
	}
	e.count(v.w.group, v.w.key.Sender, delta)
	return next, either(done, finished), err
}

// writeHead writes a head that has changed, before the page of which it says that it is in use. If it
// said so already it gets another version all the same: see fold.
func (e *engine) writeHead(ctx context.Context, v *view) (done bool, err error) {
	if !v.writesHead() {
		return true, nil
	}
	_, done, err = e.b.Swap(ctx, e.headKey(v.w.group, v.w.key), v.item.Version, replaystate.AppendHead(nil, v.head))
	return done, err
}

// refuse ends a work that needs no page: it gives up the place that was reserved,
// and writes the head if the rejection is entered there. It does so last, so that
// no page has turned up that says otherwise.
func (e *engine) refuse(ctx context.Context, v *view, key string, item Item) (Item, progress, error) {
	if item.Version != "" {
		next, done, err := e.b.Swap(ctx, key, item.Version, nil)
		if err != nil || !done {
			return next, conflict, err
		}
		item = next
	} else if v.w.remembered {
		return item, unwritten, nil
	}
	if v.head == nil || !v.head.Dirty {
		return item, unwritten, nil
	}
	done, err := e.writeHead(ctx, v)
	return item, either(done, finished), err
}

// env returns what the functions of replaystate know besides the stream.
func (e *engine) env(group string, g *replaystate.Group) *replaystate.Env {
	return &replaystate.Env{
		Now: e.now(), Birth: e.stamped().Birth, Group: g, Span: e.o.PageSpan, ParkedTTL: e.limits.ParkedTTL,
		Room: func(k replaystate.Key, stream bool) replaystate.Outcome {
			e.mu.Lock()
			defer e.mu.Unlock()
			c := e.cache(group)
			var store, sender replaystate.Counts
			for _, other := range e.groups {
				store.Add(other.counts)
			}
			if s := c.senders[k.Sender]; s != nil {
				sender = *s
			}
			return e.limits.Room(store, c.counts, sender, stream)
		},
		Live: func(o replaystate.Observed) (int64, bool) { return e.live(group, o) },
	}
}

func size(p *replaystate.Page) (n replaystate.Counts) {
	if p != nil {
		n.Records, n.Recents = int64(p.Records()), int64(p.Recents())
	}
	return n
}

// count adds to what the last sweep counted.
func (e *engine) count(group, sender string, d replaystate.Counts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.cache(group)
	g.counts.Add(d)
	s := g.senders[sender]
	if s == nil {
		s = &replaystate.Counts{}
		g.senders[sender] = s
	}
	s.Add(d)
}

// remember keeps a page as it is now. It is strange if this process has not left it so:
// then the next answer needs a look at the item of the store.
func (e *engine) remember(key string, item Item, strange bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if strange {
		e.strange++
	}
	for old := range e.pages {
		if len(e.pages) < maxCached {
			break
		}
		delete(e.pages, old)
	}
	e.pages[key] = item
}

func (e *engine) forget(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.pages, key)
}
