package replay

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestMemoryRoomComesBack: what is past its time makes room for as much again, for its sender,
// for its group and in the store, also if the rest of its page has to stay.
func TestMemoryRoomComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(&MemoryOptions{Bounds: Bounds{Store: Quota{Records: 9}, Group: Quota{Records: 5}, Sender: Quota{Records: 3}}})
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]Identity{"a": identity("a", 1, 0), "b": identity("b", 2, 0)}
		// fill claims messages of a sender for a minute until it is refused.
		fill := func(group, sender string) (n int, refused error) {
			for {
				id := ids[sender]
				id.Sequence++
				ids[sender] = id
				r := request(id)
				r.RetryWindow = time.Minute
				c, err := m.Begin(t.Context(), group, []Request{r})
				if err != nil {
					t.Fatal(err)
				}
				if c[0].Err != nil {
					return n, c[0].Err
				}
				n++
			}
		}
		check := func(group, sender string, want int, refused error) {
			t.Helper()
			if n, err := fill(group, sender); n != want || !errors.Is(err, refused) {
				t.Errorf("%s of %s: room for %d, then %v; want %d, then %v", sender, group, n, err, want, refused)
			}
		}
		for round := range 3 {
			lasting := make([]Request, 2)
			for i := range lasting {
				group := fmt.Sprint("group ", i)
				id := ids["a"]
				id.Sequence += 100
				ids["a"] = id
				lasting[i] = request(id)
				c, err := m.Begin(t.Context(), group, lasting[i:i+1])
				if err != nil || c[0].Err != nil {
					t.Fatalf("round %d: %v, %v", round, c, err)
				}
			}
			check("group 0", "a", 2, ErrQuota)
			check("group 0", "b", 2, ErrFull)
			check("group 1", "b", 3, ErrQuota)
			check("group 1", "a", 0, ErrFull) // the store is full before the group is
			time.Sleep(4 * time.Minute)
			for i := range lasting { // its tag stays, and with it its page
				f, err := m.Finish(t.Context(), fmt.Sprint("group ", i), []Finish{{ID: lasting[i].ID, Token: lasting[i].Token, Kind: Consumed}})
				if err != nil || f[0].Err != nil {
					t.Fatalf("round %d: %v, %v", round, f, err)
				}
			}
			time.Sleep(time.Minute) // in this moment, the pages are looked at
		}
	})
}

// TestMemoryBytesComeBack: once what a Memory held beside is gone, it holds as many bytes as one
// that never had it. Here that is a message that was given back, which keeps its page, encoded,
// for a day.
func TestMemoryBytesComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held [2]Stats
		var lasting [2]int64
		for i, more := range []bool{false, true} {
			m, err := NewMemory(nil)
			if err != nil {
				t.Fatal(err)
			}
			id := identity("a", 1, 0)
			handle := func(kind FinishKind) {
				t.Helper()
				id.Sequence++
				r := request(id)
				begin(t, m, r, nil)
				finish(t, m, r, kind, nil)
			}
			look := func() Stats {
				t.Helper()
				s, err := m.Stats(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			handle(Consumed)
			if more {
				handle(Released)
			}
			id.Sequence = 10 * memorySpan
			for range 2 { // each call looks at pages that are due
				time.Sleep(10 * time.Minute)
				handle(Consumed)
			}
			lasting[i] = look().Bytes
			if more { // its page is opened, and encoded anew
				id.Sequence = 1
				handle(Released)
			}
			id.Sequence = 11 * memorySpan
			for range 2 {
				time.Sleep(10 * time.Minute)
				handle(Consumed)
			}
			for range 3 {
				time.Sleep(30 * time.Hour)
				handle(Consumed)
			}
			held[i] = look()
		}
		if lasting[0] >= lasting[1] {
			t.Errorf("%d bytes with a message that was given back, %d without: it is not counted", lasting[1], lasting[0])
		}
		if held[0].Bytes != held[1].Bytes || held[0].Records != held[1].Records {
			t.Errorf("%d bytes and %d records after it has gone, want %d and %d", held[1].Bytes, held[1].Records, held[0].Bytes, held[0].Records)
		}
	})
}

