package demo

import (
	"context"
	"slices"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// throughput moves the same bodies plain and encrypted, in turns, so that both
// meet the same machine.
func (r *run) throughput(ctx context.Context) (err error) {
	const turns = 4
	n := max(MinMessages/3, min(250, r.Messages/12)) // a turn and a kind
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
	t.SealNS, t.OpenNS, err = r.crypto(ctx, senderKeys, key)
	return err
}

// move sends and receives messages through a queue of their own.
func (r *run) move(ctx context.Context, c *endpoint, messages []*queue.Message, encrypted bool) (time.Duration, error) {
	name, err := r.Broker.NewQueue(ctx, "throughput")
	if err != nil {
		return 0, err
	}
	config := &queue.CryptoConfig{Enabled: encrypted, MaxMessageAge: maxAge}
	s, err := c.Sender(ctx, name, &queue.SenderOptions{Crypto: config})
	if err != nil {
		return 0, err
	}
	rx, err := c.Receiver(ctx, name, &queue.ReceiverOptions{Crypto: config, Wait: 200 * time.Millisecond})
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

// crypto measures sealing and opening alone, over bodies as they were sent: the
// median, since a busy machine interrupts some.
func (r *run) crypto(ctx context.Context, p keys.Provider, key secret) (sealNS, openNS float64, err error) {
	provider, err := queue.NewAESGCM(p)
	if err != nil {
		return 0, 0, err
	}
	const enough = 300 * time.Millisecond
	var sealing, opening []time.Duration
	data := []byte("context of a message, as long as it usually is: ids, session, attributes")
	for begin := time.Now(); time.Since(begin) < enough || len(opening) < 100; {
		body := r.event().Body
		h := envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: "throughput"}
		t := time.Now()
		m, err := provider.Encrypt(ctx, key.id, h, body, data)
		sealing = append(sealing, time.Since(t))
		if err != nil {
			return 0, 0, err
		}
		t = time.Now()
		_, err = provider.Decrypt(ctx, m, data)
		opening = append(opening, time.Since(t))
		if err != nil {
			return 0, 0, err
		}
	}
	return float64(median(sealing)), float64(median(opening)), nil
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
