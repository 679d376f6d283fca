package sqldriver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// deliver hands out a delivery that h has locked.
func deliver(t *testing.T, h *Holder, seq int64) *driver.Delivery {
	t.Helper()
	d := &driver.Delivery{Receipt: h.NewReceipt(seq, NewToken(), "")}
	if _, err := h.Hand(t.Context(), []*driver.Delivery{d}, func([]*Receipt) { t.Error("given back") }); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestSettlement: a delivery is settled once, by the call that began first. One that failed may
// be tried again, and one whose lock was over is forgotten.
func TestSettlement(t *testing.T) {
	h := NewHolder(1)
	failure := errors.New("the database is away")
	for name, c := range map[string]struct {
		done bool
		err  error
		want error // of End
		next error // of another Begin
		left int   // unsettled
	}{
		"done":   {done: true, next: driver.ErrSettled},
		"failed": {err: failure, want: failure, left: 1},
		"lost":   {want: driver.ErrLockLost},
	} {
		t.Run(name, func(t *testing.T) {
			h := NewHolder(1)
			s := &driver.Settlement{Delivery: deliver(t, &h, 7), Kind: driver.Complete}
			r, err := h.Begin(s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.Begin(s); !errors.Is(err, driver.ErrSettled) {
				t.Errorf("Begin while it is settled: %v, want ErrSettled", err)
			}
			if _, err := h.Renewable(s.Delivery); err != nil {
				t.Errorf("Renewable while it is settled: %v", err)
			}
			if err := r.End(c.done, c.err); !errors.Is(err, c.want) {
				t.Errorf("End: %v, want %v", err, c.want)
			}
			if _, err := h.Begin(s); !errors.Is(err, c.next) {
				t.Errorf("Begin again: %v, want %v", err, c.next)
			}
			if len(h.unsettled) != c.left {
				t.Errorf("%d unsettled, want %d", len(h.unsettled), c.left)
			}
		})
	}
	other, dead := NewHolder(1), NewHolder(-1)
	for name, c := range map[string]struct {
		by   *Holder
		s    driver.Settlement
		want error
	}{
		"nil":                        {&h, driver.Settlement{}, driver.ErrInvalid},
		"of another driver":          {&h, driver.Settlement{Delivery: new(driver.Delivery), Kind: driver.Complete}, driver.ErrInvalid},
		"of another queue":           {&h, driver.Settlement{Delivery: deliver(t, &other, 1), Kind: driver.Complete}, driver.ErrInvalid},
		"in no known way":            {&h, driver.Settlement{Delivery: deliver(t, &h, 2), Kind: driver.Release + 1}, driver.ErrInvalid},
		"with a negative delay":      {&h, driver.Settlement{Delivery: deliver(t, &h, 3), Kind: driver.Abandon, Delay: -1}, driver.ErrInvalid},
		"a dead letter as one again": {&dead, driver.Settlement{Delivery: deliver(t, &dead, 4), Kind: driver.MoveToDeadLetter}, errors.ErrUnsupported},
	} {
		if _, err := c.by.Begin(&c.s); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestHandAfterEnd: what a caller that has left, or a closed holder, was to get is given back
// and not remembered.
func TestHandAfterEnd(t *testing.T) {
	left, leave := context.WithCancel(t.Context())
	leave()
	open, closed := NewHolder(1), NewHolder(1)
	closed.Shut()
	for name, c := range map[string]struct {
		h    *Holder
		ctx  context.Context
		want error
	}{
		"left":   {&open, left, context.Canceled},
		"closed": {&closed, t.Context(), driver.ErrClosed},
	} {
		var back []*Receipt
		d := &driver.Delivery{Receipt: c.h.NewReceipt(1, NewToken(), "")}
		got, err := c.h.Hand(c.ctx, []*driver.Delivery{d}, func(all []*Receipt) { back = all })
		if len(got) > 0 || !errors.Is(err, c.want) || len(back) != 1 || len(c.h.unsettled) > 0 {
			t.Errorf("%s: %d handed out, %v, %d given back, %d remembered; want %v and one given back", name, len(got), err, len(back), len(c.h.unsettled), c.want)
		}
	}
}

// TestShut returns what is not settled, once.
func TestShut(t *testing.T) {
	h := NewHolder(1)
	deliver(t, &h, 1)
	s := &driver.Settlement{Delivery: deliver(t, &h, 2), Kind: driver.Complete}
	r, err := h.Begin(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.End(true, nil); err != nil {
		t.Fatal(err)
	}
	all, first := h.Shut()
	if !first || len(all) != 1 || all[0].Seq != 1 {
		t.Errorf("Shut: %d receipts, %t; want message 1", len(all), first)
	}
	if all, first := h.Shut(); first || all != nil {
		t.Errorf("Shut again: %d receipts, %t; want nothing", len(all), first)
	}
	if err := h.Usable(t.Context()); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Usable: %v, want ErrClosed", err)
	}
}

// TestPrune: of deliveries that are never settled, those whose lock is over are forgotten; those
// of a session, which have no lock of their own, are not.
func TestPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lock = time.Minute
		h := NewHolder(1)
		for seq := range int64(10) {
			deliver(t, &h, seq)
		}
		for seq := range int64(20 * prunedFrom) {
			d := deliver(t, &h, 100+seq)
			d.Receipt.(*Receipt).SetUntil(time.Now().Add(lock))
			if seq%prunedFrom == 0 {
				time.Sleep(lock)
			}
		}
		if n := len(h.unsettled); n > 3*prunedFrom {
			t.Errorf("%d unsettled, want %d at most", n, 3*prunedFrom)
		}
		for seq := range int64(10) {
			if h.unsettled[seq] == nil {
				t.Errorf("message %d, of a session, was forgotten", seq)
			}
		}
	})
}

// TestRenewBy renews a session once, for those of its deliveries that are not settled.
func TestRenewBy(t *testing.T) {
	h := NewHolder(1)
	until := time.Now()
	held, done := deliver(t, &h, 1), deliver(t, &h, 2)
	r, err := h.Begin(&driver.Settlement{Delivery: done, Kind: driver.Complete})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.End(true, nil); err != nil {
		t.Fatal(err)
	}
	calls := 0
	renew := func(context.Context) (time.Time, error) { calls++; return until, nil }
	results := h.RenewBy(t.Context(), []*driver.Delivery{held, done}, renew)
	if results[0].Err != nil || !results[0].LockedUntil.Equal(until) || !held.LockedUntil.Equal(until) {
		t.Errorf("held: %v, %v; want until %v", results[0].LockedUntil, results[0].Err, until)
	}
	if !errors.Is(results[1].Err, driver.ErrSettled) {
		t.Errorf("settled: %v, want ErrSettled", results[1].Err)
	}
	if err := h.RenewBy(t.Context(), []*driver.Delivery{done}, renew)[0].Err; !errors.Is(err, driver.ErrSettled) || calls != 1 {
		t.Errorf("settled alone: %v after %d renewals, want ErrSettled after 1", err, calls)
	}
	lost := func(context.Context) (time.Time, error) { return time.Time{}, &driver.Error{Kind: driver.SessionLost} }
	if err := h.RenewBy(t.Context(), []*driver.Delivery{held}, lost)[0].Err; !errors.Is(err, driver.ErrLockLost) {
		t.Errorf("in a lost session: %v, want ErrLockLost", err)
	}
}
