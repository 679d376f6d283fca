package stream

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/envelope"
)

// at is a reading whose clocks agree.
func at(d time.Duration) Reading {
	return Reading{Wall: 1_760_000_000_000 + d.Milliseconds(), Monotonic: d, Process: 1}
}

func next(s *Streams, session string) Number { return s.Call(at(0)).Next(Plain, "k", session) }

func voidsOf(n Number) string { return fmt.Sprint(n.Voids) }

func TestSettled(t *testing.T) {
	s := New(nil)
	var list []Number
	for want := range uint64(5) {
		n := next(s, "")
		if n.Sequence != want+1 || n.Settled != 0 || n.Previous != 0 || n.Voids != nil || n.Stream != (ID{}) && len(list) > 0 && n.Stream != list[0].Stream {
			t.Errorf("message %d: %+v", want+1, n)
		}
		list = append(list, n)
	}
	for _, step := range []struct {
		end     func(*Number)
		i       int
		settled uint64
		voids   string
	}{
		{(*Number).Confirm, 1, 0, "[]"}, // 1 is outstanding
		{(*Number).Void, 2, 0, "[]"},
		{(*Number).Confirm, 0, 3, "[{3 3}]"},
		{(*Number).Void, 0, 3, "[{3 3}]"}, // too late
		{(*Number).Void, 3, 4, "[{3 4}]"},
		{(*Number).Unknown, 4, 4, "[{3 4}]"},
		{(*Number).Confirm, 4, 4, "[{3 4}]"}, // too late
	} {
		step.end(&list[step.i])
		if n := next(s, ""); n.Settled != step.settled || voidsOf(n) != step.voids {
			t.Errorf("after message %d: settled %d, void %v, want %d, %s", step.i+1, n.Settled, n.Voids, step.settled, step.voids)
		}
	}
}

// A void range is carried by 64 messages that are confirmed. Others count nothing.
func TestVoidRepeated(t *testing.T) {
	s := New(nil)
	before := next(s, "")
	first := next(s, "")
	before.Confirm()
	first.Void()
	carried := 0
	for i := range 200 {
		n := next(s, "")
		if len(n.Voids) == 0 {
			break
		}
		if i%2 == 0 {
			n.Unknown()
		} else {
			n.Confirm()
			carried++
		}
	}
	if carried != voidRepeats {
		t.Errorf("left out after %d confirmed messages that carried it, want %d", carried, voidRepeats)
	}
}

// While eight void ranges are carried, settled does not pass a ninth. Then it
// does.
func TestVoidBounded(t *testing.T) {
	s := New(nil)
	var list []Number
	for range 40 {
		list = append(list, next(s, ""))
	}
	for i := range list {
		if i%2 == 0 {
			list[i].Confirm()
		} else {
			list[i].Void()
		}
	}
	n := next(s, "")
	if n.Settled != 17 || len(n.Voids) != maxVoid { // 2, 4, ..., 16 are void
		t.Errorf("settled %d with %v", n.Settled, n.Voids)
	}
	n.Confirm()
	for i := 0; n.Settled < 40; i++ {
		if i > 10*voidRepeats {
			t.Fatalf("settled stands at %d with %v", n.Settled, n.Voids)
		}
		n = next(s, "")
		n.Confirm()
	}
}

func TestPrevious(t *testing.T) {
	s := New(nil)
	call := s.Call(at(0))
	a1, b1, a2 := call.Next(Plain, "k", "a"), call.Next(Plain, "k", "b"), call.Next(Plain, "k", "a")
	if a1.Previous != 0 || b1.Previous != 0 || a2.Previous != a1.Sequence {
		t.Errorf("within a call: %d, %d, %d", a1.Previous, b1.Previous, a2.Previous)
	}
	if n := next(s, "a"); n.Previous != 0 {
		t.Errorf("previous %d of another call, which is not confirmed", n.Previous)
	}
	a2.Confirm()
	a1.Confirm()
	b1.Void()
	if n := next(s, "a"); n.Previous != a2.Sequence {
		t.Errorf("previous %d, want the last confirmed, %d", n.Previous, a2.Sequence)
	}
	if n := next(s, "b"); n.Previous != 0 {
		t.Errorf("previous %d, which is void", n.Previous)
	}
	if n := s.Call(at(0)).Next(Plain, "other key", "a"); n.Previous != 0 || n.Sequence != 1 {
		t.Errorf("in the stream of another key: previous %d of sequence %d", n.Previous, n.Sequence)
	}
}

