package demo

import (
	"context"
	"sync/atomic"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// policies lets one encrypted and one plain sender share a queue, as during a
// migration, and shows what receivers with each policy make of that.
func (r *run) policies(ctx context.Context) error {
	n := max(MinMessages/6, min(100, r.Messages/15)) // of each kind, for each policy
	all := []queue.PlaintextPolicy{queue.Allow, queue.AllowWithAlert, queue.Reject}
	r.Progress.Begin("a mixed fleet, three policies", 4*n*len(all))
	begin := time.Now()
	for _, p := range all {
		row, err := r.policy(ctx, p, n)
		if err != nil {
			return err
		}
		r.report.Policies = append(r.report.Policies, row)
		if rejects := p == queue.Reject; rejects != (row.PlaintextDelivered == 0) || rejects != (row.PlaintextRejected > 0) {
			r.fault("policy %s: %d plain messages delivered, %d rejected", row.Policy, row.PlaintextDelivered, row.PlaintextRejected)
		}
	}
	r.pace = time.Since(begin) / time.Duration(2*n*len(all))
	return nil
}

// policy runs one receiver beside two senders.
func (r *run) policy(ctx context.Context, p queue.PlaintextPolicy, n int) (row Policy, err error) {
	row.Policy = p.String()
	name, err := r.queue(ctx, "mixed-fleet-"+p.String())
	if err != nil {
		return row, err
	}
	key := newSecret("mixed-fleet-1")
	senderKeys, err := ring(key)
	if err != nil {
		return row, err
	}
	receiverKeys, err := ring(key)
	if err != nil {
		return row, err
	}
	migrated, err := r.connect(ctx, &queue.Options{Crypto: queue.CryptoConfig{Enabled: true}, Keys: senderKeys})
	if err != nil {
		return row, err
	}
	defer migrated.shut(ctx, &err)
	legacy, err := r.connect(ctx, &queue.Options{})
	if err != nil {
		return row, err
	}
	defer legacy.shut(ctx, &err)
	var rejected atomic.Int64 // OnRejected is called from all workers
	bot, err := r.connect(ctx, &queue.Options{
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: p, MaxMessageAge: maxAge},
		Keys:   receiverKeys,
		OnRejected: func(_ context.Context, e *queue.RejectedError) {
			rejected.Add(1)
			if e.Disposition != driver.DeadLettered || e.SettleErr != nil {
				r.fault("policy %s: a plain message was not put among the dead letters", p)
			}
		},
	})
	if err != nil {
		return row, err
	}
	defer bot.shut(ctx, &err)

	for _, c := range []*endpoint{migrated, legacy} {
		s, err := c.Sender(ctx, name, nil)
		if err != nil {
			return row, err
		}
		messages := make([]*queue.Message, n)
		for i := range messages {
			messages[i] = r.message(r.event())
		}
		if err := r.send(ctx, s, name, messages); err != nil {
			return row, err
		}
	}
	rx, err := bot.Receiver(ctx, name, &queue.ReceiverOptions{Wait: wait})
	if err != nil {
		return row, err
	}
	err = r.receive(ctx, rx, func(d *queue.Delivery) {
		r.Progress.Step(1)
		switch a := r.ledger.Arrived(name, contentOf(&d.Message)); {
		case !a.Known:
			r.fault("policy %s: a message arrived that was never sent", p)
		case a.Times > 1:
		case d.Encrypted:
			row.Encrypted++
		default:
			row.PlaintextDelivered++
		}
	}, func() bool { return row.Encrypted+row.PlaintextDelivered+int(rejected.Load()) >= 2*n })
	if err != nil {
		return row, err
	}
	row.PlaintextRejected = int(rejected.Load())
	return row, r.park(ctx, name)
}

// park finds the dead letters of a queue that are still what was sent: nothing
// that was rejected is deleted.
func (r *run) park(ctx context.Context, name string) error {
	dead, _, err := r.Broker.Attacker.DeadLetters(ctx, name)
	if err != nil {
		return err
	}
	for i := range dead {
		m := &dead[i]
		r.ledger.Parked(name, &Content{
			ID: m.ID, Session: m.SessionID, CorrelationID: m.CorrelationID, ContentType: m.ContentType,
			Attributes: m.Attributes, Body: m.Body,
		})
		r.Progress.Step(1)
	}
	return nil
}