// TestMemoryStreamsThatGo: streams are dropped when they are old, whatever else their senders
// and other senders hold; one that is dropped while the caller looks at another one is left out.
func TestMemoryStreamsThatGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(&MemoryOptions{Bounds: Bounds{KeepStream: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		handle := func(id Identity) {
			t.Helper()
			r := request(id)
			begin(t, m, r, nil)
			finish(t, m, r, Consumed, nil)
		}
		clock := identity("clock", 0, 0)
		// pass lets time pass for a group that has traffic.
		pass := func(d time.Duration) {
			for range 20 {
				time.Sleep(d / 20)
				clock.Sequence++
				handle(clock)
			}
		}
		// held is how many streams of other senders there are.
		held := func(look func()) (n int) {
			for s, err := range m.Streams(t.Context(), "group") {
				if err != nil {
					t.Fatal(err)
				}
				if s.Sender != clock.Sender {
					n++
				}
				look()
			}
			return n
		}
		pass(time.Minute)
		const senders = 5
		for i := range senders {
			for stream := range byte(3) {
				handle(identity(string(rune('a'+i)), stream, 1))
			}
			pass(20 * time.Minute)
		}
		for want := 3 * 3; want >= 0; want -= 3 { // those of the last hour
			if n := held(func() {}); n != want {
				t.Errorf("%d streams are held, want %d", n, want)
			}
			pass(20 * time.Minute)
		}
		for stream := range byte(3) {
			handle(identity("a", stream, 1))
		}
		if n := held(func() { pass(2 * time.Hour) }); n > 1 || held(func() {}) > 0 {
			t.Errorf("%d streams were told of while all were dropped", n)
		}
	})
}

// TestMemoryWatchesPagesOnce: what a Memory keeps of one message that is tried again and again does not
// grow, nor what it keeps of its page once the message is dead-lettered.
func TestMemoryWatchesPagesOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		m := s.engine.(*memory)
		id := identity("s", 1, 1)
		r := request(id)
		r.RetryWindow, r.FreshUntil = 14*24*time.Hour, time.Now().Add(15*24*time.Hour)
		apart := func() int { return len(m.groups["group"].senders["s"].streams[id.Stream].decode().Apart) }
		end := func(kind FinishKind) {
			t.Helper()
			r.Token, r.Now = NewToken(), time.Now()
			begin(t, s, r, nil)
			finish(t, s, r, kind, nil)
			time.Sleep(10 * time.Minute)
		}
		for range 1000 { // for a week
			end(Released)
			if n := len(m.open.all) + len(m.frozen.all); n > 1 {
				t.Fatalf("1 page is watched %d times", n)
			}
		}
		if apart() != 1 {
			t.Error("a page with a message that waits is not apart")
		}
		end(Parked)
		if err := s.Probe(t.Context(), "group"); err != nil {
			t.Fatal(err)
		}
		if apart() != 0 || len(m.open.all) != 0 || len(m.frozen.all) != 1 {
			t.Errorf("%d ranges are apart, %d pages open and %d frozen, want only that with the dead-lettered message", apart(), len(m.open.all), len(m.frozen.all))
		}
		time.Sleep(20 * 24 * time.Hour)
		if err := s.Probe(t.Context(), "group"); err != nil {
			t.Fatal(err)
		}
		if len(m.open.all)+len(m.frozen.all) != 0 {
			t.Error("a page that is gone is watched")
		}
	})
}

// TestMemoryCrowdedBesideRetries: tags make room for others although messages wait for a retry whose time
// is over sooner than that of any tag.
func TestMemoryCrowdedBesideRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const recent = 10
		m, err := NewMemory(&MemoryOptions{Bounds: Bounds{Recent: recent}})
		if err != nil {
			t.Fatal(err)
		}
		r := request(identity("waits", 1, 1))
		r.RetryWindow = time.Hour
		begin(t, m, r, nil)
		finish(t, m, r, Released, nil)
		time.Sleep(57 * time.Minute)
		for n := range uint64(100) {
			r := request(identity("s", 2, 1+n*memorySpan))
			begin(t, m, r, nil)
			finish(t, m, r, Consumed, nil)
		}
		if n, err := m.Stats(t.Context()); err != nil || n.Recent > recent+1 {
			t.Errorf("%d tags are kept (%v), want %d", n.Recent, err, recent)
		}
	})
}
