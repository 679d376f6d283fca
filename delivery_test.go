package queue_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// TestReasonAtItsBounds: codes of 1 to 64 bytes of [a-z0-9_], descriptions of up to 512.
func TestReasonAtItsBounds(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, nil)
		for _, c := range []struct {
			reason queue.Reason
			ok     bool
		}{
			{queue.Reason{Code: ""}, false},
			{queue.Reason{Code: "a"}, true},
			{queue.Reason{Code: "az_09"}, true},
			{queue.Reason{Code: strings.Repeat("a", 64)}, true},
			{queue.Reason{Code: strings.Repeat("a", 65)}, false},
			{queue.Reason{Code: "a`"}, false},
			{queue.Reason{Code: "a{"}, false},
			{queue.Reason{Code: "a/"}, false},
			{queue.Reason{Code: "a:"}, false},
			{queue.Reason{Code: "a-b"}, false},
			{queue.Reason{Code: "A"}, false},
			{queue.Reason{Code: "a", Description: strings.Repeat("d", 512)}, true},
			{queue.Reason{Code: "a", Description: strings.Repeat("d", 513)}, false},
		} {
			x.Send(&queue.Message{Body: []byte("a")})
			d := x.One(r)
			err := d.DeadLetter(x.Context(), c.reason)
			if c.ok {
				x.Must(err)
				continue
			}
			x.failed(c.reason.Code, err, driver.ErrInvalid, "dead-letter")
			x.Must(d.Complete(x.Context())) // it was not settled
		}
	})
}

// TestDelaysAtTheirBounds: what the broker cannot do is refused before anything is given up.
func TestDelaysAtTheirBounds(t *testing.T) {
	for name, c := range map[string]struct {
		caps  func(*driver.Capabilities)
		delay time.Duration
		want  error
	}{
		"none":                  {func(c *driver.Capabilities) { c.AbandonDelay = driver.None }, 0, nil},
		"one, and it has none":  {func(c *driver.Capabilities) { c.AbandonDelay = driver.None }, 1, errors.ErrUnsupported},
		"negative":              {nil, -1, queue.ErrInvalidOptions},
		"the longest":           {func(c *driver.Capabilities) { c.MaxDelay = time.Minute }, time.Minute, nil},
		"longer":                {func(c *driver.Capabilities) { c.MaxDelay = time.Minute }, time.Minute + 1, queue.ErrInvalidOptions},
		"long, without a limit": {func(c *driver.Capabilities) { c.MaxDelay = 0 }, 1000 * time.Hour, nil},
	} {
		for _, op := range []string{"abandon", "release"} {
			inBubble(t, nil, func(x *fixture) {
				x.Send(&queue.Message{Body: []byte("a")})
				d := x.One(x.receives(x.behind(&failingBroker{caps: c.caps}, nil), nil))
				give := d.Abandon
				if op == "release" {
					give = d.Release
				}
				err := give(x.Context(), c.delay)
				if c.want == nil {
					x.Must(err)
					return
				}
				x.failed(name, err, c.want, op)
				x.Must(d.Complete(x.Context()))
			})
		}
	}
}

// TestDeadLetterNeedsAQueue: without one the message stays, and can still be completed.
func TestDeadLetterNeedsAQueue(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		o := &diary{}
		p := &failingBroker{caps: func(c *driver.Capabilities) { c.DeadLetter = driver.None }}
		d := x.One(x.receives(x.behind(p, func(c *queue.Options) { c.Observer = o }), nil))
		x.failed("DeadLetter", d.DeadLetter(x.Context(), queue.Reason{Code: "a"}), errors.ErrUnsupported, "dead-letter")
		x.Must(d.Complete(x.Context()))
		x.told("DeadLetter", o.of("dead-lettered"))
	})
}

