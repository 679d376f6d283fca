package replay

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// identity returns the sequence of a stream that was opened now.
func identity(sender string, stream byte, sequence uint64) Identity {
	id := Identity{Sender: sender, Sequence: sequence}
	binary.BigEndian.PutUint64(id.Stream[:], uint64(time.Now().UnixMilli()+600_000)<<16)
	id.Stream[15] = stream
	return id
}

func request(id Identity) Request {
	now := time.Now()
	r := Request{
		ID: id, Token: NewToken(), SealedAt: now, FreshUntil: now.Add(5 * time.Minute), Now: now,
		RetryWindow: 24 * time.Hour, Lease: time.Minute, MaxMessageAge: 5 * time.Minute, MaxClockSkew: time.Minute,
	}
	binary.BigEndian.PutUint64(r.Tag[:], id.Sequence)
	return r
}

func begin(t *testing.T, s Store, r Request, want error) Claim {
	t.Helper()
	c, err := s.Begin(t.Context(), "group", []Request{r})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(c[0].Err, want) {
		t.Fatalf("Begin: %v, want %v", c[0].Err, want)
	}
	return c[0]
}

func finish(t *testing.T, s Store, r Request, kind FinishKind, want error) {
	t.Helper()
	f, err := s.Finish(t.Context(), "group", []Finish{{ID: r.ID, Token: r.Token, Kind: kind}})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(f[0].Err, want) {
		t.Fatalf("Finish: %v, want %v", f[0].Err, want)
	}
}

// TestMemoryFolds: what was consumed moves from records to recent tags to one
// interval, and is refused throughout.
func TestMemoryFolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		first := identity("s", 1, 1)
		var all []Request
		for n := range uint64(1000) {
			id := first
			id.Sequence = n + 1
			r := request(id)
			begin(t, m, r, nil)
			all = append(all, r)
		}
		for _, r := range all {
			finish(t, m, r, Consumed, nil)
			finish(t, m, r, Consumed, nil)
			r.Token = NewToken()
			begin(t, m, r, ErrDuplicate)
			r.Tag[7]++
			r.Tag[0] = 1
			begin(t, m, r, ErrCollision)
		}
		st, _ := m.Stats(context.Background())
		if st.Records != 0 || st.Recent != 1000 || st.Intervals != 0 || st.Streams != 1 {
			t.Errorf("after consuming: %+v", st)
		}
		time.Sleep(10 * time.Minute)
		other := request(identity("other", 2, 1))
		begin(t, m, other, nil)
		finish(t, m, other, Consumed, nil)
		st, _ = m.Stats(context.Background())
		if st.Records != 0 || st.Recent != 1 || st.Intervals != 1 || st.Streams != 2 {
			t.Errorf("after folding: %+v", st)
		}
		for _, r := range all {
			r.Token = NewToken()
			begin(t, m, r, ErrReused)
		}
	})
}

// TestMemorySnapshot: the account of a stream is counted from a copy, outside of the mutex: what is
// handled meanwhile, also of the same page, waits for nothing and is not in it.
func TestMemorySnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		m := s.engine.(*memory)
		id := identity("s", 1, 0)
		handle := func(n uint64, kind FinishKind) {
			t.Helper()
			id.Sequence = n
			r := request(id)
			r.Settled = n - 1
			begin(t, s, r, nil)
			finish(t, s, r, kind, nil)
		}
		handle(1, Released) // its page is frozen
		handle(memorySpan, Consumed)
		time.Sleep(10 * time.Minute)
		handle(memorySpan+2, Consumed)
		handle(memorySpan+4, Released)
		k := replaystate.Key{Sender: "s", Stream: id.Stream}
		copied := m.snapshot("group", k)
		if !m.mu.TryLock() {
			t.Fatal("the mutex is held")
		}
		m.mu.Unlock()
		for n := uint64(1); n < memorySpan+10; n++ {
			if n != memorySpan && n != memorySpan+2 {
				handle(n, Consumed)
			}
		}
		if a := copied.count(k); a.Consumed != 2 || a.Settled != memorySpan+3 || len(a.Missing) == 0 {
			t.Errorf("%+v, want 2 consumed and what was missing of %d", a, memorySpan+3)
		}
		now := m.snapshot("group", k)
		if a := now.count(k); a.Consumed != memorySpan+9 || len(a.Missing) > 0 {
			t.Errorf("now: %+v, want %d consumed", a, memorySpan+9)
		}
		if gone := m.snapshot("group", replaystate.Key{Sender: "s"}); gone.stream != nil {
			t.Errorf("a stream that is not held: %+v", gone)
		}
	})
}
