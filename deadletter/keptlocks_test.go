package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// locks is a dead-letter queue that renews, and keeps what it was asked.
type locks struct {
	driver.Queue
	lock    time.Duration
	brief   time.Duration // how long a lock lasts once it was renewed, unless that is lock
	called  func()        // by Renew; may be nil
	renewed [][]string    // BrokerIDs, by call
	settled []driver.Settlement
	ctx     context.Context // of Settle
	refuse  string          // a BrokerID
	missing int             // so many results less than asked
}

func (q *locks) Capabilities() driver.Capabilities { return driver.Capabilities{Lock: q.lock} }

func (q *locks) Renew(_ context.Context, d []*driver.Delivery) []driver.RenewResult {
	if q.called != nil {
		q.called()
	}
	var ids []string
	results := make([]driver.RenewResult, len(d))
	for i, m := range d {
		ids = append(ids, m.BrokerID)
		if m.BrokerID == q.refuse {
			results[i].Err = errors.New("refused")
			continue
		}
		results[i].LockedUntil = time.Now().Add(cmp.Or(q.brief, q.lock))
	}
	q.renewed = append(q.renewed, ids)
	return results[:len(results)-q.missing]
}

func (q *locks) Settle(ctx context.Context, s []driver.Settlement) []error {
	q.settled, q.ctx = append(q.settled, s...), ctx
	return nil
}

// letter is a dead letter whose lock ends after d; 0 means that it has no end.
func letter(id string, d time.Duration) *driver.Delivery {
	m := &driver.Delivery{BrokerID: id, Message: driver.Message{Body: []byte("body"), Attributes: map[string]string{"a": "1"}}}
	if d > 0 {
		m.LockedUntil = time.Now().Add(d)
	}
	return m
}

// TestKeptLocksAreRenewed: a lock is renewed when half of it is over, and again when half of
// the new one is; what cannot be renewed is not asked for again.
func TestKeptLocksAreRenewed(t *testing.T) {
	const lock = 30 * time.Second
	for name, c := range map[string]struct {
		q     locks
		again int // letters renewed the second time
	}{
		"all":              {locks{}, 3},
		"one is refused":   {locks{refuse: "b"}, 2},
		"too few results":  {locks{missing: 1}, 2},
		"nothing answered": {locks{missing: 3}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			q := &c.q
			q.lock = lock
			k := newKeptLocks(q)
			k.add(letter("a", lock), letter("b", lock), letter("c", lock))
			time.Sleep(lock/2 - 1)
			if k.renew(t.Context()); len(q.renewed) != 0 {
				t.Errorf("%s: renewed %q before half of the lock was over", name, q.renewed)
			}
			time.Sleep(time.Nanosecond)
			left, cancel := context.WithCancel(t.Context())
			cancel()
			other := k
			if other.renew(left); len(q.renewed) != 0 {
				t.Errorf("%s: renewed %q for a caller that left", name, q.renewed)
			}
			k.renew(t.Context())
			if k.renew(t.Context()); len(q.renewed) != 1 || len(q.renewed[0]) != 3 {
				t.Errorf("%s: renewed %q, want all three once", name, q.renewed)
			}
			time.Sleep(lock / 2)
			k.renew(t.Context())
			again := 0
			if len(q.renewed) > 1 {
				again = len(q.renewed[1])
			}
			if again != c.again {
				t.Errorf("%s: renewed %q the second time, want %d", name, q.renewed[1:], c.again)
			}
		})
	}
}

// TestBriefLocks: a broker whose renewed locks last for less than half of what it says, as near
// the end of the longest time that it holds a message, does not keep the read from going on.
func TestBriefLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		calls := 0
		q := &locks{lock: time.Minute, brief: time.Second, called: func() {
			if calls++; calls == 100 {
				cancel()
			}
		}}
		k := newKeptLocks(q)
		k.add(letter("a", time.Second), letter("b", time.Second))
		for n := 1; n <= 2; n++ {
			if k.renew(ctx); calls != n || len(q.renewed[n-1]) != 2 {
				t.Fatalf("%d calls for %q, want %d, of both letters", calls, q.renewed[0], n)
			}
		}
	})
}

// TestKeptLocksInBatches: one call renews renewBatch locks at most, and all are renewed.
func TestKeptLocksInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &locks{lock: time.Minute}
		k := newKeptLocks(q)
		for i := range 2*renewBatch + 1 {
			k.add(letter(fmt.Sprint(i), time.Second))
		}
		k.add(letter("later", time.Hour))
		k.renew(t.Context())
		if len(q.renewed) != 3 || len(q.renewed[0]) != renewBatch || len(q.renewed[1]) != renewBatch || len(q.renewed[2]) != 1 {
			t.Errorf("%d calls, want of %d, %d and 1", len(q.renewed), renewBatch, renewBatch)
		}
	})
}

// TestLocksWithoutAnEnd are not renewed.
func TestLocksWithoutAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &locks{}
		k := newKeptLocks(q)
		k.add(letter("a", time.Nanosecond))
		time.Sleep(time.Hour)
		k.renew(t.Context())
		q.lock = time.Minute
		k = newKeptLocks(q)
		k.add(letter("a", 0))
		k.renew(t.Context())
		if len(q.renewed) != 0 {
			t.Errorf("renewed %q", q.renewed)
		}
	})
}

// TestNewestReceiptCounts: of a letter that came again, the newest lock is renewed and given
// back, and the body is not held.
func TestNewestReceiptCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &locks{lock: time.Minute}
		k := newKeptLocks(q)
		k.add(letter("a", time.Second))
		newest := letter("a", time.Hour)
		k.add(newest, letter("b", time.Second))
		if newest.Body == nil || newest.Attributes == nil {
			t.Error("the letter itself lost its body")
		}
		k.renew(t.Context())
		if len(q.renewed) != 0 { // b stands behind the newest, which is not due
			t.Errorf("renewed %q", q.renewed)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin := time.Now()
		k.release(ctx)
		if len(q.settled) != 2 {
			t.Fatalf("%d letters are given back, want 2", len(q.settled))
		}
		for _, s := range q.settled {
			if s.Kind != driver.Release || s.Delivery.Body != nil || s.Delivery.Attributes != nil {
				t.Errorf("settlement %+v, want a release that keeps no content", s)
			}
			if s.Delivery.BrokerID == "a" && !s.Delivery.LockedUntil.Equal(newest.LockedUntil) {
				t.Errorf("an older receipt is given back: %+v", s.Delivery)
			}
		}
		if end, ok := q.ctx.Deadline(); !ok || end.Sub(begin) != settleTimeout+2*settlePerLetter {
			t.Errorf("the call that gives back ends after %s", end.Sub(begin))
		}
		if q.ctx.Err() == nil {
			t.Error("the context of the call goes on after it")
		}
		q.settled, q.ctx = nil, nil
		if k.release(t.Context()); q.ctx != nil {
			t.Errorf("given back again: %+v", q.settled)
		}
	})
}