func TestSessionsBounded(t *testing.T) {
	s := New(nil)
	for i := range maxSessions {
		n := next(s, fmt.Sprint("s", i))
		n.Confirm()
	}
	if n := next(s, "s0"); n.Previous != 1 { // and so s1 is the one used longest ago
		t.Errorf("previous %d, want 1", n.Previous)
	}
	n := next(s, "one more")
	n.Confirm()
	if n := next(s, "s1"); n.Previous != 0 {
		t.Errorf("previous %d of an evicted session", n.Previous)
	}
	if n := next(s, "s0"); n.Previous != 1 {
		t.Errorf("previous %d of a session in use, want 1", n.Previous)
	}
	r := s.keys[0].series[Plain]
	if len(r.sessions.last) != maxSessions || r.sessions.used.Len() != maxSessions {
		t.Errorf("%d sessions are remembered", len(r.sessions.last))
	}
}

func TestLoose(t *testing.T) {
	s := New(nil)
	call := s.Call(at(0))
	plain := call.Next(Plain, "k", "a")
	plain.Confirm()
	first := call.Next(Loose, "k", "a")
	first.Confirm()
	gone := call.Next(Loose, "k", "a")
	gone.Void()
	n := call.Next(Loose, "k", "a")
	if n.Stream == plain.Stream || n.Stream != first.Stream || n.Sequence != 3 || n.Settled != 0 || n.Previous != 0 || n.Voids != nil {
		t.Errorf("number %+v, want the third of the loose stream, which accounts for nothing", n)
	}
	if r := s.keys[0].series[Loose]; len(r.window) != 0 {
		t.Errorf("a loose stream keeps %d sequences", len(r.window))
	}
}

func TestReset(t *testing.T) {
	last := at(time.Hour)
	for name, tt := range map[string]struct {
		now   Reading
		reset bool
	}{
		"the same moment":           {last, false},
		"a day later":               {at(25 * time.Hour), false},
		"more than a day later":     {at(25*time.Hour + time.Millisecond), true},
		"the wall clock slewed":     {Reading{last.Wall + 6000, last.Monotonic + time.Second, 1}, false},
		"the wall clock ahead":      {Reading{last.Wall + 6001, last.Monotonic + time.Second, 1}, true},
		"the wall clock set back":   {Reading{last.Wall - 4001, last.Monotonic + time.Second, 1}, true},
		"set back a little":         {Reading{last.Wall - 4000, last.Monotonic + time.Second, 1}, false},
		"suspended for a week":      {Reading{last.Wall + 7*86_400_000, last.Monotonic + time.Second, 1}, true},
		"an image of a week ago":    {Reading{last.Wall + 7*86_400_000, last.Monotonic, 1}, true},
		"another process":           {Reading{last.Wall, last.Monotonic, 2}, true},
		"read by another goroutine": {Reading{last.Wall - 1, last.Monotonic - time.Millisecond, 1}, false},
	} {
		resets := 0
		s := New(func() { resets++ })
		before := [2]Number{s.Call(last).Next(Plain, "k", ""), s.Call(last).Next(Loose, "k", "")}
		call := s.Call(tt.now)
		if (resets == 1) != tt.reset {
			t.Errorf("%s: told %d times, want %v", name, resets, tt.reset)
		}
		after := [2]Number{call.Next(Plain, "k", ""), call.Next(Loose, "k", "")}
		for i := range after {
			if got := after[i].Stream != before[i].Stream; got != tt.reset {
				t.Errorf("%s, stream %d: new %v, want %v", name, i, got, tt.reset)
			}
		}
		// What was under way ends without harm.
		before[0].Confirm()
		if n := call.Next(Plain, "k", ""); tt.reset && n.Settled != 0 {
			t.Errorf("%s: a message of the old stream settled the new one", name)
		}
		if tt.reset {
			h := envelope.Header{Stream: after[0].Stream}
			if got := h.StreamOpened(); got != tt.now.Wall {
				t.Errorf("%s: opened at %d, want %d", name, got, tt.now.Wall)
			}
		}
	}
}

func TestRead(t *testing.T) {
	a := Read()
	b := Read()
	if a.broken(b) || b.Monotonic < a.Monotonic || a.Process != os.Getpid() || a.Wall < 1_760_000_000_000 {
		t.Errorf("readings %+v and %+v, want two of this process, in order", a, b)
	}
}

