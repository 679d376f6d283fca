package memqueue

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// source is what messages are received from: an open queue, an open dead-letter queue
// or a session. The store's mu guards its fields.
type source struct {
	store    *store
	subqueue *subqueue
	lock     time.Duration // of deliveries, or of the session
	locked   holding
	closed   bool
	closing  chan struct{} // closed with it

	session *session  // of a session's source
	until   time.Time // the end of the lock on it
	lost    bool      // it ran out
}

// receipt is the driver's handle of one delivery.
type receipt struct {
	source  *source
	message *message
	token   uint64
	settled bool // guarded by the store's mu
}

// check fails if src can do nothing more.
func (src *source) check() error {
	switch {
	case src.closed || src.store.closed:
		return &driver.Error{Kind: driver.Closed}
	case src.lost:
		return &driver.Error{Kind: driver.SessionLost}
	}
	return nil
}

func (src *source) receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if max < 1 {
		return nil, driver.Errorf(driver.Invalid, "max is %d, it must be at least 1", max)
	}
	s := src.store
	in := func() *waiters {
		if src.session != nil {
			return &src.session.receiving
		}
		return &src.subqueue.receiving
	}
	var out []*delivery
	_, err := s.await(ctx, in, wait, func(now time.Time) (bool, error) {
		if err := src.check(); err != nil {
			return false, err
		}
		if src.session != nil {
			out = s.takeSession(src, max, now)
		} else {
			out = s.take(src.subqueue, src, max, now)
		}
		return len(out) > 0, nil
	}, func() {
		if src.session != nil {
			s.refresh(src.session)
		}
	})
	return own(out), err
}

// claim returns the receipt of a delivery that src still holds.
func (src *source) claim(d *driver.Delivery) (*receipt, error) {
	if d == nil {
		return nil, driver.Errorf(driver.Invalid, "nil delivery")
	}
	r, ok := d.Receipt.(*receipt)
	switch {
	case !ok || r.source != src:
		return nil, driver.Errorf(driver.Invalid, "the delivery was not received here")
	case r.settled:
		return r, &driver.Error{Kind: driver.Settled}
	case r.message.token != r.token:
		return r, &driver.Error{Kind: driver.LockLost}
	}
	return r, nil
}

func (src *source) settle(ctx context.Context, list []driver.Settlement) []error {
	errs := make([]error, len(list))
	s := src.store
	now := s.lock()
	defer s.unlock()
	err := ctx.Err()
	if err == nil && (src.closed || s.closed) {
		err = &driver.Error{Kind: driver.Closed}
	}
	for i := range list {
		if errs[i] = err; err == nil {
			errs[i] = src.settleOne(&list[i], now)
		}
	}
	return errs
}

func (src *source) settleOne(t *driver.Settlement, now time.Time) error {
	s := src.store
	r, err := src.claim(t.Delivery)
	if err != nil {
		return err
	}
	switch t.Kind {
	case driver.Complete:
		s.remove(r.message)
	case driver.Abandon:
		if t.Delay < 0 {
			return driver.Errorf(driver.Invalid, "a negative delay")
		}
		s.release(r.message, now, t.Delay)
	case driver.Release:
		if t.Delay < 0 {
			return driver.Errorf(driver.Invalid, "a negative delay")
		}
		r.message.count-- // so that it is below the limit, too
		s.release(r.message, now, t.Delay)
	case driver.MoveToDeadLetter:
		if src.subqueue == &s.dead {
			return driver.Unsupported("dead-lettering a dead letter")
		}
		s.deadLetter(r.message, now, t.Reason, t.Description)
	default:
		return driver.Errorf(driver.Invalid, "an unknown way to settle")
	}
	r.settled = true
	return nil
}

func (src *source) renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	results := make([]driver.RenewResult, len(list))
	s := src.store
	now := s.lock()
	defer s.unlock()
	err := ctx.Err()
	if err == nil && (src.closed || s.closed) {
		err = &driver.Error{Kind: driver.Closed}
	}
	for i, d := range list {
		x := &results[i]
		if x.Err = err; err != nil {
			continue
		}
		r, err := src.claim(d)
		if err != nil {
			x.Err = err
			continue
		}
		if src.session != nil {
			s.extend(src, now)
			x.LockedUntil = src.until
		} else {
			x.LockedUntil = now.Add(src.lock)
			s.setAlarm(&r.message.alarm, x.LockedUntil)
		}
		d.LockedUntil = x.LockedUntil
	}
	return results
}

// close gives up all that src holds and ends its calls. It is called under the
// store's mu.
func (src *source) close(now time.Time) {
	if src.closed {
		return
	}
	src.closed = true
	close(src.closing)
	src.store.vacate(src, now) // which wakes the calls of a session
	if src.session == nil {
		src.store.wakeAll()
	}
}
