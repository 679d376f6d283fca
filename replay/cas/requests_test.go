package cas_test

import (
	"context"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
	"github.com/queue-runtime/queue/replay/replaytest"
)

func request(stream byte, n uint64) replay.Request {
	now := time.Now()
	id := replay.Identity{Sender: "sender", Sequence: n}
	binary.BigEndian.PutUint64(id.Stream[:], uint64(now.UnixMilli()>>30<<46))
	id.Stream[15] = stream
	return replay.Request{
		ID: id, Token: replay.NewToken(), SealedAt: now, FreshUntil: now.Add(time.Hour), Now: now,
		RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Hour, Previous: n - 1, Settled: n - 1,
	}
}

// TestRequests: a call makes one request for each page that is known, all at once.
func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		s := open(t, m, &cas.Options{ChangeInterval: 24 * time.Hour})
		batch := func(from uint64, streams, each int) (r []replay.Request) {
			for i := range streams {
				for n := range uint64(each) {
					r = append(r, request(byte(i), from+n))
					if n == 0 {
						r[len(r)-1].Previous = 0
					}
				}
			}
			return r
		}
		begin := func(r []replay.Request, want int) {
			t.Helper()
			m.calls = 0
			m.delay = time.Millisecond
			start := time.Now()
			c, err := s.Begin(t.Context(), "group", r)
			if err != nil {
				t.Fatal(err)
			}
			for i := range c {
				if c[i].Err != nil || c[i].Gap {
					t.Fatalf("sequence %d: %+v", r[i].ID.Sequence, c[i])
				}
			}
			took := time.Since(start)
			m.delay = 0
			// A write waits before and behind it, each up to 1 ms.
			if want > 0 && (m.calls != 2*want || took > 2*time.Millisecond) {
				t.Errorf("%d messages: %d requests in %v, want %d at once", len(r), m.calls/2, took, want)
			}
		}
		begin(batch(1, 3, 10), 0) // makes the pages
		begin(batch(11, 1, 32), 1)
		begin(batch(43, 3, 32), 3)
		r := batch(200, 2, 8)
		begin(r, 2)
		m.calls = 0
		f := make([]replay.Finish, len(r))
		for i := range r {
			f[i] = replay.Finish{ID: r[i].ID, Token: r[i].Token, Kind: replay.Consumed}
		}
		if _, err := s.Finish(t.Context(), "group", f); err != nil || m.calls != 4 {
			t.Errorf("Finish: %d requests, %v, want 2", m.calls/2, err)
		}
		begin(batch(1020, 1, 10), 0) // from one page into the next
	})
}

// TestBatchRequests: a call is one request if the backend takes batches, as long as
// the pages are known, and what fails of it alone is repeated.
func TestBatchRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		o := &cas.Options{ChangeInterval: 24 * time.Hour}
		s := open(t, batching{m}, o)
		call := func(s *cas.Store, from uint64) (requests int) {
			t.Helper()
			var r []replay.Request
			var f []replay.Finish
			for stream := range byte(16) {
				for n := range uint64(2) {
					r = append(r, request(stream, from+n))
					r[len(r)-1].Previous = 0 // a gap in an old version would be looked for in the head
				}
			}
			m.calls = 0
			c, err := s.Begin(t.Context(), "group", r)
			if err != nil {
				t.Fatal(err)
			}
			requests = m.calls / 2
			for i := range r {
				if c[i].Err != nil {
					t.Fatalf("stream %d, sequence %d: %v", r[i].ID.Stream[15], r[i].ID.Sequence, c[i].Err)
				}
				f = append(f, replay.Finish{ID: r[i].ID, Token: r[i].Token, Kind: replay.Consumed})
			}
			m.calls = 0
			if _, err := s.Finish(t.Context(), "group", f); err != nil || m.calls != 2 {
				t.Errorf("Finish: %d requests, %v, want 1", m.calls/2, err)
			}
			return requests
		}
		call(s, 1) // makes the pages
		for n := uint64(3); n < 20; n += 2 {
			if got := call(s, n); got != 1 {
				t.Errorf("Begin: %d requests, want 1", got)
			}
		}
		other := open(t, batching{m}, o)
		call(other, 21) // reads the pages
		// Every page that s knows is an old version: one batch, then each alone. Another process
		// has written them, so that the item of the store is looked at once.
		if got := call(s, 23); got != 1+16+1 {
			t.Errorf("Begin: %d requests, want 18", got)
		}
	})
}

// broken is a backend with a fault that a backend could have.
type broken struct {
	*memory
	fault string
}

func (b broken) Create(ctx context.Context, key string, value []byte) (cas.Item, bool, error) {
	if b.fault == "Create overwrites" {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.put(key, value), true, nil
	}
	item, made, err := b.memory.Create(ctx, key, value)
	if b.fault == "Create returns what was written" {
		item.Value = value
	}
	return item, made, err
}

func (b broken) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	switch b.fault {
	case "Swap ignores the version":
		b.mu.Lock()
		version = b.items[key].Version
		b.mu.Unlock()
	case "Swap removes nothing":
		if value == nil {
			return cas.Item{}, true, nil
		}
	case "Swap writes nothing":
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.items[key], true, nil
	}
	item, done, err := b.memory.Swap(ctx, key, version, value)
	if b.fault == "Swap always succeeds" {
		done = true
	}
	return item, done, err
}

// TestBrokenBackends: the suite finds the faults of a backend.
func TestBrokenBackends(t *testing.T) {
	for _, fault := range []string{
		"Create overwrites", "Create returns what was written", "Swap ignores the version", "Swap removes nothing",
		"Swap writes nothing", "Swap always succeeds",
	} {
		t.Run(fault, func(t *testing.T) {
			found := replaytest.Failures(t, replaytest.Options{
				Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Schedules: 1000,
				New: func(t testing.TB, b replay.Bounds) replaytest.Fixture {
					m := broken{newMemory(), fault}
					return replaytest.Fixture{Open: func(shift time.Duration) replay.Store {
						s := open(t, m, &cas.Options{Bounds: b})
						s.Shift(shift)
						return s
					}}
				},
			})
			if len(found) == 0 {
				t.Error("not found")
			}
			t.Log("found:", found)
		})
	}
}
