package replaytest

import (
	"errors"
	"time"

	"github.com/queue-runtime/queue/replay"
)

func claim(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	c := h.begin(nil, r)[0]
	if d := c.FirstSeen.Sub(r.Now); d.Abs() > time.Millisecond {
		t.errorf("FirstSeen is %v off", d)
	}
	if c.Stamp.ID == [16]byte{} || c.Stamp.Birth.IsZero() || c.Gap {
		t.errorf("%+v: no stamp, or a gap", c)
	}
}

func sameToken(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	first := h.begin(nil, r)[0]
	t.advance(time.Second)
	r.Now = time.Now()
	if c := h.begin(nil, r)[0]; !c.FirstSeen.Equal(first.FirstSeen) {
		t.errorf("FirstSeen %v, then %v", first.FirstSeen, c.FirstSeen)
	}
	h.begin(replay.ErrBusy, again(r))
	h.finish(nil, replay.Consumed, r)
}

func busy(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	first := h.begin(nil, r)[0]
	c := h.begin(replay.ErrBusy, again(r))[0]
	if left := time.Until(c.BusyUntil); left <= 0 || left > lease+time.Second {
		t.errorf("BusyUntil is in %v, want at most %v", left, lease)
	}
	t.advance(lease - time.Second)
	h.begin(replay.ErrBusy, again(r))
	t.advance(2 * time.Second)
	other := again(r)
	if c := h.begin(nil, other)[0]; !c.FirstSeen.Equal(first.FirstSeen) {
		t.errorf("FirstSeen %v, then %v", first.FirstSeen, c.FirstSeen)
	}
	h.begin(replay.ErrBusy, r) // its old owner is an owner no more
	h.finish(replay.ErrClaimLost, replay.Consumed, r)
	h.finish(replay.ErrClaimLost, replay.Released, r)
	h.finish(replay.ErrClaimLost, replay.Parked, r)
	h.renew(replay.ErrClaimLost, r)
	h.finish(nil, replay.Consumed, other)
	h.finish(replay.ErrHandled, replay.Consumed, r)
	h.renew(replay.ErrHandled, r)
}

func renew(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	h.begin(nil, r)
	for range 4 {
		t.advance(lease / 2)
		h.renew(nil, r)
		h.begin(replay.ErrBusy, again(r))
	}
	t.advance(lease - time.Second)
	h.begin(replay.ErrBusy, again(r))
	t.advance(2 * time.Second)
	if !t.o.Observes {
		h.renew(replay.ErrClaimLost, r) // another may have been told so
	}
	h.begin(nil, again(r))
	wrong := again(r)
	h.renew(replay.ErrClaimLost, wrong)
	h.renew(replay.ErrClaimLost, at(t.young("s"), 1))
}

func release(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	first := h.begin(nil, r)[0]
	h.finish(replay.ErrClaimLost, replay.Released, again(r))
	h.begin(replay.ErrBusy, again(r))
	h.finish(nil, replay.Released, r)
	h.finish(nil, replay.Released, r)
	h.finish(replay.ErrClaimLost, replay.Consumed, r)
	h.renew(replay.ErrClaimLost, r)
	t.advance(time.Second)
	next := again(r)
	if c := h.begin(nil, next)[0]; !c.FirstSeen.Equal(first.FirstSeen) {
		t.errorf("FirstSeen %v, then %v", first.FirstSeen, c.FirstSeen)
	}
	h.finish(replay.ErrClaimLost, replay.Released, r)
	h.finish(nil, replay.Consumed, next)
	h.finish(replay.ErrHandled, replay.Released, r)
	h.finish(replay.ErrClaimLost, replay.Released, at(t.young("s"), 7))
}

func consume(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	h.finish(replay.ErrClaimLost, replay.Consumed, r)
	h.begin(nil, r)
	h.finish(replay.ErrClaimLost, replay.Consumed, again(r))
	h.finish(nil, replay.Consumed, r)
	h.finish(nil, replay.Consumed, r)
	h.finish(replay.ErrHandled, replay.Consumed, again(r))
	h.finish(replay.ErrHandled, replay.Parked, r)
	h.begin(replay.ErrDuplicate, again(r))
}

