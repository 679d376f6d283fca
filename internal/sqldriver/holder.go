package sqldriver

import (
	"context"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Holder is what messages are received from, an open queue, its dead letters or a session, as
// far as it knows what it has delivered. It is safe for concurrent use.
type Holder struct {
	queue   int64 // negative: the dead letters of the queue of that number
	closing chan struct{}

	mu        sync.Mutex // guards what follows
	closed    bool
	unsettled map[int64]*Receipt // by seq
	prune     int                // when unsettled has grown to this, drop what is over
}

// prunedFrom is the least number of unsettled deliveries at which those whose lock is over are
// forgotten.
const prunedFrom = 1024

// NewHolder returns the Holder of a queue, or of its dead letters if the number is negative.
func NewHolder(queue int64) Holder {
	return Holder{queue: queue, closing: make(chan struct{}), unsettled: make(map[int64]*Receipt), prune: prunedFrom}
}

// Closing is closed by Shut.
func (h *Holder) Closing() <-chan struct{} { return h.closing }

// Usable fails if h can do nothing more.
func (h *Holder) Usable(ctx context.Context) error {
	select {
	case <-h.closing:
		return &driver.Error{Kind: driver.Closed}
	default:
		return ctx.Err()
	}
}

// Hand notes deliveries for the caller of Receive; each has as Receipt what NewReceipt returned. It
// has them given back if the caller has left, or h is closed.
func (h *Holder) Hand(ctx context.Context, list []*driver.Delivery, giveBack func([]*Receipt)) ([]*driver.Delivery, error) {
	receipts := make([]*Receipt, len(list))
	for i, d := range list {
		receipts[i] = d.Receipt.(*Receipt)
	}
	kept := h.keep(receipts)
	if kept && ctx.Err() == nil {
		return list, nil
	}
	for _, r := range receipts {
		h.forget(r)
	}
	giveBack(receipts)
	if !kept {
		return nil, &driver.Error{Kind: driver.Closed}
	}
	return nil, ctx.Err()
}

// NewReceipt returns the receipt of a delivery that is locked by a token of NewToken.
func (h *Holder) NewReceipt(seq int64, token []byte, session string) *Receipt {
	if h.queue < 0 {
		session = "" // sessions have no turns there
	}
	return &Receipt{holder: h, Seq: seq, Token: [tokenSize]byte(token), Session: session}
}

// keep reports false when h is closed.
func (h *Holder) keep(receipts []*Receipt) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	for _, r := range receipts {
		h.unsettled[r.Seq] = r
	}
	if len(h.unsettled) >= h.prune {
		now := int64(time.Since(begun))
		for seq, r := range h.unsettled {
			if until := r.until.Load(); until != 0 && until <= now {
				delete(h.unsettled, seq)
			}
		}
		h.prune = max(prunedFrom, 2*len(h.unsettled))
	}
	return true
}

// forget drops a delivery that is no longer locked.
func (h *Holder) forget(r *Receipt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unsettled[r.Seq] == r {
		delete(h.unsettled, r.Seq)
	}
}

// Shut marks h closed and returns what is unsettled; nil, false when it was closed.
func (h *Holder) Shut() ([]*Receipt, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false
	}
	h.closed = true
	close(h.closing)
	all := make([]*Receipt, 0, len(h.unsettled))
	for _, r := range h.unsettled {
		if r.state.Load() != settled {
			all = append(all, r)
		}
	}
	clear(h.unsettled)
	return all, true
}

// Begin checks a settlement and takes its receipt, until End.
func (h *Holder) Begin(t *driver.Settlement) (*Receipt, error) {
	r, err := h.receipt(t.Delivery)
	if err != nil {
		return nil, err
	}
	switch {
	case t.Kind < driver.Complete || t.Kind > driver.Release:
		return nil, driver.Errorf(driver.Invalid, "an unknown way to settle")
	case t.Kind == driver.MoveToDeadLetter && h.queue < 0:
		return nil, driver.Unsupported("dead-lettering a dead letter")
	case t.Delay < 0:
		return nil, driver.Errorf(driver.Invalid, "a negative delay")
	case !r.state.CompareAndSwap(open, settling):
		return nil, &driver.Error{Kind: driver.Settled}
	}
	return r, nil
}

// receipt returns the receipt of a delivery that was received here.
func (h *Holder) receipt(d *driver.Delivery) (*Receipt, error) {
	if d == nil {
		return nil, driver.Errorf(driver.Invalid, "nil delivery")
	}
	r, ok := d.Receipt.(*Receipt)
	if !ok || r.holder != h {
		return nil, driver.Errorf(driver.Invalid, "the delivery was not received here")
	}
	return r, nil
}

// Renewable returns the receipt of a delivery that is not settled.
func (h *Holder) Renewable(d *driver.Delivery) (*Receipt, error) {
	r, err := h.receipt(d)
	if err == nil && r.state.Load() == settled {
		err = &driver.Error{Kind: driver.Settled}
	}
	return r, err
}

// RenewBy renews deliveries of a session by renewing the session, once for all of them.
func (h *Holder) RenewBy(ctx context.Context, list []*driver.Delivery, renew func(context.Context) (time.Time, error)) []driver.RenewResult {
	results := make([]driver.RenewResult, len(list))
	over := h.Usable(ctx)
	live := 0
	for i, d := range list {
		x := &results[i]
		if x.Err = over; over == nil {
			_, x.Err = h.Renewable(d)
		}
		if x.Err == nil {
			live++
		}
	}
	if live == 0 {
		return results
	}
	until, err := renew(ctx)
	if driver.KindOf(err) == driver.SessionLost {
		err = &driver.Error{Kind: driver.LockLost}
	}
	for i, d := range list {
		x := &results[i]
		switch {
		case x.Err != nil:
		case err != nil:
			x.Err = err
		default:
			d.LockedUntil, x.LockedUntil = until, until
		}
	}
	return results
}

// NotRenewed returns the results of n deliveries of which none was renewed because of err.
func NotRenewed(n int, err error) []driver.RenewResult {
	results := make([]driver.RenewResult, n)
	for i := range results {
		results[i].Err = err
	}
	return results
}

// Fill sets every error.
func Fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}
