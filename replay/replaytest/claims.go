package replaytest

import (
	"strings"
	"time"

	"github.com/queue-runtime/queue/replay"
)

func claim(t *trial) {
	s := t.store()
	r := t.request(t.id())
	c := t.claimed(s, r)
	t.firstSeen(c, r.Now)
	other := t.claimed(s, t.request(t.id()))
	if other.Token == c.Token {
		t.Error("two claims have one token")
	}
	// 128 bits do not fit in less.
	if len(c.Token) < 16 {
		t.Errorf("a token of %d bytes", len(c.Token))
	}
	if s.Retention() < 0 {
		t.Errorf("Retention: %v", s.Retention())
	}
}

func apart(t *trial) {
	s := t.store()
	for _, p := range []struct{ group, id string }{
		{"ab", "c"}, {"a", "bc"}, {"ab", "c\x00"}, {"ab\x00", "c"}, {"AB", "c"}, {"ab", "C"},
		{"ab", "\xff"}, {"ab", "\xfe"}, {"\xff", "c"}, {"ab", "c "}, {"ab ", "c"}, {"ab", "1"}, {"ab", "01"},
	} {
		r := t.request(replay.ID(p.id))
		r.Group = p.group
		c := t.claimed(s, r)
		if err := s.Consume(t.Context(), r.Group, r.ID, c.Token); err != nil {
			t.Errorf("Consume %q %q: %v", p.group, p.id, err)
		}
		r.BrokerID = "other"
		t.refused(s, r, replay.ErrReused)
	}
}

func bounds(t *trial) {
	s := t.store()
	ctx := t.Context()
	good := t.request(replay.ID(strings.Repeat("\x00", replay.MaxID)))
	good.Group = strings.Repeat("g", replay.MaxGroup)
	for name, change := range map[string]func(*replay.Request){
		"no group":                 func(r *replay.Request) { r.Group = "" },
		"a long group":             func(r *replay.Request) { r.Group += "g" },
		"no ID":                    func(r *replay.Request) { r.ID = "" },
		"a long ID":                func(r *replay.Request) { r.ID += "i" },
		"no lease":                 func(r *replay.Request) { r.Lease = 0 },
		"a negative lease":         func(r *replay.Request) { r.Lease = -1 },
		"no retry window":          func(r *replay.Request) { r.RetryWindow = 0 },
		"a negative retry window":  func(r *replay.Request) { r.RetryWindow = -1 },
		"no receiver's clock, Now": func(r *replay.Request) { r.Now = time.Time{} },
	} {
		r := good
		change(&r)
		if c, err := s.Begin(ctx, r); err == nil || sentinel(err) || c != (replay.Claim{}) {
			t.Errorf("Begin with %s: %+v, %v; want an error of its own", name, c, err)
		}
	}
	// None of them left a trace, and the bounds themselves are allowed.
	c := t.claimed(s, good)
	if err := s.Renew(ctx, good.Group, good.ID, c.Token, 0); err == nil || sentinel(err) {
		t.Errorf("Renew with no lease: %v; want an error of its own", err)
	}
	for _, p := range []struct {
		group string
		id    replay.ID
	}{{"", good.ID}, {good.Group + "g", good.ID}, {good.Group, ""}, {good.Group, good.ID + "i"}} {
		for name, err := range map[string]error{
			"Renew":   s.Renew(ctx, p.group, p.id, c.Token, time.Minute),
			"Consume": s.Consume(ctx, p.group, p.id, c.Token),
			"Release": s.Release(ctx, p.group, p.id, c.Token),
		} {
			if err == nil || sentinel(err) {
				t.Errorf("%s with a group of %d and an ID of %d bytes: %v; want an error of its own", name, len(p.group), len(p.id), err)
			}
		}
	}
	if err := s.Consume(ctx, good.Group, good.ID, c.Token); err != nil {
		t.Errorf("Consume: %v", err)
	}
}

func busy(t *trial) {
	s := t.store()
	r := t.request(t.id())
	t.claimed(s, r)
	t.refused(s, r, replay.ErrBusy) // the same broker message
	r.BrokerID = "copy"
	t.refused(s, r, replay.ErrBusy)
	r.Now = r.FreshUntil.Add(time.Nanosecond)
	t.refused(s, r, replay.ErrBusy) // stale, but somebody is at it
	r.Group = "another"
	r.Now = time.Now()
	t.claimed(s, r)
	t.advance(t.ticks(2))
	t.refused(s, t.request(r.ID), replay.ErrBusy) // asking did not end the lease
}

func leaseOver(t *trial) {
	s := t.store()
	r := t.request(t.id())
	first := t.claimed(s, r)
	t.advance(t.ticks(5))
	again := t.request(r.ID)
	second := t.claimed(s, again)
	if second.Token == first.Token {
		t.Error("a new claim has the old token")
	}
	t.firstSeen(second, r.Now)
	t.refused(s, again, replay.ErrBusy)
}

// lateCalls is what a holder does whose lease is over and whose envelope is
// another's by now: nothing of it may touch the other's claim.
func lateCalls(t *trial) {
	s := t.store()
	r := t.request(t.id())
	old := t.claimed(s, r)
	t.advance(t.ticks(5))
	held := t.claimed(s, t.request(r.ID))
	t.release(s, r.ID, old.Token, replay.ErrClaimLost)
	t.refused(s, t.request(r.ID), replay.ErrBusy)
	t.renew(s, r.ID, old.Token, replay.ErrClaimLost)
	t.consume(s, r.ID, old.Token, replay.ErrClaimLost)
	t.refused(s, t.request(r.ID), replay.ErrBusy)
	t.renew(s, r.ID, held.Token, nil)

	// Also when the other's lease is over in its turn: it may still consume.
	t.advance(t.ticks(5))
	t.release(s, r.ID, old.Token, replay.ErrClaimLost)
	t.consume(s, r.ID, old.Token, replay.ErrClaimLost)
	t.consume(s, r.ID, held.Token, nil)
	t.release(s, r.ID, old.Token, replay.ErrClaimLost)
	t.consume(s, r.ID, old.Token, replay.ErrClaimLost)

	for _, token := range []string{"", "x", strings.Repeat("0", len(held.Token)), held.Token + "0"} {
		id := t.id()
		t.claimed(s, t.request(id))
		t.renew(s, id, token, replay.ErrClaimLost)
		t.consume(s, id, token, replay.ErrClaimLost)
		t.release(s, id, token, replay.ErrClaimLost)
		t.refused(s, t.request(id), replay.ErrBusy)
	}
}

