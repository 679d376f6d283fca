package sqlitequeue

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const (
	completeLocked = `DELETE FROM messages WHERE ` + stillLocked
	renewLocked    = `UPDATE messages SET due = ?5 WHERE queue = ?1 AND seq = ?2 AND state = 3 AND token = ?3 AND due > ?4`
)

// settle implements driver.Source: all of them in one transaction.
func (s *source) settle(ctx context.Context, list []driver.Settlement) []error {
	errs := make([]error, len(list))
	if err := s.holder.Usable(ctx); err != nil {
		return sqldriver.Fill(errs, err)
	}
	receipts := make([]*sqldriver.Receipt, len(list))
	work := false
	for i := range list {
		receipts[i], errs[i] = s.holder.Begin(&list[i])
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
		if errs[i] != nil {
			continue
		}
		errs[i] = r.End(!lost[i], err)
		news = news || errs[i] == nil && (r.Session != "" || list[i].Kind != driver.Complete)
	}
	if news {
		s.broker.arrivals.Notify(s.queue, -s.queue)
	}
	return errs
}

// settleOne reports false when the lock is over.
func (s *source) settleOne(c *sqlitefile.Conn, r *sqldriver.Receipt, t *driver.Settlement, now int64) (bool, error) {
	if t.Kind == driver.Complete {
		n, err := c.Exec(completeLocked, s.queue, r.Seq, r.Token[:], now)
		return n > 0, err
	}
	m, found, err := findLocked(c, s, r, now)
	if err != nil || !found {
		return false, err
	}
	if t.Kind == driver.MoveToDeadLetter {
		return true, s.deadLetter(c, r.Seq, t.Reason, t.Description, now)
	}
	if t.Kind == driver.Release {
		if err := s.uncount(c, &m); err != nil {
			return false, err
		}
	}
	return true, s.release(c, m, t.Delay, now)
}

// heldLock is the lock of one delivery that is renewed.
type heldLock struct {
	receipt *sqldriver.Receipt
	err     error // why it cannot be renewed
	lost    bool
}

// renew implements driver.Source for deliveries with locks of their own.
func (s *source) renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	if err := s.holder.Usable(ctx); err != nil {
		return sqldriver.NotRenewed(len(list), err)
	}
	locks := make([]heldLock, len(list))
	for i, d := range list {
		locks[i].receipt, locks[i].err = s.holder.Renewable(d)
	}
	var until time.Time
	err := s.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) error {
		now := time.Now()
		until = now.Add(s.settings.Lock)
		for i := range locks {
			l := &locks[i]
			if l.err != nil {
				continue
			}
			n, err := c.Exec(renewLocked, s.queue, l.receipt.Seq, l.receipt.Token[:], now.UnixNano(), until.UnixNano())
			if err != nil {
				return err
			}
			l.lost = n == 0
		}
		return nil
	})
	results := make([]driver.RenewResult, len(list))
	for i, l := range locks {
		x := &results[i]
		switch {
		case l.err != nil:
			x.Err = l.err
		case err != nil:
			x.Err = err
		case l.lost:
			x.Err = &driver.Error{Kind: driver.LockLost}
		default:
			l.receipt.SetUntil(until)
			list[i].LockedUntil, x.LockedUntil = until, until
		}
	}
	return results
}
