package main

import (
	"context"
	"crypto/cipher"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/mempubsub"

	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

const (
	memPlain        = "queue, memqueue"
	memPlainBatch   = "queue, memqueue, batches of 100"
	memWatermill    = "Watermill gochannel"
	memGoCloud      = "gocloud mempubsub"
	memSealed       = "queue, memqueue, sealed"
	memSealedBatch  = "queue, memqueue, sealed, batches of 100"
	memBare         = "seal + open alone, raw AES-256-GCM"
	memWatermillGCM = "Watermill gochannel, raw AES-256-GCM"
)

// memoryTurn is how many messages a turn moves, a multiple of the batch.
const (
	memoryTurn  = 400
	memoryBatch = 100
)

// memoryWays move messages from one goroutine to another: sent, received and
// acknowledged. The returned function ends what they use.
func memoryWays(ctx context.Context, c *corpus) (ways []measure.Way, end func() error, err error) {
	var ends []func() error
	end = func() error {
		errs := make([]error, len(ends))
		for i, f := range ends {
			errs[i] = f()
		}
		return errors.Join(errs...)
	}
	add := func(name string, send, handle func(ctx context.Context, n int) error) {
		ways = append(ways, measure.Way{Name: name, Each: memoryTurn, Turn: func(ctx context.Context, n int) (measure.Spent, error) {
			return measure.Timed(func() error {
				return sideBySide(func() error { return send(ctx, n) }, func() error { return handle(ctx, n) })
			})
		}})
	}
	for _, p := range []struct {
		one, batch string
		protection protection
	}{{memPlain, memPlainBatch, protection{}}, {memSealed, memSealedBatch, protection{sealed: true}}} {
		w, err := openOurs(ctx, c, memqueue.New(nil).Connect(), p.protection)
		if err != nil {
			return nil, nil, errors.Join(err, end())
		}
		ends = append(ends, func() error { return w.close(ctx) })
		add(p.one,
			func(ctx context.Context, n int) error { return together(1, n, func() error { return w.send(ctx) }) },
			func(ctx context.Context, n int) error { return together(1, n, func() error { return w.handle(ctx) }) })
		add(p.batch,
			func(ctx context.Context, n int) error {
				return together(1, n/memoryBatch, func() error { return w.sendBatch(ctx, memoryBatch) })
			},
			func(ctx context.Context, n int) error {
				for got := 0; got < n; {
					some, err := w.handleBatch(ctx, memoryBatch)
					if err != nil {
						return err
					}
					got += some
				}
				return nil
			})
	}

	gcm, err := raw()
	if err != nil {
		return nil, nil, errors.Join(err, end())
	}
	ways = append(ways, bareWay(c, gcm))
	for _, p := range []struct {
		name string
		aead cipher.AEAD
	}{{memWatermill, nil}, {memWatermillGCM, gcm}} {
		w, err := openWatermill(ctx, c, p.aead)
		if err != nil {
			return nil, nil, errors.Join(err, end())
		}
		ends = append(ends, w.pubsub.Close)
		add(p.name, w.send, w.handle)
	}

	topic := mempubsub.NewTopic()
	subscription := mempubsub.NewSubscription(topic, time.Minute)
	ends = append(ends, func() error { return errors.Join(topic.Shutdown(ctx), subscription.Shutdown(ctx)) })
	add(memGoCloud,
		func(ctx context.Context, n int) error {
			for i := range n {
				m := &pubsub.Message{Body: c.body(i), Metadata: map[string]string{"event": "pull_request", "action": "opened"}}
				if err := topic.Send(ctx, m); err != nil {
					return err
				}
			}
			return nil
		},
		func(ctx context.Context, n int) error {
			for range n {
				m, err := subscription.Receive(ctx)
				if err != nil {
					return err
				}
				m.Ack()
			}
			return nil
		})
	return ways, end, nil
}

// bareWay seals and opens, and moves nothing.
func bareWay(c *corpus, gcm cipher.AEAD) measure.Way {
	i := 0
	return measure.Do(memBare, memoryTurn, func(context.Context) error {
		i++
		_, err := gcm.Open(nil, nil, rawSeal(gcm, nil, c.body(i)), nil)
		return err
	})
}

// watermill is a topic with one subscriber, which acknowledges each message.
type watermill struct {
	corpus   *corpus
	gcm      cipher.AEAD // nil means plaintext
	pubsub   *gochannel.GoChannel
	messages <-chan *message.Message
}

const topicName = "webhooks"

func openWatermill(ctx context.Context, c *corpus, gcm cipher.AEAD) (*watermill, error) {
	w := &watermill{corpus: c, gcm: gcm, pubsub: gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: memoryBatch}, nil)}
	var err error
	w.messages, err = w.pubsub.Subscribe(ctx, topicName)
	return w, err
}

func (w *watermill) send(_ context.Context, n int) error {
	for i := range n {
		body := w.corpus.body(i)
		if w.gcm != nil {
			body = rawSeal(w.gcm, nil, body)
		}
		m := message.NewMessage("", body)
		m.Metadata.Set("event", "pull_request")
		m.Metadata.Set("action", "opened")
		if err := w.pubsub.Publish(topicName, m); err != nil {
			return err
		}
	}
	return nil
}

func (w *watermill) handle(ctx context.Context, n int) error {
	for range n {
		select {
		case m := <-w.messages:
			if w.gcm != nil {
				if _, err := w.gcm.Open(nil, nil, m.Payload, nil); err != nil {
					return err
				}
			}
			m.Ack()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func measureMemory(ctx context.Context, c *corpus, rounds int) ([]measure.Figures, error) {
	ways, end, err := memoryWays(ctx, c)
	if err != nil {
		return nil, err
	}
	figures, err := measure.Interleaved(ctx, measure.Options{Rounds: rounds, Collect: true}, ways)
	return figures, errors.Join(err, end())
}
