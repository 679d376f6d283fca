package replaytest

import (
	"time"

	"github.com/queue-runtime/queue/replay"
)

func notFresh(t *trial) {
	s := t.store()
	r := t.request(t.id())
	stale := r
	stale.FreshUntil = r.Now.Add(-time.Millisecond)
	t.refused(s, stale, replay.ErrNotFresh)
	t.refused(s, stale, replay.ErrNotFresh) // the first made no record
	t.consume(s, r.ID, "", replay.ErrClaimLost)

	r.FreshUntil = r.Now // fresh until then, inclusive
	t.firstSeen(t.claimed(s, r), r.Now)
}

func retryWindow(t *trial) {
	s := t.store()
	r := t.request(t.id())
	r.RetryWindow = t.ticks(50)
	c := t.claimed(s, r)
	t.release(s, r.ID, c.Token, nil)

	// Seen fresh once, so its retries pass though it is stale by now. Only the
	// receiver's clock counts, so the test need not wait.
	retry := r
	retry.Now = r.FreshUntil.Add(time.Millisecond)
	c = t.claimed(s, retry)
	t.firstSeen(c, r.Now)
	t.release(s, r.ID, c.Token, nil)

	retry.Now = r.Now.Add(r.RetryWindow)
	c = t.claimed(s, retry)
	t.firstSeen(c, r.Now) // counted from the first, not from the last
	t.release(s, r.ID, c.Token, nil)

	retry.Now = r.Now.Add(r.RetryWindow + time.Millisecond)
	t.refused(s, retry, replay.ErrNotFresh)
	retry.FreshUntil = retry.Now.Add(time.Hour) // fresh or not
	t.refused(s, retry, replay.ErrNotFresh)

	// A consumed record is a replay, however late.
	retry.Now = r.Now.Add(r.RetryWindow)
	c = t.claimed(s, retry)
	t.consume(s, r.ID, c.Token, nil)
	retry.Now = r.Now.Add(10 * r.RetryWindow)
	retry.BrokerID = "copy"
	t.refused(s, retry, replay.ErrReused)
}

// past advances until retention of n ticks is over, slack included.
func past(t *trial, n int) { t.advance(t.ticks(n) + t.o.Slack + t.o.Tick) }

func retainConsumed(t *trial) {
	s := t.store()
	r := t.request(t.id())
	r.RetainClaimed = r.Now.Add(t.ticks(4))
	r.RetainConsumed = r.Now.Add(t.ticks(10))
	c := t.claimed(s, r)
	t.consume(s, r.ID, c.Token, nil)
	t.advance(t.ticks(7)) // past RetainClaimed, which is not for this one
	r.BrokerID = "copy"
	t.refused(s, r, replay.ErrReused)
	past(t, 3)
	late := t.request(r.ID)
	late.FreshUntil = late.Now.Add(-time.Millisecond)
	t.refused(s, late, replay.ErrNotFresh) // its FirstSeen went with it
	t.consume(s, r.ID, c.Token, replay.ErrClaimLost)
	late = t.request(r.ID)
	t.firstSeen(t.claimed(s, late), late.Now)

	// Consumed records go at their own time also where released ones stay.
	r = t.request(t.id())
	r.RetainConsumed = r.Now.Add(t.ticks(2))
	c = t.claimed(s, r)
	t.consume(s, r.ID, c.Token, nil)
	past(t, 2)
	late = t.request(r.ID)
	late.FreshUntil = late.Now.Add(-time.Millisecond)
	t.refused(s, late, replay.ErrNotFresh)
}

func retainClaimed(t *trial) {
	s := t.store()
	released, abandoned := t.request(t.id()), t.request(t.id())
	for _, r := range []*replay.Request{&released, &abandoned} {
		r.RetainClaimed = r.Now.Add(t.ticks(10))
		r.RetainConsumed = r.Now.Add(t.ticks(4))
		r.FreshUntil = r.Now
	}
	c := t.claimed(s, released)
	t.release(s, released.ID, c.Token, nil)
	t.claimed(s, abandoned) // and its holder crashes
	t.advance(t.ticks(7))
	for _, r := range []replay.Request{released, abandoned} {
		again := r
		again.Now = time.Now()
		again.RetainClaimed = r.RetainClaimed
		c := t.claimed(s, again)
		t.firstSeen(c, r.Now)
		t.release(s, r.ID, c.Token, nil)
	}
	past(t, 3)
	for _, r := range []replay.Request{released, abandoned} {
		r.Now = time.Now()
		t.refused(s, r, replay.ErrNotFresh)
		fresh := t.request(r.ID)
		t.firstSeen(t.claimed(s, fresh), fresh.Now)
	}
}

