package sqlitequeue

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const (
	completeLocked = `DELETE FROM messages WHERE ` + stillLocked
	renewLocked    = `UPDATE messages SET due = ?5 WHERE queue = ?1 AND seq = ?2 AND state = 3 AND token = ?3 AND due > ?4`
)

// settle implements driver.Source: all of them in one transaction.
func (s *source) settle(ctx context.Context, list []driver.Settlement) []error {
	errs := make([]error, len(list))
	if err := s.usable(ctx); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	receipts := make([]*receipt, len(list))
	work := false
	for i := range list {
		receipts[i], errs[i] = s.begin(&list[i])
		work = work || errs[i] == nil
	}
	if !work {
		return errs
	}
	lost := make([]bool, len(list))
	err := s.broker.file.Write(ctx, func(c *sqlitefile.Conn) error {
		now := time.Now().UnixNano()
		for i, r := range receipts {
			if errs[i] != nil {
				continue
			}
			found, err := s.settleOne(c, r, &list[i], now)
			if err != nil {
				return err
			}
			lost[i] = !found
		}
		return nil
	})
	news := false // whether waiting calls must be woken
	for i, r := range receipts {
		switch {
		case errs[i] != nil:
		case err != nil:
			errs[i] = err
			r.state.Store(open)
		case lost[i]:
			errs[i] = &driver.Error{Kind: driver.LockLost}
			r.state.Store(open)
			s.forget(r)
		default:
			r.state.Store(settled)
			s.forget(r)
			news = news || r.session || list[i].Kind != driver.Complete
		}
	}
	if news {
		s.broker.notifier.ring(s.queue, -s.queue)
	}
	return errs
}

// begin checks a settlement and takes its receipt.
func (s *source) begin(t *driver.Settlement) (*receipt, error) {
	r, err := s.receipt(t.Delivery)
	if err != nil {
		return nil, err
	}
	switch {
	case t.Kind < driver.Complete || t.Kind > driver.Release:
		return nil, driver.Errorf(driver.Invalid, "an unknown way to settle")
	case t.Kind == driver.MoveToDeadLetter && s.queue < 0:
		return nil, driver.Unsupported("dead-lettering a dead letter")
	case t.Delay < 0:
		return nil, driver.Errorf(driver.Invalid, "a negative delay")
	case !r.state.CompareAndSwap(open, settling):
		return nil, &driver.Error{Kind: driver.Settled}
	}
	return r, nil
}

// receipt returns the receipt of a delivery that was received here.
func (s *source) receipt(d *driver.Delivery) (*receipt, error) {
	if d == nil {
		return nil, driver.Errorf(driver.Invalid, "nil delivery")
	}
	r, ok := d.Receipt.(*receipt)
	if !ok || r.source != s {
		return nil, driver.Errorf(driver.Invalid, "the delivery was not received here")
	}
	return r, nil
}

// renewable returns the receipt of a delivery that is not settled.
func (s *source) renewable(d *driver.Delivery) (*receipt, error) {
	r, err := s.receipt(d)
	if err == nil && r.state.Load() == settled {
		err = &driver.Error{Kind: driver.Settled}
	}
	return r, err
}

// settleOne reports false when the lock is over.
func (s *source) settleOne(c *sqlitefile.Conn, r *receipt, t *driver.Settlement, now int64) (bool, error) {
	if t.Kind == driver.Complete {
		n, err := c.Exec(completeLocked, s.queue, r.seq, r.token, now)
		return n > 0, err
	}
	m, found, err := findLocked(c, s, r, now)
	if err != nil || !found {
		return false, err
	}
	if t.Kind == driver.MoveToDeadLetter {
		return true, s.deadLetter(c, r.seq, t.Reason, t.Description, now)
	}
	if t.Kind == driver.Release {
		if err := s.uncount(c, &m); err != nil {
			return false, err
		}
	}
	return true, s.release(c, m, t.Delay, now)
}

// renew implements driver.Source for deliveries with locks of their own.
func (s *source) renew(ctx context.Context, list []*driver.Delivery) ([]time.Time, []error) {
	ends, errs := make([]time.Time, len(list)), make([]error, len(list))
	if err := s.usable(ctx); err != nil {
		for i := range errs {
			errs[i] = err
		}
		return ends, errs
	}
	receipts := make([]*receipt, len(list))
	for i, d := range list {
		receipts[i], errs[i] = s.renewable(d)
	}
	var until time.Time
	lost := make([]bool, len(list))
	err := s.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) error {
		now := time.Now()
		until = now.Add(s.cfg.Lock)
		for i, r := range receipts {
			if errs[i] != nil {
				continue
			}
			n, err := c.Exec(renewLocked, s.queue, r.seq, r.token, now.UnixNano(), until.UnixNano())
			if err != nil {
				return err
			}
			lost[i] = n == 0
		}
		return nil
	})
	for i, r := range receipts {
		switch {
		case errs[i] != nil:
		case err != nil:
			errs[i] = err
		case lost[i]:
			errs[i] = &driver.Error{Kind: driver.LockLost}
		default:
			r.until.Store(until.UnixNano())
			list[i].LockedUntil, ends[i] = until, until
		}
	}
	return ends, errs
}
