package demo

import (
	"context"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/cost"
	"github.com/queue-runtime/queue/drivertest"
)

// throughput moves the same bodies plain and encrypted, in turns, so that both
// meet the same machine.
func (r *run) throughput(ctx context.Context) (err error) {
	const turns = 4
	n := max(MinMessages/3, min(150, r.Messages/12)) // a turn and a kind
	r.Progress.Begin("plaintext beside encrypted", turns*2*2*n)
	key := newSecret("throughput-1")
	senderKeys, err := ring(key)
	if err != nil {
		return err
	}
	c, err := r.connect(ctx, &queue.Options{Keys: senderKeys})
	if err != nil {
		return err
	}
	defer c.shut(ctx, &err)
	var spent [2]time.Duration
	var bytes int64
	for range turns {
		for kind, encrypted := range []bool{false, true} {
			messages := make([]*queue.Message, n)
			for i := range messages {
				messages[i] = r.message(r.event())
				messages[i].SessionID = "" // waiting for the next of each would be all that is measured
				bytes += int64(len(messages[i].Body))
			}
			took, err := r.move(ctx, c, messages, encrypted)
			if err != nil {
				return err
			}
			spent[kind] += took
		}
	}
	t := &r.report.Throughput
	t.PlaintextPerSecond = float64(turns*n) / spent[0].Seconds()
	t.EncryptedPerSecond = float64(turns*n) / spent[1].Seconds()
	t.Bytes = int(bytes / int64(turns*2*n))
	bodies := make([][]byte, len(r.Events))
	for i := range r.Events {
		bodies[i] = r.Events[i].Body
	}
	seal, open, err := cost.Crypto(ctx, bodies, 300*time.Millisecond)
	t.SealNS, t.OpenNS = float64(seal), float64(open)
	return err
}

// move sends and receives messages through a queue of their own.
func (r *run) move(ctx context.Context, c *endpoint, messages []*queue.Message, encrypted bool) (time.Duration, error) {
	name, err := r.Broker.NewQueue(ctx, "throughput", drivertest.QueueSpec{})
	if err != nil {
		return 0, err
	}
	config := &queue.CryptoConfig{Enabled: encrypted, MaxMessageAge: maxAge}
	s, err := c.Sender(ctx, name, &queue.SenderOptions{Crypto: config})
	if err != nil {
		return 0, err
	}
	rx, err := c.Receiver(ctx, name, &queue.ReceiverOptions{Crypto: config, Wait: wait})
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := r.send(ctx, s, name, messages); err != nil {
		return 0, err
	}
	got := 0
	err = r.receive(ctx, rx, func(d *queue.Delivery) {
		r.Progress.Step(1)
		if a := r.ledger.Arrived(name, contentOf(&d.Message)); a.Known && a.Times == 1 && d.Encrypted == encrypted {
			got++
		}
	}, func() bool { return got >= len(messages) })
	return time.Since(begin), err
}
