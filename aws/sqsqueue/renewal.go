package sqsqueue

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
)

// leastAttempt is what an attempt to renew gets however short the lock is.
const leastAttempt = 500 * time.Millisecond

// extend renews locks by a full lock time, within SQS's 12 hours, and returns
// one error or nil each.
func (q *queue) extend(ctx context.Context, rs []*receipt) []error {
	begin := time.Now()
	errs := make([]error, len(rs))
	var changes []change
	var index []int
	q.mu.Lock()
	for i, r := range rs {
		to := min(q.lock, r.remaining(begin))
		switch {
		case r.state != held && r.state != waiting:
			errs[i] = r.usable(begin) // since the caller looked
			continue
		case to < time.Second:
			errs[i] = driver.Errorf(driver.LockLost, "held for 12 hours, the longest that SQS allows")
			continue
		}
		r.renewals++
		changes, index = append(changes, change{r, to}), append(index, i)
	}
	q.mu.Unlock()
	// Half of the lock is left as a rule: that has to be enough for another attempt.
	result := q.setVisibility(httpclient.WithAttempt(ctx, min(max(q.lock/6, leastAttempt), httpclient.AttemptTime)), changes)
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	close(q.renewed)
	q.renewed = make(chan struct{})
	for n, c := range changes {
		c.r.renewals--
		errs[index[n]] = result[n]
		if result[n] == nil {
			c.r.lease = begin.Add(c.to)
		}
	}
	if q.closed {
		return errs
	}
	for i, r := range rs {
		// What was settled meanwhile is no loss.
		if isLost(errs[i]) && (r.state == held || r.state == waiting) {
			q.lose(r.g, now)
		}
	}
	return errs
}

// Renew implements driver.Source. On a FIFO queue what waits here behind a
// message is renewed with it, and a session as a whole.
func (q *queue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	results := make([]driver.RenewResult, len(d))
	if err := q.check(ctx); err != nil {
		for i := range results {
			results[i].Err = err
		}
		return results
	}
	now := time.Now()
	rs := make([]*receipt, len(d)) // nil for a delivery that cannot be renewed
	var set []*receipt
	seen := make(map[*receipt]int)
	add := func(r *receipt) {
		if _, ok := seen[r]; !ok {
			seen[r] = len(set)
			set = append(set, r)
		}
	}
	q.mu.Lock()
	for i, d := range d {
		r, err := q.receiptOf(d)
		if err == nil {
			err = r.usable(now)
		}
		if err != nil {
			results[i].Err = err
			continue
		}
		rs[i] = r
		add(r)
		for _, r := range r.g.all() {
			add(r)
		}
	}
	q.mu.Unlock()
	extended := q.extend(ctx, set)
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, r := range rs {
		if r == nil {
			continue
		}
		x := &results[i]
		if x.Err = extended[seen[r]]; x.Err != nil {
			continue
		}
		if r.state == lost {
			x.Err = &driver.Error{Kind: driver.LockLost}
			continue
		}
		x.LockedUntil = r.lease
		if s := r.g.owner; s != nil {
			s.until = s.g.end(s.until)
			x.LockedUntil = s.until
		}
		d[i].LockedUntil = x.LockedUntil
	}
	return results
}

// all returns what is locked of a group: with an owner all of it, without one
// what waits behind the message that is out.
func (g *group) all() []*receipt {
	var out []*receipt
	if g.owner != nil {
		for _, r := range g.out {
			if r.state == held {
				out = append(out, r)
			}
		}
	}
	return append(out, g.waiting...)
}

// end is when the first lock of a group ends, otherwise if it has none.
func (g *group) end(otherwise time.Time) time.Time {
	var end time.Time
	for _, r := range g.all() {
		if end.IsZero() || r.lease.Before(end) {
			end = r.lease
		}
	}
	if end.IsZero() {
		return otherwise
	}
	return end
}

// awaitRenewals waits until no renewal of what changes is under way, because the
// later of two requests may arrive first: a renewal would take the place of a delay
// that was asked for after it. If ctx ends first the change fails with it.
func (q *queue) awaitRenewals(ctx context.Context, changes []change) {
	for {
		q.mu.Lock()
		busy, renewed := false, q.renewed
		for _, c := range changes {
			busy = busy || c.r.renewals > 0
		}
		q.mu.Unlock()
		if !busy {
			return
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return
		}
	}
}