// Keys that flap keep their streams, as many as there may be.
func TestKeys(t *testing.T) {
	s := New(nil)
	of := func(key string) Number { return s.Call(at(0)).Next(Plain, key, "") }
	first := make(map[string]ID)
	for i := range 100 {
		key := fmt.Sprint(i % maxKeys)
		n := of(key)
		if first[key] == (ID{}) {
			first[key] = n.Stream
		}
		if n.Stream != first[key] || n.Sequence != uint64(i/maxKeys)+1 {
			t.Fatalf("key %s: %+v", key, n)
		}
	}
	of("one more")
	if len(s.keys) != maxKeys {
		t.Errorf("%d keys have streams", len(s.keys))
	}
	if n := of("0"); n.Stream == first["0"] || n.Sequence != 1 {
		t.Errorf("the key used longest ago kept its stream: %+v", n)
	}
	if n := of("3"); n.Stream != first["3"] {
		t.Error("a key in use lost its stream")
	}
}

// A stream that cannot settle is replaced before it costs much.
func TestReplaced(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(*Number)
		want int
	}{"outstanding": {func(*Number) {}, maxWindow}, "unknown": {(*Number).Unknown, maxWindowUnknown}} {
		s := New(nil)
		first := next(s, "")
		tt.end(&first)
		count := 1
		for {
			n := next(s, "")
			n.Confirm()
			if n.Stream != first.Stream {
				break
			}
			if count++; count > 2*maxWindow {
				t.Fatalf("%s: never replaced", name)
			}
		}
		if count != tt.want {
			t.Errorf("%s: replaced after %d, want %d", name, count, tt.want)
		}
	}
	s := New(nil)
	n := next(s, "")
	s.keys[0].series[Plain].next = maxSequence
	if last := next(s, ""); last.Sequence != maxSequence || last.Stream != n.Stream {
		t.Errorf("the last: %+v", last)
	}
	if after := next(s, ""); after.Sequence != 1 || after.Stream == n.Stream {
		t.Errorf("after the last: %+v", after)
	}
}

// Eight goroutines number messages through clock jumps and keys that flap: no
// identity comes twice, and every header is valid.
func TestConcurrently(t *testing.T) {
	count := 10_000
	if os.Getenv("QRT_SOAK") == "1" {
		count = 1_000_000
	}
	const workers = 8
	type identity struct {
		stream   ID
		sequence uint64
	}
	var resets int
	s := New(func() { resets++ }) // called with a lock held
	seen := make([][]identity, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; i < count/workers; {
				r := Reading{1_760_000_000_000 + int64(i), time.Duration(i) * time.Millisecond, 1 + i/(count/40+1)}
				if i%1000 == 999 {
					r.Wall += 3_600_000
				}
				call := s.Call(r)
				var sent []Number
				for range 1 + (i+w)%7 {
					n := call.Next(Kind(i/100%2), fmt.Sprint(i/10%6), fmt.Sprint(i%5))
					h := envelope.Header{KeyID: "k", Origin: "q", Stream: n.Stream, Sequence: n.Sequence, Settled: n.Settled, Previous: n.Previous}
					for _, v := range n.Voids {
						h.Void = append(h.Void, envelope.Range(v))
					}
					if err := h.Validate(); err != nil {
						t.Errorf("%+v: %v", n, err)
						return
					}
					sent = append(sent, n)
					seen[w] = append(seen[w], identity{n.Stream, n.Sequence})
					i++
				}
				for j := range sent {
					[]func(*Number){(*Number).Confirm, (*Number).Confirm, (*Number).Void, (*Number).Unknown, (*Number).Confirm}[(i+j)%5](&sent[j])
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(seen...)
	once := make(map[identity]bool, len(all))
	for _, id := range all {
		if once[id] {
			t.Fatalf("%x, %d comes twice", id.stream, id.sequence)
		}
		once[id] = true
	}
	if len(all) < count || resets < 10 {
		t.Errorf("%d messages, %d resets: too few", len(all), resets)
	}
}

func BenchmarkNext(b *testing.B) {
	s := New(nil)
	b.ReportAllocs()
	for b.Loop() {
		n := s.Call(Read()).Next(Plain, "k", "")
		n.Confirm()
	}
}
