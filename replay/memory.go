package replay

import (
	"context"
	"crypto/rand"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// MemoryOptions configures a Memory. Nil is the zero value.
type MemoryOptions struct {
	// Bounds says how much is remembered and for how long. A record takes about
	// 100 bytes, a recent message 30, an interval 10, a stream 200.
	Bounds Bounds
}

// Memory is a Store in the memory of one process. It forgets everything when the
// process ends: what was consumed before a restart can be replayed after it,
// within its freshness. Receivers in several processes do not see each other's
// claims. If either matters, use a store that is durable and shared.
//
// It starts no goroutine: calls drop some of what is past its time. It is safe for
// concurrent use; one mutex guards it all. Its clock is the process's monotonic
// clock: setting the wall clock changes no lease.
type Memory struct{ engineStore }

var _ Store = (*Memory)(nil)

// NewMemory returns an empty store. Bounds that are refused are an error.
func NewMemory(o *MemoryOptions) (*Memory, error) {
	var b Bounds
	if o != nil {
		b = o.Bounds
	}
	b, err := b.Resolved()
	if err != nil {
		return nil, err
	}
	m := &memory{start: time.Now(), limits: b.Limits(), groups: make(map[string]*memoryGroup)}
	m.open.placed = func(w *pageWatch, place int) { w.place = place }
	m.frozen.placed = m.open.placed
	m.stamp.Birth = m.now()
	_, _ = rand.Read(m.stamp.ID[:]) // never fails: it ends the process instead
	return &Memory{engineStore{m}}, nil
}

// memorySpan is the number of sequences of a page: a multiple of 64, small enough
// that a search in a page is cheap, large enough that pages are few.
const memorySpan = 256

// memory is the engine of a Memory.
type memory struct {
	start  time.Time // origin of the clock; read by the monotonic clock
	limits replaystate.Limits

	mu     sync.Mutex // guards what follows, never held across a wait
	stamp  replaystate.Stamp
	losses []replaystate.Loss
	counts replaystate.Counts
	bytes  int64 // of encoded heads and frozen pages
	groups map[string]*memoryGroup
	open   dueHeap[*pageWatch] // when to fold or freeze each open page
	frozen dueHeap[*pageWatch] // when a record of each frozen page is past its time
}

type memoryGroup struct {
	state    replaystate.Group
	counts   replaystate.Counts
	senders  map[string]*memorySender
	rotation []*memorySender // the order in which old streams are looked for
	next     int
}

type memorySender struct {
	name    string
	group   *memoryGroup
	counts  replaystate.Counts
	streams map[[16]byte]*memoryStream
	old     dueHeap[*memoryStream] // when each stream may be too old
	place   int                    // in the rotation
}

// memoryStream holds its head encoded: it is needed once for each page.
type memoryStream struct {
	sender *memorySender
	id     [16]byte
	head   []byte
	pages  []memoryPage // ascending by index
}

// memoryPage is open while it is in use, and frozen, that is encoded, while it
// waits for its records only. Its watch is in one of the two heaps of the memory.
type memoryPage struct {
	index  uint64
	open   *replaystate.Page
	frozen []byte
	watch  *pageWatch
}

// pageWatch has a page looked at again.
type pageWatch struct {
	stream *memoryStream
	index  uint64
	place  int // in its heap
}

// now is the store's clock in Unix milliseconds.
func (m *memory) now() int64 { return m.start.UnixMilli() + time.Since(m.start).Milliseconds() }

// call runs do on the streams of one call, under the mutex.
func (m *memory) call(group string, write bool, do func(c *memoryCall)) replaystate.Stamp {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &memoryCall{m: m, group: m.groups[group]}
	if c.group == nil {
		c.group = &memoryGroup{senders: make(map[string]*memorySender)}
		if write {
			m.groups[group] = c.group
		}
	}
	c.env = replaystate.Env{
		Now: m.now(), Birth: m.stamp.Birth, Group: &c.group.state, Span: memorySpan, ParkedTTL: m.limits.ParkedTTL, Room: c.room,
	}
	if write {
		m.stamp.Change++
		m.sweep(c.group, c.env.Now)
	}
	do(c)
	return m.stamp
}

// Begin implements replaystate.Engine.
func (m *memory) Begin(_ context.Context, group string, r []replaystate.Request) ([]replaystate.Claim, replaystate.Stamp, error) {
	out := make([]replaystate.Claim, len(r))
	stamp := m.call(group, true, func(c *memoryCall) {
		for i := range r {
			c.on(r[i].Key, r[i].Sequence, func() { out[i] = replaystate.Begin(&c.env, c, &r[i]) })
		}
	})
	return out, stamp, nil
}

// Renew implements replaystate.Engine.
func (m *memory) Renew(_ context.Context, group string, l []replaystate.Lease) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out := make([]replaystate.Outcome, len(l))
	stamp := m.call(group, true, func(c *memoryCall) {
		for i := range l {
			c.on(l[i].Key, l[i].Sequence, func() { out[i] = replaystate.Extend(&c.env, c, &l[i]) })
		}
	})
	return out, stamp, nil
}