// TestDeliveryOfNoReceiver: each call says that there is none.
func TestDeliveryOfNoReceiver(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		d := &queue.Delivery{}
		for op, err := range map[string]error{
			"complete":    d.Complete(x.Context()),
			"abandon":     d.Abandon(x.Context(), 0),
			"release":     d.Release(x.Context(), 0),
			"dead-letter": d.DeadLetter(x.Context(), queue.Reason{Code: "a"}),
			"renew":       d.Renew(x.Context()),
		} {
			x.failed(op, err, queue.ErrInvalidOptions, op)
			if err == nil || !strings.Contains(err.Error(), "queuetest.NewDelivery") {
				x.Errorf("%s: %v", op, err)
			}
		}
		x.Send(&queue.Message{Body: []byte("a")})
		x.Send(&queue.Message{Body: []byte("b")})
		r := x.Receiver(orders, nil)
		a, b := x.One(r), x.One(r)
		errs := r.RenewAll(x.Context(), []*queue.Delivery{a, d, b})
		if errs[0] != nil || errs[2] != nil {
			x.Errorf("RenewAll: %v", errs)
		}
		x.failed("RenewAll", errs[1], queue.ErrInvalidOptions, "renew")
		if ctx := x.Context(); d.Context(ctx) != ctx {
			x.Error("it has another context")
		}
		if _, _, ok := d.Claim(); ok || !d.HeldUntil().IsZero() {
			x.Error("it has a claim, or an end")
		}
	})
}

// TestSettledOnce: a delivery is settled once; after a failure it can be settled again.
func TestSettledOnce(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		p, o := &failingBroker{}, &diary{}
		r := x.receives(x.behind(p, func(c *queue.Options) { c.Observer = o }), nil)
		d := x.One(r)
		x.failed("without a context", d.Complete(noContext), queue.ErrInvalidOptions, "complete")
		left, cancel := context.WithCancel(x.Context())
		cancel()
		if err := d.Complete(left); !errors.Is(err, context.Canceled) {
			x.Errorf("a caller that left: %v", err)
		}
		p.set(func() { p.fails = map[string]error{"settle": errFailing} })
		x.failed("a broker that fails", d.Abandon(x.Context(), 0), errFailing, "abandon")
		p.set(func() { p.fails, p.short = nil, map[string]bool{"settle": true} })
		if err := d.Release(x.Context(), 0); err == nil || !strings.Contains(err.Error(), "no result") {
			x.Errorf("a driver without an answer: %v", err)
		}
	})
}

// TestSettledBesideAnotherCall: while one call settles a delivery, another fails.
func TestSettledBesideAnotherCall(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
		p, o := &failingBroker{}, &diary{}
		r := x.receives(x.behind(p, func(c *queue.Options) { c.Observer = o }), nil)
		d := x.One(r)
		p.hook = func(call string) {
			if call == "settle" {
				x.failed("beside another call", d.Complete(x.Context()), queue.ErrSettled, "complete")
			}
		}
		x.Must(d.DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}))
		for op, err := range map[string]error{
			"complete": d.Complete(x.Context()), "abandon": d.Abandon(x.Context(), 0), "renew": d.Renew(x.Context()),
		} {
			x.failed("again", err, queue.ErrSettled, op)
		}
		if p.count("settle") != 1 || p.count("renew") != 0 {
			x.Errorf("%v calls", p.counts())
		}
		x.told("DeadLetter", o.of("dead-lettered"), "dead-lettered gave_up")
		x.told("DeadLetter", o.of("settle"), `settle dead_lettered of 1, 0 links, encrypted false, message "m", session "s", key "": 1, failed false`)
	})
}

// TestSettleIsTold: what failed is told as failed, and dead-lettering only once it is done.
func TestSettleIsTold(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		p, o := &failingBroker{fails: map[string]error{"settle": errFailing}}, &diary{}
		d := x.One(x.receives(x.behind(p, func(c *queue.Options) { c.Observer = o }), nil))
		x.failed("DeadLetter", d.DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}), errFailing, "dead-letter")
		x.told("DeadLetter", o.of("dead-lettered"))
		x.told("DeadLetter", o.of("settle"), `settle dead_lettered of 1, 0 links, encrypted false, message "m", session "", key "": 1, failed true`)
	})
}

// TestTraceOfADelivery: the trace that came with a message is a link of its settlement.
func TestTraceOfADelivery(t *testing.T) {
	for _, traces := range []bool{false, true} {
		inBubble(t, func(_ *fixture, o *queue.Options) { o.Observer = traced{} }, func(x *fixture) {
			x.Send(&queue.Message{ID: "m", Body: []byte("a")})
			o := &diary{traces: traces}
			d := x.One(x.receives(x.behind(&failingBroker{}, func(c *queue.Options) { c.Observer = o }), nil))
			x.Must(d.Complete(x.Context()))
			links := map[bool]string{false: "0 links", true: "1 links"}[traces]
			if got := o.of("settle"); len(got) != 1 || !strings.Contains(got[0], links) {
				x.Errorf("told %q, want %s", got, links)
			}
		})
	}
}