func leaseOutlasts(t *trial) {
	s := t.store()
	r := t.request(t.id())
	r.Lease = t.ticks(10) + t.o.Slack
	r.RetainClaimed = r.Now.Add(-t.ticks(1)) // over before it begins
	c := t.claimed(s, r)
	t.advance(t.ticks(6) + t.o.Slack)
	t.refused(s, r, replay.ErrBusy)
	if err := s.Renew(t.Context(), r.Group, r.ID, c.Token, t.ticks(10)+t.o.Slack); err != nil {
		t.Errorf("Renew: %v", err)
	}
	t.advance(t.ticks(6) + t.o.Slack)
	t.refused(s, r, replay.ErrBusy)
	t.consume(s, r.ID, c.Token, nil)
	r.BrokerID = "copy"
	t.refused(s, r, replay.ErrReused)
}

// otherClock has receivers whose clocks are far off the store's. What they ask
// to be kept counts from their own Now.
func otherClock(t *trial) {
	for _, off := range []time.Duration{-1000 * t.o.Tick, 1000 * t.o.Tick} {
		s := t.store()
		r := t.request(t.id())
		for _, at := range []*time.Time{&r.Now, &r.FreshUntil} {
			*at = at.Add(off)
		}
		r.RetainClaimed = r.Now.Add(t.ticks(10))
		r.RetainConsumed = r.RetainClaimed
		released := r
		released.ID = t.id()
		c := t.claimed(s, released)
		t.release(s, released.ID, c.Token, nil)
		c = t.claimed(s, r)
		t.firstSeen(c, r.Now)
		t.consume(s, r.ID, c.Token, nil)
		t.advance(t.ticks(7))
		r.BrokerID = "copy"
		t.refused(s, r, replay.ErrReused)
		again := released
		again.Now = time.Now().Add(off)
		again.FreshUntil = again.Now.Add(-time.Millisecond)
		c = t.claimed(s, again)
		t.firstSeen(c, released.Now)
		t.release(s, again.ID, c.Token, nil)
		past(t, 3)
		r.Now = time.Now().Add(off)
		r.FreshUntil = r.Now.Add(-time.Millisecond)
		t.refused(s, r, replay.ErrNotFresh)
		r.ID = again.ID
		t.refused(s, r, replay.ErrNotFresh)
	}
}

func full(t *trial) {
	if !t.o.Bounded {
		t.Log("the store has no bound of its own")
		return
	}
	const room = 8
	s := t.o.New(t.T, room)
	type held struct {
		r replay.Request
		c replay.Claim
	}
	all := make([]held, room)
	for i := range all {
		all[i].r = t.request(t.id())
		all[i].r.RetainConsumed = all[i].r.Now.Add(t.ticks(10))
		all[i].c = t.claimed(s, all[i].r)
	}
	more := t.request(t.id())
	t.refused(s, more, replay.ErrFull)
	t.consume(s, more.ID, "", replay.ErrClaimLost) // no record
	for _, h := range all[:room/2] {
		t.consume(s, h.r.ID, h.c.Token, nil)
	}
	t.refused(s, more, replay.ErrFull) // the consumed count

	// Nothing was forgotten, and what is known needs no room.
	for i, h := range all {
		h.r.BrokerID = "copy"
		if i < room/2 {
			t.refused(s, h.r, replay.ErrReused)
			continue
		}
		t.refused(s, h.r, replay.ErrBusy)
		t.release(s, h.r.ID, h.c.Token, nil)
		t.claimed(s, h.r)
	}
	stale := more
	stale.FreshUntil = stale.Now.Add(-time.Millisecond)
	t.refused(s, stale, replay.ErrNotFresh)

	past(t, 10)
	for range room / 2 { // as many as were consumed, and not one more
		t.claimed(s, t.request(t.id()))
	}
	t.refused(s, t.request(t.id()), replay.ErrFull)
}