func park(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	h.finish(replay.ErrClaimLost, replay.Parked, r)
	first := h.begin(nil, r)[0]
	h.finish(nil, replay.Parked, r)
	h.finish(nil, replay.Parked, r)
	h.finish(replay.ErrClaimLost, replay.Consumed, r)
	h.look(replay.StateParked, r)
	// It comes back, from a redrive, and is handled once.
	t.advance(time.Hour)
	next := again(r)
	if c := h.begin(nil, next)[0]; !c.FirstSeen.Equal(first.FirstSeen) {
		t.errorf("FirstSeen %v, then %v", first.FirstSeen, c.FirstSeen)
	}
	h.finish(nil, replay.Consumed, next)
	h.begin(replay.ErrDuplicate, again(r))
	// A parked record outlasts the retry window.
	p := at(t.young("s"), 1)
	h.begin(nil, p)
	h.finish(nil, replay.Parked, p)
	for range 10 {
		t.advance(24 * time.Hour)
		h.handled(at(t.stream("clock", time.Now()), 1))
	}
	h.look(replay.StateParked, p)
	for range 6 {
		t.advance(24 * time.Hour)
		h.handled(at(t.stream("clock", time.Now()), 1))
	}
	if l, err := h.s.Look(t.ctx, group, []replay.Query{{ID: p.ID, SealedAt: p.SealedAt}}); err != nil || l[0].State == replay.StateParked {
		t.errorf("Look after ParkedTTL: %+v, %v", l, err)
	}
}

// lateCopies: while copies of a handled message come, each is known as one, however long it
// takes; later they are old ones.
func lateCopies(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	h.handled(r)
	for range 10 {
		t.advance(4 * time.Minute)
		h.handled(at(t.stream("clock", time.Now()), 1)) // a store may sweep when it is called
		h.begin(replay.ErrDuplicate, again(r))
	}
	h.passFolding()
	h.begin(replay.ErrReused, again(r))
}

// lateFinish: a handler that ends after its lease still ends, unless another has
// taken its claim over.
func lateFinish(t *trial) {
	h := t.handle()
	for _, kind := range []replay.FinishKind{replay.Consumed, replay.Released, replay.Parked} {
		r := at(t.young("s"), 1)
		h.begin(nil, r)
		t.advance(2 * lease)
		h.finish(nil, kind, r)
		if kind == replay.Consumed {
			h.begin(replay.ErrDuplicate, again(r))
		} else {
			h.begin(nil, again(r))
		}
	}
}

func copies(t *trial) {
	h := t.handle()
	id := t.young("s")
	r := at(id, 1)
	h.begin(nil, r)
	other := again(r)
	other.Tag[0] ^= 1
	h.begin(replay.ErrCollision, other)
	h.finish(nil, replay.Released, r)
	h.begin(replay.ErrCollision, other)
	r = again(r)
	h.handled(r)
	h.begin(replay.ErrDuplicate, again(r))
	h.begin(replay.ErrCollision, other)
	h.passFolding()
	h.begin(replay.ErrReused, again(r))
	h.begin(replay.ErrReused, other)
	h.finish(replay.ErrHandled, replay.Consumed, r)
	h.finish(replay.ErrHandled, replay.Released, r)
	h.renew(replay.ErrHandled, r)
	h.look(replay.StateConsumed, r)
}

// resealed: a resealed copy has a tag of its own and is the same message.
func resealed(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	h.begin(nil, r)
	h.finish(nil, replay.Parked, r)
	t.advance(24 * time.Hour) // past the retry window
	anew := func(tag byte) replay.Request {
		n := again(r)
		n.Resealed, n.Tag[0] = true, tag
		n.FreshUntil = n.Now.Add(maxAge)
		return n
	}
	first, second := anew(1), anew(2)
	h.begin(replay.ErrNotFresh, again(r))
	h.begin(nil, first)
	h.begin(replay.ErrBusy, second)
	h.finish(nil, replay.Consumed, first)
	h.begin(replay.ErrDuplicate, again(first))
	// A copy of another operator, or another message of a stolen sender key: it is not deleted.
	h.begin(replay.ErrReused, second)
	h.begin(replay.ErrReused, again(r))
	h.passFolding()
	h.begin(replay.ErrReused, anew(3))
}

func notFresh(t *trial) {
	h := t.handle()
	id := t.young("s")
	stale := at(id, 2)
	stale.Now = stale.FreshUntil.Add(time.Millisecond)
	h.begin(replay.ErrNotFresh, stale)
	if n := h.stats(); n.Records != 0 || n.Streams != 0 {
		t.errorf("a rejected message left %d records and %d streams", n.Records, n.Streams)
	}
	stale.Now = stale.FreshUntil
	h.begin(nil, stale)
	// Known now: a retry may be stale.
	h.finish(nil, replay.Released, stale)
	stale = again(stale)
	stale.Now = stale.FreshUntil.Add(time.Minute)
	h.begin(nil, stale)
}

func retryWindow(t *trial) {
	h := t.handle()
	r := at(t.young("s"), 1)
	h.begin(nil, r)
	h.finish(nil, replay.Released, r)
	late := again(r)
	late.Now = r.Now.Add(window + time.Millisecond)
	h.begin(replay.ErrNotFresh, late)
	late.Now = r.Now.Add(window)
	h.begin(nil, late)
}

