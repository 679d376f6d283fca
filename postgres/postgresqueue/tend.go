package postgresqueue

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

const (
	// tendEvery is how often a broker looks after what no call does.
	tendEvery = 30 * time.Second

	// tendChanges is after how many messages that were claimed or settled here it
	// looks too: each left a dead row or two.
	tendChanges = 5000

	// tendAtMost bounds how often: a tend that waits for a lock holds up other calls.
	tendAtMost = time.Second
)

// churn counts changes since the last tend.
type churn struct {
	n    atomic.Int64
	full chan struct{} // has room for one
}

// changed notes that n rows of messages were changed.
func (b *Broker) changed(n int) {
	if b.churn.n.Add(int64(n)) < tendChanges {
		return
	}
	select {
	case b.churn.full <- struct{}{}:
	default:
	}
}

// tend is the broker's goroutine for that. Errors are left to the calls that meet
// them too.
func (b *Broker) tend() {
	for {
		t := time.NewTimer(tendEvery/2 + rand.N(tendEvery)) //nolint:gosec // G404: jitter, not a secret
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
		for _, q := range b.openQueues() {
			_ = q.tend(b.life)
		}
		pause := time.NewTimer(tendAtMost)
		select {
		case <-b.life.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// tend calls the function tend.
func (s *source) tend(ctx context.Context) error {
	return s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		var moved bool // whether it moved rows
		return c.QueryRow(ctx, s.broker.call("tend", "$1::bigint"), max(s.queue, -s.queue)).Scan(&moved)
	})
}

// Tend does for every open queue what the broker does by itself from time to time: it
// ends what is over, and keeps the tables short where VACUUM cannot. It is for programs
// that use a broker for a moment only, and for operators.
func (b *Broker) Tend(ctx context.Context) error {
	for _, q := range b.openQueues() {
		if err := q.tend(ctx); err != nil {
			return err
		}
	}
	return nil
}
