package replaytest

import (
	"errors"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// fill begins messages of a stream until one is refused, at most limit, and
// returns how many were granted and what the refusal was.
func (h handle) fill(id replay.Identity, limit int) (granted []replay.Request, refusal error) {
	for n := range uint64(limit) { //nolint:gosec // G115: small
		r := at(id, n+1)
		c, err := h.s.Begin(h.t.ctx, group, []replay.Request{r})
		if err != nil {
			h.t.fatalf("Begin: %v", err)
		}
		if c[0].Err != nil {
			return granted, c[0].Err
		}
		granted = append(granted, r)
	}
	return granted, nil
}

// senderQuota: a sender that uses up its room stops no other.
func senderQuota(t *trial) {
	h := t.bounded(replay.Bounds{Store: replay.Quota{Records: 1000}, Sender: replay.Quota{Records: 20}})
	granted, err := h.fill(t.young("greedy"), 60)
	if !errors.Is(err, replay.ErrQuota) || len(granted) < 20 || len(granted) > 21 && !t.o.Approximate {
		t.errorf("%d granted, then %v, want 20 and ErrQuota", len(granted), err)
	}
	h.handled(at(t.young("other"), 1))
	h.begin(nil, granted[0]) // what is known is answered
	h.finish(nil, replay.Released, granted[0])
	h.handled(again(granted[0]))
	h.finish(nil, replay.Consumed, granted[1:]...)
	h.begin(nil, at(t.young("greedy"), 1))
}

// full: a store that is full, or whose group is, answers so and forgets nothing.
func full(t *trial) {
	for name, b := range map[string]replay.Bounds{
		"store": {Store: replay.Quota{Records: 20}, Group: replay.Quota{Records: 100}, Sender: replay.Quota{Records: 100}},
		"group": {Group: replay.Quota{Records: 20}, Sender: replay.Quota{Records: 100}},
	} {
		h := t.bounded(b)
		done := at(t.young("s"), 1)
		h.handled(done)
		granted, err := h.fill(t.young("s"), 60)
		if !errors.Is(err, replay.ErrFull) || len(granted) < 20 || len(granted) > 21 && !t.o.Approximate {
			t.fatalf("%s: %d granted, then %v, want 20 and ErrFull", name, len(granted), err)
		}
		h.begin(replay.ErrFull, at(t.young("other"), 1))
		c, err := h.s.Begin(t.ctx, "another", []replay.Request{at(t.young("other"), 1)})
		if want := map[string]error{"store": replay.ErrFull}[name]; err != nil || !errors.Is(c[0].Err, want) {
			t.errorf("%s: another group: %+v, %v, want %v", name, c, err, want)
		}
		if err := h.s.Probe(t.ctx, group); !errors.Is(err, replay.ErrFull) {
			t.errorf("%s: Probe: %v, want ErrFull", name, err)
		}
		h.look(replay.StateConsumed, done)
		h.finish(nil, replay.Consumed, granted...)
		before := h.stats()
		if err := h.s.Probe(t.ctx, group); err != nil {
			t.errorf("%s: Probe: %v, although there is room", name, err)
		}
		if s := h.stats(); s.Records != before.Records || s.Streams != before.Streams || s.Stamp.Change <= before.Stamp.Change {
			t.errorf("%s: a probe changed %+v into %+v; it should write and leave no record", name, before, s)
		}
		h.begin(nil, at(t.young("other"), 1))
	}
}

// makeRoom: streams that no receiver can need any more make room for others, and
// streams that are needed do not.
func makeRoom(t *trial) {
	const streams = 20
	h := t.bounded(replay.Bounds{Sender: replay.Quota{Streams: streams}})
	var all []replay.Request
	for range streams {
		all = append(all, at(t.young("s"), 1))
		h.handled(all[len(all)-1])
	}
	t.advance(time.Hour)
	for range 5 {
		h.handled(at(t.young("clock"), 1))
		t.advance(10 * time.Minute)
	}
	for range streams {
		r := at(t.young("s"), 1)
		if t.o.Unreliable {
			h.persuade(r) // the sweep that makes room may have failed
		}
		h.handled(r)
		all = append(all, r)
	}
	for i := range all {
		c, err := h.s.Begin(t.ctx, group, []replay.Request{forever(all[i])})
		if err != nil || c[0].Err == nil {
			t.fatalf("message %d was forgotten: %+v, %v", i, c, err)
		}
	}
	if n := h.stats().Streams; n > streams+10 {
		t.errorf("%d streams are held, want about %d", n, streams)
	}
	// Now all are young.
	_, err := h.fill(t.stream("s", time.Now()), 1)
	for i := 0; err == nil && i < 2*streams; i++ {
		_, err = h.fill(t.stream("s", time.Now()), 1)
	}
	if !errors.Is(err, replay.ErrQuota) {
		t.errorf("%v, want ErrQuota", err)
	}
}

// fullOfYoung: a store whose streams are all as young as the newest message that the group
// consumed has room again when they are old, although every message of a new stream is
// refused until then.
func fullOfYoung(t *trial) {
	const streams = 20
	for name, b := range map[string]replay.Bounds{
		"sender": {Sender: replay.Quota{Streams: streams}},
		"group":  {Sender: replay.Quota{Streams: streams}, Group: replay.Quota{Streams: streams}},
		"store":  {Sender: replay.Quota{Streams: streams}, Store: replay.Quota{Streams: streams}},
	} {
		h := t.bounded(b)
		var all []replay.Request
		t.advance(2 * skew)
		for refused := false; !refused && len(all) < 2*streams; {
			r := at(t.stream("s", time.Now()), 1)
			c, err := h.s.Begin(t.ctx, group, []replay.Request{r})
			if err != nil {
				t.fatalf("%s: Begin: %v", name, err)
			}
			if refused = c[0].Err != nil; !refused {
				h.finish(nil, replay.Consumed, r)
				all = append(all, r)
			}
		}
		granted := false
		for range 40 {
			t.advance(30 * time.Minute)
			c, err := h.s.Begin(t.ctx, group, []replay.Request{at(t.stream("s", time.Now()), 1)})
			if granted = err == nil && c[0].Err == nil; granted {
				break
			}
		}
		if !granted {
			t.errorf("%s: nothing is granted 20 hours after the store was full", name)
		}
		for i := range all {
			if c, err := h.s.Begin(t.ctx, group, []replay.Request{forever(all[i])}); err != nil || c[0].Err == nil {
				t.errorf("%s: message %d was forgotten: %+v, %v", name, i, c, err)
			}
		}
	}
}

// persuade waits until a message is not refused for lack of room.
func (h handle) persuade(r replay.Request) {
	for range 20 {
		c, err := h.s.Begin(h.t.ctx, group, []replay.Request{r})
		if err == nil && !errors.Is(c[0].Err, replay.ErrQuota) {
			return
		}
		h.t.advance(15 * time.Second)
	}
}

// intervalQuota: a sender whose sequences have too many gaps stops no other, and
// goes on when its old intervals are of no use any more.
func intervalQuota(t *trial) {
	h := t.bounded(replay.Bounds{Sender: replay.Quota{Intervals: 20}})
	id := t.young("s")
	var all []replay.Request
	for n := range uint64(25) {
		r := at(id, 2*n+1)
		r.MaxMessageAge = 2 * time.Hour
		all = append(all, r)
	}
	h.handled(all...)
	h.passFolding()
	t.advance(t.o.ChangesLate)
	next := at(id, 100)
	h.begin(replay.ErrQuota, next)
	h.begin(replay.ErrReused, again(all[3]))
	h.handled(at(t.young("other"), 1))
	for range 6 { // more than the reach of the group
		t.advance(30 * time.Minute)
		h.handled(at(t.stream("clock", time.Now()), 1))
	}
	next = at(id, 100)
	if t.o.Unreliable {
		h.persuade(next)
	}
	h.handled(next)
	for i := range all {
		all[i] = forever(all[i])
	}
	c, err := h.s.Begin(t.ctx, group, all)
	if err != nil {
		t.fatalf("Begin: %v", err)
	}
	for i := range c {
		if c[i].Err == nil {
			t.errorf("sequence %d is granted, although it was consumed", all[i].ID.Sequence)
		}
	}
}

// tagsBesideRetries: tags of handled messages make room for others although many messages wait
// for a retry, each in a page that is due before any that has tags.
func tagsBesideRetries(t *trial) {
	const recent, waiting, pages, inPage = 40, 70, 10, 20
	h := t.bounded(replay.Bounds{Recent: recent})
	id := t.young("s")
	var back []replay.Request
	for n := range uint64(waiting) {
		r := at(id, 1_000_000+n*10_000)
		r.RetryWindow = 2 * time.Hour
		back = append(back, r)
	}
	h.begin(nil, back...)
	h.finish(nil, replay.Released, back...)
	h.passFolding()
	for n := range uint64(pages) {
		var done []replay.Request
		for k := range uint64(inPage) {
			r := at(id, 1+n*10_000+k)
			r.Lease = 2 * time.Hour
			done = append(done, r)
		}
		h.handled(done...)
	}
	calls := 10
	if t.o.Unreliable {
		calls *= 3
	}
	for range calls {
		t.advance(2 * time.Second)
		if err := h.s.Probe(t.ctx, group); err != nil {
			t.fatalf("Probe: %v", err)
		}
	}
	// The message that was handled last may keep its tag in each page, and some wait for a sweep.
	if s := h.stats(); !t.o.Approximate && s.Recent > recent+inPage {
		t.errorf("%d tags are kept, want about %d", s.Recent, recent)
	}
	for i := range back {
		back[i] = again(back[i])
	}
	h.handled(back...)
}

// statsAddUp: the numbers are those of what the test did.
func statsAddUp(t *trial) {
	h := t.bounded(replay.Bounds{Store: replay.Quota{Records: 500}})
	a, b := t.young("a"), t.young("b")
	var open []replay.Request
	for n := uint64(1); n <= 30; n++ {
		r := at(a, n)
		if n%3 == 0 {
			h.begin(nil, r)
			open = append(open, r)
		} else {
			h.handled(r)
		}
	}
	h.handled(at(b, 7))
	h.finish(nil, replay.Released, open[0])
	h.finish(nil, replay.Parked, open[1])
	check := func(records, recent, streams int64) {
		s := h.stats()
		if s.Records != records || s.Streams != streams || !t.o.Approximate && s.Recent != recent {
			t.errorf("%d records, %d recent, %d streams; want %d, %d, %d", s.Records, s.Recent, s.Streams, records, recent, streams)
		}
		if s.Bytes <= 0 || s.Capacity.Store.Records != 500 || s.Capacity.KeepStream != replay.DefaultKeepStream {
			t.errorf("Stats: %+v", s)
		}
		if f := s.Full(); f <= 0 || f > 1 || f < float64(records)/500 {
			t.errorf("Full: %v of %+v", f, s)
		}
	}
	check(10, 21, 2)
	h.finish(nil, replay.Consumed, open[2:]...)
	check(2, 29, 2)
	clock := h.passFolding() + 1 // a stream each
	s := h.stats()
	if s.Records != 2 || s.Streams != 2+clock || !t.o.Approximate && (s.Intervals < 4 || s.Recent != 1) {
		t.errorf("after folding: %+v", s)
	}
}