// traced gives each operation a trace.
type traced struct{ observe.Nop }

func (traced) Traces() bool { return true }

func (traced) Inject(_ context.Context, set func(name, value string)) {
	set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
}

// TestRenewTells: a renewal extends what the delivery says, each is told, and too few answers are
// failures of the others.
func TestRenewTells(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for range 3 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		p, o := &failingBroker{}, &diary{}
		r := x.receives(x.behind(p, func(c *queue.Options) { c.Observer = o }), nil)
		all := []*queue.Delivery{x.One(r), x.One(r), x.One(r)}
		first := all[0].HeldUntil()
		x.Wait(10 * time.Second)
		for i, err := range r.RenewAll(x.Context(), all) {
			if err != nil || all[i].HeldUntil().Sub(first) != 10*time.Second {
				x.Errorf("%d: %v until %s", i, err, all[i].HeldUntil())
			}
		}
		if p.count("renew") != 1 {
			x.Errorf("%d calls, want 1", p.count("renew"))
		}
		x.told("RenewAll", o.of("renewed"), "renewed, failed false", "renewed, failed false", "renewed, failed false")
		x.Wait(time.Second)
		p.set(func() { p.short = map[string]bool{"renew": true} })
		errs := r.RenewAll(x.Context(), all)
		if errs[0] != nil || errs[1] != nil || errs[2] == nil || !strings.Contains(errs[2].Error(), "too few results") {
			x.Errorf("too few results: %v", errs)
		}
		if all[0].HeldUntil().Sub(first) != 11*time.Second || all[2].HeldUntil().Sub(first) != 10*time.Second {
			x.Errorf("too few results: until %s, %s", all[0].HeldUntil(), all[2].HeldUntil())
		}
		p.set(func() { p.short, p.fails = nil, map[string]error{"renew": errFailing} })
		x.failed("Renew", all[0].Renew(x.Context()), errFailing, "renew")
		if all[0].HeldUntil().Sub(first) != 11*time.Second {
			x.Error("a renewal that failed extends the lock")
		}
		if got := o.of("renewed"); got[len(got)-1] != "renewed, failed true" {
			x.Errorf("told %q", got)
		}
		for _, err := range r.RenewAll(noContext, all) {
			x.failed("without a context", err, queue.ErrInvalidOptions, "renew")
		}
		x.failed("without a context", all[0].Renew(noContext), queue.ErrInvalidOptions, "renew")
		if errs := r.RenewAll(x.Context(), nil); len(errs) != 0 {
			x.Errorf("of none: %v", errs)
		}
	})
}

// TestRenewBesideARenewal: another renewal of the same delivery is waited for by Renew, and
// refused by RenewAll; the driver sees one at a time.
func TestRenewBesideARenewal(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		x.Send(&queue.Message{Body: []byte("b")})
		p := &failingBroker{}
		r := x.receives(x.behind(p, nil), nil)
		a, b := x.One(r), x.One(r)
		inside, done := make(chan struct{}), make(chan error, 1)
		go func() { // waits until the first renewal is under way
			<-inside
			done <- a.Renew(x.Context())
		}()
		nested := false
		p.hook = func(call string) {
			if call != "renew" || nested {
				return
			}
			nested = true
			close(inside)
			errs := r.RenewAll(x.Context(), []*queue.Delivery{a, b})
			if errs[0] == nil || !strings.Contains(errs[0].Error(), "under way") || errs[1] != nil {
				x.Errorf("RenewAll beside a renewal: %v", errs)
			}
			if errs := r.RenewAll(x.Context(), []*queue.Delivery{a}); errs[0] == nil || !strings.Contains(errs[0].Error(), "under way") {
				x.Errorf("RenewAll of it alone: %v", errs)
			}
			ctx, cancel := context.WithTimeout(x.Context(), time.Second)
			defer cancel()
			if err := a.Renew(ctx); !errors.Is(err, context.DeadlineExceeded) {
				x.Errorf("Renew of a caller that leaves: %v", err)
			}
		}
		x.Must(a.Renew(x.Context()))
		x.Must(<-done)
		if p.count("renew") != 3 {
			x.Errorf("%d calls of the driver, want 3", p.count("renew"))
		}
	})
}