func renew(t *trial) {
	s := t.store()
	r := t.request(t.id())
	c := t.claimed(s, r)
	for range 3 { // far past the first lease
		t.advance(t.ticks(2))
		t.renew(s, r.ID, c.Token, nil)
	}
	t.advance(t.ticks(2))
	t.refused(s, t.request(r.ID), replay.ErrBusy)
	t.advance(t.ticks(3))
	// Over, though nobody took it: the broker may have given it to another.
	t.renew(s, r.ID, c.Token, replay.ErrClaimLost)
	next := t.claimed(s, t.request(r.ID))
	t.renew(s, r.ID, c.Token, replay.ErrClaimLost)

	t.renew(s, t.id(), next.Token, replay.ErrClaimLost) // no record
	t.release(s, r.ID, next.Token, nil)
	t.renew(s, r.ID, next.Token, replay.ErrClaimLost)
	next = t.claimed(s, t.request(r.ID))
	t.consume(s, r.ID, next.Token, nil)
	t.renew(s, r.ID, next.Token, replay.ErrClaimLost)
	r.BrokerID = "other"
	t.refused(s, r, replay.ErrReused) // none of it brought the claim back
}

func release(t *trial) {
	s := t.store()
	r := t.request(t.id())
	c := t.claimed(s, r)
	t.release(s, r.ID, c.Token, nil)
	t.release(s, r.ID, c.Token, nil) // the answer to the first may have been lost
	t.advance(t.ticks(1))
	again := t.claimed(s, t.request(r.ID))
	t.firstSeen(again, r.Now)
	t.release(s, r.ID, c.Token, replay.ErrClaimLost)
	t.refused(s, t.request(r.ID), replay.ErrBusy)
	t.release(s, t.id(), c.Token, nil) // no record

	// Given up is given up.
	t.release(s, r.ID, again.Token, nil)
	for _, token := range []string{again.Token, "", strings.Repeat("0", len(again.Token))} {
		t.consume(s, r.ID, token, replay.ErrClaimLost)
		t.renew(s, r.ID, token, replay.ErrClaimLost)
	}
	third := t.claimed(s, t.request(r.ID))

	t.consume(s, r.ID, third.Token, nil)
	t.release(s, r.ID, third.Token, replay.ErrClaimLost)
	r.BrokerID = "other"
	t.refused(s, r, replay.ErrReused)
}

func consume(t *trial) {
	s := t.store()
	r := t.request(t.id())
	t.consume(s, r.ID, "", replay.ErrClaimLost) // no record
	t.consume(s, r.ID, strings.Repeat("0", 32), replay.ErrClaimLost)
	c := t.claimed(s, r)
	t.consume(s, r.ID, strings.Repeat("0", len(c.Token)), replay.ErrClaimLost)
	t.refused(s, r, replay.ErrBusy)
	t.consume(s, r.ID, c.Token, nil)
	t.consume(s, r.ID, c.Token, nil) // the answer to the first may have been lost
	t.consume(s, r.ID, strings.Repeat("0", len(c.Token)), replay.ErrClaimLost)
	replayed := t.request(r.ID)
	replayed.BrokerID = "copy"
	t.refused(s, replayed, replay.ErrReused)
	t.advance(t.ticks(5)) // the lease means nothing any more
	t.refused(s, replayed, replay.ErrReused)
	t.consume(s, r.ID, c.Token, nil)
}

func consumeLate(t *trial) {
	s := t.store()
	r := t.request(t.id())
	c := t.claimed(s, r)
	t.advance(t.ticks(5))
	t.consume(s, r.ID, c.Token, nil) // its handler did finish
	r.BrokerID = "copy"
	t.refused(s, r, replay.ErrReused)
}

func duplicate(t *trial) {
	s := t.store()
	r := t.request(t.id())
	r.BrokerID = "first"
	c := t.claimed(s, r)
	t.release(s, r.ID, c.Token, nil)
	second := t.request(r.ID)
	second.BrokerID = "second"
	c = t.claimed(s, second)
	t.consume(s, r.ID, c.Token, nil)

	t.advance(t.ticks(1))
	second.Now = time.Now()
	got, err := s.Begin(t.Context(), second)
	is(t, "Begin", err, nil)
	if !got.Duplicate || got.Token != "" {
		t.Errorf("Begin: %+v, want Duplicate and no token", got)
	}
	second.Now = second.FreshUntil.Add(time.Nanosecond) // stale or not
	if got, err := s.Begin(t.Context(), second); err != nil || !got.Duplicate {
		t.Errorf("Begin: %+v, %v, want Duplicate", got, err)
	}
	t.refused(s, r, replay.ErrReused) // claimed it once, did not consume it

	// A broker that names no messages shows nothing.
	anonymous := t.request(t.id())
	anonymous.BrokerID = ""
	c = t.claimed(s, anonymous)
	t.consume(s, anonymous.ID, c.Token, nil)
	t.refused(s, anonymous, replay.ErrReused)
}
