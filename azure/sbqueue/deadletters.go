package sbqueue

import (
	"context"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// deadLetters is the dead-letter sub-queue of a queue. It has no sessions.
type deadLetters struct {
	driver.Unimplemented
	q      *queue
	source *source

	closing sync.Once
}

func (d *deadLetters) Capabilities() driver.Capabilities {
	c := d.q.caps
	c.Sessions, c.SessionState, c.DeadLetter, c.Schedule, c.Dedup, c.AbandonDelay = driver.None, driver.None, driver.None, driver.None, driver.None, driver.None
	c.AcceptByID, c.SessionOnly = false, false
	c.Peek, c.ReceiveBatch = driver.Native, receiveBatch
	c.MaxDeliveries, c.Retention = 0, 0
	return c
}

func (d *deadLetters) Send(_ context.Context, all []*driver.Message) []driver.SendResult {
	results := make([]driver.SendResult, len(all))
	for i := range results {
		results[i].Err = driver.Unsupported("sending to a dead-letter queue")
	}
	return results
}

func (d *deadLetters) Size(m *driver.Message) int { return size(m) }

func (d *deadLetters) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return d.source.receive(ctx, max, wait)
}

func (d *deadLetters) Settle(ctx context.Context, all []driver.Settlement) []error {
	return d.source.settle(ctx, all)
}

func (d *deadLetters) Renew(ctx context.Context, all []*driver.Delivery) []driver.RenewResult {
	return d.source.renew(ctx, all)
}

func (d *deadLetters) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if d.source.over.Err() != nil {
		return nil, "", errClosed()
	}
	return d.source.peek(ctx, cursor, max)
}

func (d *deadLetters) Stats(ctx context.Context) (driver.Stats, error) {
	s, err := d.q.Stats(ctx)
	if err != nil {
		return s, err
	}
	return driver.Stats{Ready: s.DeadLetters, InFlight: -1, Scheduled: 0, DeadLetters: -1, Approximate: true}, nil
}

func (d *deadLetters) Close(ctx context.Context) (err error) {
	d.closing.Do(func() {
		err = classify(ctx, d.q.b.closeAll(ctx, []closer{closing(d.source.close)}, closeQueue))
		d.q.b.forget(d)
	})
	return err
}