func apart(t *trial) {
	h := t.handle()
	a := at(t.young("s"), 1)
	others := []replay.Request{at(a.ID, 2), at(t.young("s"), 1), a, a}
	others[2].ID.Sender = "other"
	others[3].ID.Sender = ""
	h.handled(a)
	for i := range others {
		others[i].Token = replay.NewToken()
		h.handled(others[i])
	}
	c, err := h.s.Begin(t.ctx, "group2", []replay.Request{again(a)})
	if err != nil || c[0].Err != nil {
		t.errorf("another group: %+v, %v", c, err)
	}
	f, err := h.s.Finish(t.ctx, "group2", []replay.Finish{{ID: others[0].ID, Token: others[0].Token, Kind: replay.Consumed}})
	if err != nil || !errors.Is(f[0].Err, replay.ErrClaimLost) {
		t.errorf("another group: %+v, %v", f, err)
	}
}

// batchOrder: each item of a call sees those before it.
func batchOrder(t *trial) {
	h := t.handle()
	id := t.young("s")
	r := at(id, 1)
	c, err := h.s.Begin(t.ctx, group, []replay.Request{r, again(r), r, at(id, 2), at(id, 3000)})
	if err != nil {
		t.fatalf("Begin: %v", err)
	}
	for i, want := range []error{nil, replay.ErrBusy, nil, nil, nil} {
		if !errors.Is(c[i].Err, want) {
			t.errorf("item %d: %v, want %v", i, c[i].Err, want)
		}
	}
	kinds := []replay.FinishKind{replay.Consumed, replay.Released, replay.Consumed}
	f := make([]replay.Finish, len(kinds))
	for i, k := range kinds {
		f[i] = replay.Finish{ID: r.ID, Token: r.Token, Kind: k}
	}
	got, err := h.s.Finish(t.ctx, group, f)
	if err != nil {
		t.fatalf("Finish: %v", err)
	}
	for i, want := range []error{nil, replay.ErrHandled, nil} {
		if !errors.Is(got[i].Err, want) {
			t.errorf("item %d: %v, want %v", i, got[i].Err, want)
		}
	}
}

// invalid items are refused one by one, and calls as a whole.
func invalid(t *trial) {
	h := t.handle()
	good := at(t.young("s"), 5)
	bad := func(change func(*replay.Request)) replay.Request {
		r := again(good)
		change(&r)
		return r
	}
	all := []replay.Request{
		bad(func(r *replay.Request) { r.ID.Stream = [16]byte{} }),
		bad(func(r *replay.Request) { r.ID.Sequence = 0 }),
		good,
		bad(func(r *replay.Request) { r.ID.Sequence = 1 << 53 }),
		bad(func(r *replay.Request) { r.Token = replay.Token{} }),
		bad(func(r *replay.Request) { r.Lease = 0 }),
		bad(func(r *replay.Request) { r.RetryWindow = 0 }),
		bad(func(r *replay.Request) { r.MaxMessageAge = 0 }),
		bad(func(r *replay.Request) { r.MaxClockSkew = -1 }),
		bad(func(r *replay.Request) { r.Settled = 5 }),
		bad(func(r *replay.Request) { r.Previous = 5 }),
		bad(func(r *replay.Request) { r.Void = []replay.Range{{First: 1, Last: 1}} }),
		bad(func(r *replay.Request) { r.Now = time.Time{} }),
		bad(func(r *replay.Request) { r.SealedAt = time.Time{} }),
	}
	c, err := h.s.Begin(t.ctx, group, all)
	if err != nil || len(c) != len(all) {
		t.fatalf("Begin: %d answers, %v", len(c), err)
	}
	for i := range c {
		if want := []error{replay.ErrInvalid, nil}[b2i(i == 2)]; !errors.Is(c[i].Err, want) {
			t.errorf("item %d: %v, want %v", i, c[i].Err, want)
		}
	}
	f, err := h.s.Finish(t.ctx, group, []replay.Finish{{ID: good.ID, Token: good.Token}, {ID: good.ID, Token: good.Token, Kind: replay.Consumed}})
	if err != nil || !errors.Is(f[0].Err, replay.ErrInvalid) || f[1].Err != nil {
		t.errorf("Finish: %+v, %v", f, err)
	}
	if _, err := h.s.Begin(t.ctx, "", []replay.Request{good}); err == nil {
		t.errorf("an empty group was accepted")
	}
	if _, err := h.s.Begin(t.ctx, group, make([]replay.Request, replay.MaxBatch+1)); err == nil {
		t.errorf("a batch above MaxBatch was accepted")
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
