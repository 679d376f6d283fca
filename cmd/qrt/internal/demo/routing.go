package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/webhook"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// randomBytes returns n random bytes.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// botQueue is one queue, its key and its bot.
type botQueue struct {
	bot      string // and the queue's name, if the broker has no other
	name     string
	key      secret
	messages []*queue.Message

	// What follows is the bot's.
	received  int
	encrypted int
	overtaken int
	turns     map[string]int // the latest of each session
}

// routing sends webhooks to three queues, each under a sender key of its own, and receives
// them with three bots that hold one master key each.
func (r *run) routing(ctx context.Context) (err error) {
	r.Progress.Begin("routing webhooks", 2*r.Messages)
	queues := make(map[string]*botQueue)
	var order []*botQueue
	for _, bot := range webhook.Queues {
		name, err := r.queue(ctx, bot)
		if err != nil {
			return err
		}
		l := &botQueue{bot: bot, name: name, key: newSecret(bot + "-1"), turns: make(map[string]int)}
		queues[bot] = l
		order = append(order, l)
	}
	r.report.Router.Messages = r.Messages
	for range r.Messages {
		e := r.event()
		l := queues[webhook.Route(e)]
		m := r.message(e)
		l.messages = append(l.messages, m)
		r.report.Router.Bytes += int64(len(m.Body))
	}

	rings := make(map[string]keys.Provider)
	for _, l := range order {
		own, err := l.key.senderKey()
		if err != nil {
			return err
		}
		if rings[l.name], err = keys.NewRing(own); err != nil {
			return err
		}
	}
	router, err := r.connect(ctx, &queue.Options{
		Crypto:  queue.CryptoConfig{Enabled: true},
		KeysFor: func(name string) keys.Provider { return rings[name] },
	})
	if err != nil {
		return err
	}
	defer router.shut(ctx, &err)
	if _, err := router.Receiver(ctx, order[0].name, nil); !errors.Is(err, queue.ErrInvalidOptions) {
		r.fault("the router's key, which is a sender key, opens a receiver: %v", err)
	}

	// The attacker reads before the receivers start: on some brokers he has to take
	// messages out to see them, which changes their order.
	seen := make(chan struct{})
	work := []func(context.Context) error{func(ctx context.Context) error {
		return r.route(ctx, router, order, sync.OnceFunc(func() { close(seen) }))
	}}
	for _, l := range order {
		work = append(work, func(ctx context.Context) error {
			select {
			case <-seen:
			case <-ctx.Done():
				return ctx.Err()
			}
			return r.bot(ctx, l)
		})
	}
	if err := together(ctx, work...); err != nil {
		return err
	}
	for _, l := range order {
		r.report.Router.Queues = append(r.report.Router.Queues, Queue{
			Name: l.bot, KeyID: string(l.key.id), Sender: senderID, Sent: len(l.messages), Received: l.received, Encrypted: l.encrypted,
		})
		r.report.Overtaken += l.overtaken
	}
	r.report.Sessions = r.ledger.Sessions()
	if r.report.Overtaken > 0 {
		r.fault("%d messages overtook an earlier one of their session", r.report.Overtaken)
	}
	return nil
}

// route sends what each queue has, a batch at a time in turn, as webhooks come. It
// calls seen when the attacker has had a look at the first batch.
func (r *run) route(ctx context.Context, router *endpoint, queues []*botQueue, seen func()) error {
	senders := make([]*queue.Sender, len(queues))
	for i, l := range queues {
		s, err := router.Sender(ctx, l.name, nil)
		if err != nil {
			return err
		}
		senders[i] = s
	}
	for from := 0; ; from += batchSize {
		sent := false
		for i, l := range queues {
			if from >= len(l.messages) {
				continue
			}
			sent = true
			if err := r.send(ctx, senders[i], l.name, l.messages[from:min(from+batchSize, len(l.messages))]); err != nil {
				return err
			}
			if r.report.Seen == nil {
				if err := r.peek(ctx, l); err != nil {
					return err
				}
				seen()
			}
		}
		if !sent {
			return nil
		}
	}
}

// peek keeps what the broker has stored of one message.
func (r *run) peek(ctx context.Context, l *botQueue) error {
	stored, err := r.Broker.Attacker.Read(ctx, l.name)
	if err != nil {
		return err
	}
	for _, s := range stored {
		for _, m := range l.messages {
			if m.ID == s.ID {
				r.report.Seen = s.Body[:min(len(s.Body), 512)]
				r.report.Opened = m.Body[:min(len(m.Body), 512)]
				return nil
			}
		}
	}
	return fmt.Errorf("the attacker finds nothing in %s, where messages were just stored", l.name)
}

// bot receives all messages of a queue with its key.
func (r *run) bot(ctx context.Context, l *botQueue) (err error) {
	p, err := ring(l.key)
	if err != nil {
		return err
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		return err
	}
	o := queue.Strict(p, store)
	o.Crypto.MaxMessageAge = maxAge
	c, err := r.connect(ctx, o)
	if err != nil {
		return err
	}
	defer c.shut(ctx, &err)
	rx, err := c.Receiver(ctx, l.name, &queue.ReceiverOptions{Wait: wait, Senders: []string{senderID}})
	if err != nil {
		return err
	}
	return r.receive(ctx, rx, func(d *queue.Delivery) {
		r.Progress.Step(1)
		a := r.ledger.Arrived(l.name, contentOf(&d.Message))
		switch {
		case !a.Known:
			r.fault("%s received a message that was never sent", l.bot)
			return
		case a.Times > 1:
			return // at least once: a redelivery is nothing new
		}
		l.received++
		if d.Encrypted && d.KeyID == l.key.id && d.Sender == senderID {
			l.encrypted++
		}
		if a.Turn > 0 {
			if a.Turn <= l.turns[a.InLine] {
				l.overtaken++
			}
			l.turns[a.InLine] = a.Turn
		}
	}, func() bool { return l.received >= len(l.messages) })
}
