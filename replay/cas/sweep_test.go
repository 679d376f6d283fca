package cas_test

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

// youngStream is a stream that was opened after its store was made, in a store with small pages.
type youngStream struct {
	*testing.T
	stream [16]byte
}

func young(t *testing.T) *youngStream {
	v := &youngStream{T: t}
	binary.BigEndian.PutUint64(v.stream[:], uint64(time.Now().Add(time.Second).UnixMilli())<<16)
	return v
}

func (v *youngStream) request(n uint64) replay.Request {
	r := request(1, n)
	r.ID.Stream, r.MaxMessageAge, r.Previous = v.stream, 10*time.Minute, 0
	return r
}

func (v *youngStream) begin(s *cas.Store, r replay.Request) {
	v.Helper()
	if c, err := s.Begin(context.Background(), "group", []replay.Request{r}); err != nil || c[0].Err != nil {
		v.Fatal(r.ID.Sequence, c, err)
	}
}

func (v *youngStream) finish(s *cas.Store, r replay.Request, kind replay.FinishKind) {
	v.Helper()
	f, err := s.Finish(context.Background(), "group", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: kind}})
	if err != nil || f[0].Err != nil {
		v.Fatal(r.ID.Sequence, f, err)
	}
}

func (v *youngStream) handle(s *cas.Store, from, to uint64) {
	v.Helper()
	for n := from; n <= to; n++ {
		r := v.request(n)
		v.begin(s, r)
		v.finish(s, r, replay.Consumed)
	}
}

// sweep lets a store sweep once, after so much time.
func (v *youngStream) sweep(s *cas.Store, after time.Duration) {
	v.Helper()
	time.Sleep(after)
	if err := s.Probe(context.Background(), "group"); err != nil {
		v.Fatal(err)
	}
	time.Sleep(time.Second)
	synctest.Wait()
}

func (v *youngStream) account(s *cas.Store) *replay.Stream {
	v.Helper()
	for a, err := range s.Streams(context.Background(), "group") {
		if err != nil {
			v.Fatal(err)
		}
		if a.Stream == v.stream {
			return &a
		}
	}
	return nil
}

// scanning is a backend in which something happens before the heads are listed.
type scanning struct {
	*memory
	before func()
}

func (b *scanning) Scan(ctx context.Context, prefix string) iter.Seq2[cas.Item, error] {
	if do := b.before; do != nil && strings.HasPrefix(prefix, ".h.") {
		b.before = nil
		do()
	}
	return b.memory.Scan(ctx, prefix)
}

// TestDropOfAStreamInUse: a stream that was quiet for KeepStream is used again between the moments in which a
// sweep reads its pages and its head. What is lost of it from then on is reported.
func TestDropOfAStreamInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &scanning{memory: newMemory()}
		o := &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 2 * time.Hour}}
		s, other := open(t, b, o), open(t, b.memory, o)
		v, busy := young(t), young(t)
		busy.stream[15] = 7
		time.Sleep(2 * time.Second)
		v.handle(other, 1, 5)
		v.sweep(other, 10*time.Minute)
		time.Sleep(5 * time.Hour)
		busy.handle(s, 1, 5) // of the group's clock
		b.before = func() { v.handle(other, 6, 8) }
		v.sweep(s, 10*time.Minute)
		if b.before != nil {
			t.Fatal("no sweep")
		}
		v.handle(other, 9, 20)
		v.handle(other, 22, 60) // 21 is lost
		for range 3 {
			busy.handle(s, 6, 6)
			busy.stream[14]++ // other streams go on
			v.sweep(s, 20*time.Minute)
		}
		reported := func(when string) {
			a := v.account(other)
			if a == nil {
				t.Errorf("%s: the stream is not held, although its page is; 21 is not reported", when)
				return
			}
			for _, x := range a.Missing {
				if x.Range.First <= 21 && 21 <= x.Range.Last {
					return
				}
			}
			if a.MissingForgotten == 0 {
				t.Errorf("%s: 21 is not missing: %+v", when, a)
			}
		}
		reported("in its page")
		v.handle(other, 61, 80)
		v.sweep(s, 20*time.Minute)
		reported("after its page")
	})
}

// TestCrowdedOldestFirst: "with more the oldest fold early" (replay.Bounds.Recent): of eight streams, used one
// after the other, the copies of the youngest are still duplicates after a sweep that makes room.
func TestCrowdedOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newMemory(), &cas.Options{PageSpan: 64, Bounds: replay.Bounds{Recent: 40}})
		time.Sleep(4 * time.Minute)
		var last []replay.Request
		for i := range byte(8) {
			v := young(t)
			v.stream[15] = i + 1
			last = nil
			for n := uint64(1); n <= 10; n++ {
				r := v.request(n)
				v.begin(s, r)
				v.finish(s, r, replay.Consumed)
				last = append(last, r)
			}
			time.Sleep(20 * time.Second)
		}
		v := young(t)
		v.sweep(s, 140*time.Second) // five minutes after the group was met; tags of the last are kept for two more
		again := last[0]
		again.Token = replay.NewToken()
		if c, err := s.Begin(t.Context(), "group", []replay.Request{again}); err != nil || !errors.Is(c[0].Err, replay.ErrDuplicate) {
			t.Errorf("a copy of the youngest: %v, %v", c[0].Err, err)
		}
	})
}