// TestRenewThatPanics lets the next one begin.
func TestRenewThatPanics(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		p := &failingBroker{}
		d := x.One(x.receives(x.behind(p, nil), nil))
		for _, call := range []string{"renew", "settle"} {
			p.hook = func(c string) {
				if c == call {
					panic("driver")
				}
			}
			func() {
				defer func() { _ = recover() }()
				if call == "renew" {
					_ = d.Renew(x.Context())
				} else {
					_ = d.Abandon(x.Context(), 0)
				}
				x.Error("no panic")
			}()
			p.set(func() { p.hook = nil })
			ctx, cancel := context.WithTimeout(x.Context(), time.Second)
			if call == "renew" {
				x.Must(d.Renew(ctx))
			} else {
				x.Must(d.Abandon(ctx, 0))
			}
			cancel()
		}
	})
}

// TestHandledAlthoughTheLockIsOver: with a replay store the message counts as handled; without
// one it does not.
func TestHandledAlthoughTheLockIsOver(t *testing.T) {
	const line = "Message is handled although its lock was over"
	for _, tracks := range []bool{true, false} {
		inBubble(t, nil, func(x *fixture) {
			x.Send(&queue.Message{Body: []byte("a")})
			p := &failingBroker{fails: map[string]error{"settle": driver.Errorf(driver.LockLost, "over")}}
			change := func(*queue.Options) {}
			if !tracks {
				change = without
			}
			d := x.One(x.receives(x.behind(p, change), nil))
			if tracks {
				x.failed("Abandon", d.Abandon(x.Context(), 0), queue.ErrLockLost, "abandon")
				x.Send(&queue.Message{Body: []byte("b")})
				p.set(func() { p.fails = nil })
				d = x.One(x.receives(x.behind(p, change), nil))
				p.set(func() { p.fails = map[string]error{"settle": driver.Errorf(driver.LockLost, "over")} })
			}
			err := d.Complete(x.Context())
			if (err == nil) != tracks || (x.logged(line) == 1) != tracks {
				x.Errorf("with a store %v: %v, %d lines", tracks, err, x.logged(line))
			}
			p.set(func() { p.fails = map[string]error{"settle": errFailing} })
			x.Send(&queue.Message{Body: []byte("c")})
			d = x.One(x.receives(x.behind(p, change), nil))
			x.failed("another failure", d.Complete(x.Context()), errFailing, "complete")
		})
	}
}

// finishing is a replay store that keeps how claims end.
type finishing struct {
	replay.Store
	kinds []replay.FinishKind
	err   error
	item  error
	left  []time.Duration // until the end of each call's context
}

func (s *finishing) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	for i := range f {
		s.kinds = append(s.kinds, f[i].Kind)
	}
	if end, ok := ctx.Deadline(); ok {
		s.left = append(s.left, time.Until(end))
	}
	if s.err != nil {
		return nil, s.err
	}
	r, err := s.Store.Finish(ctx, group, f)
	for i := range r {
		r[i].Err = errors.Join(r[i].Err, s.item)
	}
	return r, err
}