// Finish implements replaystate.Engine.
func (m *memory) Finish(_ context.Context, group string, f []replaystate.Finish) ([]replaystate.Outcome, replaystate.Stamp, error) {
	out := make([]replaystate.Outcome, len(f))
	stamp := m.call(group, true, func(c *memoryCall) {
		for i := range f {
			c.on(f[i].Key, f[i].Sequence, func() { out[i] = replaystate.End(&c.env, c, &f[i]) })
		}
	})
	return out, stamp, nil
}

// Look implements replaystate.Engine.
func (m *memory) Look(_ context.Context, group string, q []replaystate.Query) ([]replaystate.Look, replaystate.Stamp, error) {
	out := make([]replaystate.Look, len(q))
	stamp := m.call(group, false, func(c *memoryCall) {
		for i := range q {
			c.on(q[i].Key, q[i].Sequence, func() { out[i] = replaystate.Examine(&c.env, c, &q[i]) })
		}
	})
	return out, stamp, nil
}

// Note implements replaystate.Engine.
func (m *memory) Note(_ context.Context, group string, n []replaystate.Note) ([]uint64, replaystate.Stamp, error) {
	out := make([]uint64, len(n))
	stamp := m.call(group, true, func(c *memoryCall) {
		for i := range n {
			c.on(n[i].Key, n[i].Range.First, func() {
				if h := c.Head(); h != nil {
					out[i] = replaystate.Enter(h, &n[i])
				}
			})
		}
	})
	return out, stamp, nil
}

// Probe implements replaystate.Engine.
func (m *memory) Probe(_ context.Context, group string) (out replaystate.Outcome, _ error) {
	m.call(group, true, func(c *memoryCall) { out = m.limits.Open(m.counts, c.group.counts) })
	return out, nil
}

// Streams implements replaystate.Engine.
func (m *memory) Streams(_ context.Context, group string) iter.Seq2[replaystate.Entry, error] {
	return func(yield func(replaystate.Entry, error) bool) {
		for _, k := range m.keys(group) {
			s := m.snapshot(group, k)
			if s.stream == nil {
				continue // gone meanwhile
			}
			e := replaystate.Entry{Key: k, Account: s.count(k)}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// memorySnapshot is a copy of a stream.
type memorySnapshot struct {
	stream *memoryStream // nil if it is not held
	now    int64
}

// snapshot copies a stream. To count what is in it takes longer, and must not keep the calls of
// other senders and groups waiting.
func (m *memory) snapshot(group string, k replaystate.Key) (s memorySnapshot) {
	m.call(group, false, func(c *memoryCall) {
		c.open(k)
		if c.stream == nil {
			return
		}
		s.now = c.env.Now
		s.stream = &memoryStream{head: c.stream.head, pages: slices.Clone(c.stream.pages)} // what is encoded is never changed
		for i := range s.stream.pages {
			if p := &s.stream.pages[i]; p.open != nil {
				p.open = p.open.Copy()
			}
		}
	})
	return s
}

func (s *memorySnapshot) count(k replaystate.Key) replaystate.Account {
	pages := make([]*replaystate.Page, len(s.stream.pages))
	for i := range pages {
		pages[i] = s.stream.pages[i].read()
	}
	return replaystate.Count(&replaystate.Env{Now: s.now}, k, s.stream.decode(), pages)
}

// keys returns the streams of a group.
func (m *memory) keys(group string) []replaystate.Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []replaystate.Key
	if g := m.groups[group]; g != nil {
		for name, s := range g.senders {
			for id := range s.streams {
				all = append(all, replaystate.Key{Sender: name, Stream: id})
			}
		}
	}
	return all
}

// Sizes in bytes of what a Memory holds, for Stats: measured, rounded up.
const (
	recordBytes = 96
	recentBytes = 28
	streamBytes = 184
)

// Stats implements replaystate.Engine.
func (m *memory) Stats(context.Context) (replaystate.Stats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return replaystate.Stats{
		Stamp: m.stamp, Counts: m.counts, Limits: m.limits,
		Bytes: m.bytes + m.counts.Records*recordBytes + m.counts.Recents*recentBytes + m.counts.Streams*streamBytes,
	}, nil
}

// Group implements replaystate.Engine.
func (m *memory) Group(_ context.Context, group string) (g replaystate.Group, _ error) {
	m.call(group, false, func(c *memoryCall) { g = c.group.state })
	return g, nil
}

// Change implements replaystate.Engine.
func (m *memory) Change(_ context.Context, group string, do func(*replaystate.Group)) error {
	m.call(group, true, func(c *memoryCall) { do(&c.group.state) })
	return nil
}

// History implements replaystate.Engine.
func (m *memory) History(context.Context) (replaystate.History, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return replaystate.History{Stamp: m.stamp, Losses: slices.Clone(m.losses)}, nil
}

// Accept implements replaystate.Engine.
func (m *memory) Accept(_ context.Context, lost replaystate.Stamp) (replaystate.Loss, error) {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails: it ends the process instead
	m.mu.Lock()
	defer m.mu.Unlock()
	h := replaystate.History{Stamp: m.stamp, Losses: m.losses}
	l, _ := h.Accept(lost, id, m.now())
	m.stamp, m.losses = h.Stamp, h.Losses
	return l, nil
}
