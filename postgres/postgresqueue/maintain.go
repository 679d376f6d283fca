package postgresqueue

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// maintainEvery is how often a broker looks after what no call does.
	maintainEvery = 30 * time.Second

	// maintainChanges is after how many messages that were claimed or settled here it
	// looks too: each left a dead row or two.
	maintainChanges = 5000

	// maintainAtMost is the least time between two: one that waits for a lock holds up
	// other calls.
	maintainAtMost = time.Second
)

// churn counts changes of rows since maintain last began.
type churn struct {
	n    atomic.Int64
	full chan struct{} // has room for one
}

// changed notes that n rows of messages were changed.
func (b *Broker) changed(n int) {
	if b.churn.n.Add(int64(n)) < maintainChanges {
		return
	}
	select {
	case b.churn.full <- struct{}{}:
	default:
	}
}

// maintain is the broker's goroutine that keeps its queues in order. Errors are left to the calls that meet
// them too.
func (b *Broker) maintain() {
	for {
		t := time.NewTimer(maintainEvery/2 + rand.N(maintainEvery)) //nolint:gosec // G404: jitter, not a secret
		select {
		case <-b.life.Done():
		case <-t.C:
		case <-b.churn.full:
		}
		t.Stop()
		if b.life.Err() != nil {
			return
		}
		b.churn.n.Store(0)
		for _, q := range b.queues.All() {
			_ = q.maintain(b.life)
		}
		pause := time.NewTimer(maintainAtMost)
		select {
		case <-b.life.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// maintain calls the schema's function of that name.
func (s *source) maintain(ctx context.Context) error {
	return s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		var moved bool // whether it moved rows
		return c.QueryRow(ctx, s.broker.call("maintain", "$1::bigint"), max(s.queue, -s.queue)).Scan(&moved)
	})
}

// Maintain does for every open queue what the broker does by itself from time to time: it
// ends what is over, and keeps the tables short where VACUUM cannot. It is for programs
// that use a broker for a moment only, and for operators.
func (b *Broker) Maintain(ctx context.Context) error {
	for _, q := range b.queues.All() {
		if err := q.maintain(ctx); err != nil {
			return err
		}
	}
	return nil
}