// TestClaimEndsAsTheMessage: consumed, released or parked; a store that fails keeps a message
// from being completed, and no other settlement.
func TestClaimEndsAsTheMessage(t *testing.T) {
	const line = "Claim not released"
	settle := map[string]func(*queue.Delivery, context.Context) error{
		"complete":    func(d *queue.Delivery, ctx context.Context) error { return d.Complete(ctx) },
		"abandon":     func(d *queue.Delivery, ctx context.Context) error { return d.Abandon(ctx, 0) },
		"release":     func(d *queue.Delivery, ctx context.Context) error { return d.Release(ctx, 0) },
		"dead-letter": func(d *queue.Delivery, ctx context.Context) error { return d.DeadLetter(ctx, queue.Reason{Code: "a"}) },
	}
	kinds := map[string]replay.FinishKind{"complete": replay.Consumed, "abandon": replay.Released, "release": replay.Released, "dead-letter": replay.Parked}
	for op, f := range settle {
		inBubble(t, nil, func(x *fixture) {
			s := &finishing{Store: x.Store}
			r := x.receives(x.behind(&failingBroker{}, func(o *queue.Options) { o.ReplayStore = s }), nil)
			x.Send(&queue.Message{Body: []byte("a")})
			d := x.One(r)
			group, claim, ok := d.Claim()
			if !ok || group != orders || claim.Kind != replay.Consumed {
				x.Errorf("claim %+v of %q", claim, group)
			}
			ctx, cancel := context.WithTimeout(x.Context(), 4*time.Second)
			defer cancel()
			x.Must(f(d, ctx))
			if len(s.kinds) != 1 || s.kinds[0] != kinds[op] {
				x.Errorf("%s ends the claim as %v", op, s.kinds)
			}
			if op != "complete" && (len(s.left) != 1 || s.left[0] > 2*time.Second) {
				x.Errorf("%s leaves the broker nothing of 4 s: the store has %v", op, s.left)
			}
			if x.logged(line) != 0 {
				x.Errorf("%s: %s", op, x.Log)
			}
		})
		for name, err := range map[string]error{"fails": errFailing, "lost": replay.ErrClaimLost, "handled": replay.ErrHandled} {
			inBubble(t, nil, func(x *fixture) {
				s := &finishing{Store: x.Store}
				p := &failingBroker{}
				r := x.receives(x.behind(p, func(o *queue.Options) { o.ReplayStore = s }), nil)
				x.Send(&queue.Message{Body: []byte("a")})
				d := x.One(r)
				if name == "fails" {
					s.err = err
				} else {
					s.item = err
				}
				got := f(d, x.Context())
				if op == "complete" {
					if name == "fails" && (!errors.Is(got, queue.ErrReplayStore) || p.count("settle") != 0) {
						x.Errorf("complete, the store %s: %v, %d calls of the broker", name, got, p.count("settle"))
					}
					return
				}
				lines := map[bool]int{true: 1}[name == "fails"]
				if got != nil || x.logged(line) != lines || p.count("settle") != 1 {
					x.Errorf("%s, the store %s: %v, %d lines", op, name, got, x.logged(line))
				}
			})
		}
	}
}

// endless is a broker whose locks have no end in time.
type endless struct{ driver.Broker }

func (b endless) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return endlessQueue{q}, err
}

type endlessQueue struct{ driver.Queue }

func (q endlessQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	all, err := q.Queue.Receive(ctx, max, wait)
	for _, d := range all {
		d.LockedUntil = time.Time{}
	}
	return all, err
}

func (q endlessQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	results := q.Queue.Renew(ctx, d)
	for i := range results {
		results[i].LockedUntil = time.Time{}
	}
	return results
}

// TestHeldUntilWithoutALock: a lock without an end leaves that of the claim, which a renewal
// moves, and none if there is no claim.
func TestHeldUntilWithoutALock(t *testing.T) {
	for _, tracked := range []bool{true, false} {
		inBubble(t, nil, func(x *fixture) {
			x.Send(&queue.Message{Body: []byte("a")})
			d := x.One(x.receives(x.behind(&failingBroker{Broker: endless{x.Broker.Connect()}}, func(o *queue.Options) {
				if !tracked {
					without(o)
				}
			}), nil))
			for range 3 {
				want := time.Time{}
				if tracked {
					want = time.Now().Add(time.Minute)
				}
				if got := d.HeldUntil(); !got.Equal(want) {
					x.Errorf("tracked %t: held until %s, want %s", tracked, got, want)
				}
				x.Wait(20 * time.Second)
				x.Must(d.Renew(x.Context()))
			}
			x.Must(d.Complete(x.Context()))
		})
	}
}

