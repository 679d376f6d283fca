package demo

import (
	"context"
	"slices"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/webhook"
	"github.com/queue-runtime/queue/keys"
)

// rotation changes the key of a queue while messages flow, in the order that an
// operator would follow: the receiver is given the new key, the sender makes it
// current, and the old one is retired when nothing needs it any more.
func (r *run) rotation(ctx context.Context) (err error) {
	n := max(MinMessages/3, r.Messages/5)
	r.Progress.Begin("rotating a key under traffic", 2*n)
	name, err := r.queue(ctx, webhook.TaskTactician+"-rotation")
	if err != nil {
		return err
	}
	before, after := newSecret(webhook.TaskTactician+"-1"), newSecret(webhook.TaskTactician+"-2")
	own, err := before.senderKey()
	if err != nil {
		return err
	}
	senderKeys, err := keys.NewRing(own)
	if err != nil {
		return err
	}
	botKeys, err := ring(before)
	if err != nil {
		return err
	}
	router, err := r.connect(ctx, &queue.Options{Crypto: queue.CryptoConfig{Enabled: true}, Keys: senderKeys})
	if err != nil {
		return err
	}
	defer router.shut(ctx, &err)
	bot, err := r.connect(ctx, &queue.Options{
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, MaxMessageAge: maxAge},
		Keys:   botKeys,
		OnRejected: func(_ context.Context, e *queue.RejectedError) {
			r.fault("rotation: a message was rejected: %s", e.Reason)
		},
	})
	if err != nil {
		return err
	}
	defer bot.shut(ctx, &err)
	sender, err := router.Sender(ctx, name, nil)
	if err != nil {
		return err
	}
	receiver, err := bot.Receiver(ctx, name, &queue.ReceiverOptions{Wait: wait})
	if err != nil {
		return err
	}
	messages := make([]*queue.Message, n)
	for i := range messages {
		messages[i] = r.message(r.event())
	}
	r.report.Rotation.Messages = n
	got := make(map[keys.ID]int)
	err = together(ctx, func(ctx context.Context) error {
		// Small batches: the change falls between two of a stream.
		sent := 0
		for chunk := range slices.Chunk(messages, 10) {
			if sent >= n/2 && len(botKeys.IDs()) == 1 {
				if err := rotate(botKeys, senderKeys, after); err != nil {
					return err
				}
			}
			if err := r.send(ctx, sender, name, chunk); err != nil {
				return err
			}
			sent += len(chunk)
		}
		return nil
	}, func(ctx context.Context) error {
		return r.receive(ctx, receiver, func(d *queue.Delivery) {
			r.Progress.Step(1)
			switch a := r.ledger.Arrived(name, contentOf(&d.Message)); {
			case !a.Known:
				r.fault("rotation: a message arrived that was never sent")
			case a.Times == 1:
				got[d.KeyID]++
			}
		}, func() bool { return got[before.id]+got[after.id] >= n })
	})
	if err != nil {
		return err
	}
	r.report.Rotation.OldKey, r.report.Rotation.NewKey = got[before.id], got[after.id]
	r.report.Rotation.Lost = r.ledger.Lost(name)
	if got[before.id] == 0 || got[after.id] == 0 {
		r.fault("rotation: all messages came under one key")
	}
	return botKeys.Remove(before.id)
}

// rotate makes a key known to the receiver, and then current at the sender.
func rotate(receiver, sender *keys.Ring, s secret) error {
	for _, to := range []struct {
		ring *keys.Ring
		key  func() (*keys.Key, error)
	}{{receiver, s.key}, {sender, s.senderKey}} {
		k, err := to.key()
		if err != nil {
			return err
		}
		if err := to.ring.Add(k); err != nil {
			return err
		}
	}
	return sender.SetCurrent(s.id)
}