// TestSettleAfterClose: what was received cannot be settled or renewed over a Receiver, Session
// or Client that is closed, and is not lost by trying. Completed it counts as handled if a
// replay store knows it.
func TestSettleAfterClose(t *testing.T) {
	ways := map[string]func(context.Context, *queue.Delivery) error{
		"complete":    func(ctx context.Context, d *queue.Delivery) error { return d.Complete(ctx) },
		"abandon":     func(ctx context.Context, d *queue.Delivery) error { return d.Abandon(ctx, 0) },
		"release":     func(ctx context.Context, d *queue.Delivery) error { return d.Release(ctx, 0) },
		"dead-letter": func(ctx context.Context, d *queue.Delivery) error { return d.DeadLetter(ctx, queue.Reason{Code: "a"}) },
		"renew":       func(ctx context.Context, d *queue.Delivery) error { return d.Renew(ctx) },
	}
	type opened struct {
		c *queue.Client
		r *queue.Receiver
		s *queue.Session // nil: received from the queue
	}
	closes := map[string]struct {
		session bool
		do      func(context.Context, *opened) error
	}{
		"receiver":               {false, func(ctx context.Context, o *opened) error { return o.r.Close(ctx) }},
		"client":                 {false, func(ctx context.Context, o *opened) error { return o.c.Close(ctx) }},
		"session":                {true, func(ctx context.Context, o *opened) error { return o.s.Close(ctx) }},
		"receiver, of a session": {true, func(ctx context.Context, o *opened) error { return o.r.Close(ctx) }},
		"client, of a session":   {true, func(ctx context.Context, o *opened) error { return o.c.Close(ctx) }},
	}
	for op, settle := range ways {
		for closed, end := range closes {
			for store, change := range map[string]func(*queue.Options){"with a replay store": nil, "without one": without} {
				t.Run(op+"/"+closed+"/"+store, func(t *testing.T) {
					inBubble(t, nil, func(x *fixture) {
						m := &queue.Message{ID: "m", Body: []byte("a")}
						if end.session {
							m.SessionID = "s"
						}
						x.Send(m)
						o := &opened{c: x.behind(&failingBroker{}, change)}
						o.r = x.receives(o.c, nil)
						receive := o.r.ReceiveOne
						if end.session {
							var err error
							o.s, err = o.r.NextSession(x.Context())
							x.Must(err)
							receive = o.s.ReceiveOne
						}
						d, err := receive(x.Context())
						x.Must(err)
						x.Must(end.do(x.Context(), o))
						x.failed(op, settle(x.Context(), d), queue.ErrClosed, op)
						handled := op == "complete" && change == nil
						if !handled {
							x.Wait(5 * time.Minute) // of locks and leases
						}
						r := x.receives(x.behind(&failingBroker{}, change), nil)
						got, err := r.ReceiveOne(x.Context())
						switch {
						case handled && !errors.Is(err, queue.ErrNoMessage):
							x.Errorf("received again: %v, %v; want it known as handled", got, err)
						case !handled && (err != nil || got.ID != "m"):
							x.Errorf("received again: %v; want the message", err)
						}
					})
				})
			}
		}
	}
}

// TestDeadLetterSaysWhy: what is rejected for good is dead-lettered with the reason's code and its
// own sentence.
func TestDeadLetterSaysWhy(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, nil)
		x.Inject(orders, x.sealed("old", time.Now().Add(-10*time.Hour), time.Time{}))
		x.None(r, queue.ErrMessageExpired)
		x.Inject(orders, driver.Message{ID: "p", Body: []byte("plain")})
		x.None(r, queue.ErrUnencryptedMessage)
		dead, err := x.Broker.StoredDeadLetters(orders)
		x.Must(err)
		got := map[string]string{}
		for _, m := range dead {
			got[m.DeadLetter.Reason] = m.DeadLetter.Description
		}
		if want := map[string]string{
			driver.ReasonMessageExpired: "the message is older than the receiver accepts",
			driver.ReasonPlaintext:      "the message is not encrypted and the receiver rejects plaintext",
		}; !maps.Equal(got, want) {
			x.Errorf("dead-lettered for %q, want %q", got, want)
		}
	})
}

// TestSettledInAll: a message that All has handed out answers its handler after All has ended, too.
func TestSettledInAll(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{SessionID: "s", Body: []byte("a")})
		s := x.accept(x.Receiver(orders, nil))
		var last *queue.Delivery
		for d, err := range s.All(x.Context()) {
			x.Must(err)
			x.Must(d.Complete(x.Context()))
			last = d
		}
		if last == nil || !errors.Is(last.Complete(x.Context()), driver.ErrSettled) {
			x.Error("a second Complete of the last message was not refused")
		}
	})
}
