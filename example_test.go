package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// exampleKey stands for a key from a file, a vault or the environment.
func exampleKey(id keys.ID, fill byte) *keys.Key {
	k, err := keys.New(id, bytes.Repeat([]byte{fill}, keys.Size), nil)
	if err != nil {
		panic(err)
	}
	return k
}

// ringOf returns a ring whose current key is the first.
func ringOf(all ...*keys.Key) *keys.Ring {
	ring, err := keys.NewRing(all...)
	if err != nil {
		panic(err)
	}
	return ring
}

var silent = slog.New(slog.DiscardHandler)

// Send and receive, sealed, with replays rejected.
func Example() {
	ctx := context.Background()
	broker := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Retention: 24 * time.Hour}})
	store, err := replay.NewMemory(nil)
	check(err)
	o := queue.Strict(ringOf(exampleKey("orders-2026", 1)), store)
	o.Logger = silent
	client, err := queue.New(broker, o)
	check(err)
	defer func() { check(client.Close(ctx)) }()

	sender, err := client.Sender(ctx, "orders", nil)
	check(err)
	_, err = sender.Send(ctx, &queue.Message{ID: "order-7", Body: []byte("two coffees")})
	check(err)

	receiver, err := client.Receiver(ctx, "orders", nil)
	check(err)
	d, err := receiver.ReceiveOne(ctx)
	check(err)
	fmt.Printf("%s: %s (encrypted %t, key %s)\n", d.ID, d.Body, d.Encrypted, d.KeyID)
	check(d.Complete(ctx))
	// Output: order-7: two coffees (encrypted true, key orders-2026)
}

// One router sends to three queues, each with its own key; each bot holds one key
// and can read its own queue alone.
func Example_keyPerQueue() {
	ctx := context.Background()
	broker := memqueue.New(nil)
	rings := map[string]*keys.Ring{
		"task-tactician": ringOf(exampleKey("tactician-1", 1)),
		"merge-warden":   ringOf(exampleKey("warden-1", 2)),
		"spec-sentinel":  ringOf(exampleKey("sentinel-1", 3)),
	}
	router, err := queue.New(broker, &queue.Options{
		KeysFor: func(q string) keys.Provider { return rings[q] },
		Crypto:  queue.CryptoConfig{Enabled: true},
		Logger:  silent,
	})
	check(err)
	for _, name := range []string{"task-tactician", "merge-warden", "spec-sentinel"} {
		s, err := router.Sender(ctx, name, nil)
		check(err)
		_, err = s.Send(ctx, &queue.Message{ID: "m", SessionID: "acme/api#7", Body: []byte("for " + name)})
		check(err)
	}
	for _, name := range []string{"task-tactician", "merge-warden", "spec-sentinel"} {
		bot, err := queue.New(broker, &queue.Options{
			Keys:   rings[name],
			Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject},
			Logger: silent,
		})
		check(err)
		r, err := bot.Receiver(ctx, name, nil)
		check(err)
		d, err := r.ReceiveOne(ctx)
		check(err)
		fmt.Printf("%s: %s\n", d.KeyID, d.Body)
	}
	// A bot that listens where it has no business cannot read.
	spy, err := queue.New(broker, &queue.Options{Keys: rings["merge-warden"], Logger: silent})
	check(err)
	s, err := router.Sender(ctx, "spec-sentinel", nil)
	check(err)
	_, err = s.Send(ctx, &queue.Message{ID: "m2", Body: []byte("secret")})
	check(err)
	r, err := spy.Receiver(ctx, "spec-sentinel", nil)
	check(err)
	_, err = r.ReceiveOne(ctx)
	fmt.Println(errors.Is(err, queue.ErrKeyNotFound))
	// Output:
	// tactician-1: for task-tactician
	// warden-1: for merge-warden
	// sentinel-1: for spec-sentinel
	// true
}

// Keys of its own for each queue, under the strict options: KeysFor takes the place of the
// one provider.
func ExampleStrict_keysPerQueue() {
	ctx := context.Background()
	rings := map[string]*keys.Ring{
		"orders":  ringOf(exampleKey("orders-1", 1)),
		"refunds": ringOf(exampleKey("refunds-1", 2)),
	}
	store, err := replay.NewMemory(nil) // in production one that is durable and shared
	check(err)
	options := queue.Strict(nil, store)
	options.KeysFor = func(name string) keys.Provider {
		if ring, ok := rings[name]; ok {
			return ring
		}
		return nil // no keys: the queue does not open
	}
	options.Logger = silent
	client, err := queue.New(memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Retention: time.Hour}}), options)
	check(err)
	for _, name := range []string{"orders", "refunds"} {
		s, err := client.Sender(ctx, name, nil)
		check(err)
		sent, err := s.Send(ctx, &queue.Message{Body: []byte("x")})
		check(err)
		fmt.Println(name, "sealed under", sent.KeyID)
	}
	_, err = client.Sender(ctx, "others", nil)
	fmt.Println("others:", errors.Is(err, queue.ErrInvalidOptions))
	// Output:
	// orders sealed under orders-1
	// refunds sealed under refunds-1
	// others: true
}

// Some queues are sealed and some are not; nothing else differs.
func Example_someQueuesEncrypted() {
	ctx := context.Background()
	broker := memqueue.New(nil)
	client, err := queue.New(broker, &queue.Options{
		Keys:   ringOf(exampleKey("k1", 1)),
		Logger: silent,
	})
	check(err)
	sealed, err := client.Sender(ctx, "payroll", &queue.SenderOptions{Crypto: &queue.CryptoConfig{Enabled: true}})
	check(err)
	plain, err := client.Sender(ctx, "heartbeats", nil)
	check(err)
	for _, s := range []*queue.Sender{sealed, plain} {
		r, err := s.Send(ctx, &queue.Message{ID: "m", Body: []byte("x")})
		check(err)
		fmt.Println(r.Encrypted, r.KeyID)
	}
	// Output:
	// true k1
	// false
}

// A receiver with keys and no configuration reads both kinds: the message says
// what it is.
func Example_readsBoth() {
	ctx := context.Background()
	broker := memqueue.New(nil)
	ring := ringOf(exampleKey("k1", 1))
	send := func(enabled bool, body string) {
		c, err := queue.New(broker, &queue.Options{Keys: ring, Crypto: queue.CryptoConfig{Enabled: enabled}, Logger: silent})
		check(err)
		s, err := c.Sender(ctx, "orders", nil)
		check(err)
		_, err = s.Send(ctx, &queue.Message{Body: []byte(body)})
		check(err)
	}
	send(false, "from an old service")
	send(true, "from a new one")

	c, err := queue.New(broker, &queue.Options{Keys: ring, Logger: silent})
	check(err)
	r, err := c.Receiver(ctx, "orders", nil)
	check(err)
	for range 2 {
		d, err := r.ReceiveOne(ctx)
		check(err)
		fmt.Println(d.Encrypted, string(d.Body))
		check(d.Complete(ctx))
	}
	// Output:
	// false from an old service
	// true from a new one
}

// A message that was altered on the way is dead-lettered, not delivered, and the
// receiver's loop goes on.
func Example_rejected() {
	ctx := context.Background()
	broker := memqueue.New(nil)
	client, err := queue.New(broker, &queue.Options{
		Keys:   ringOf(exampleKey("k1", 1)),
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject},
		Logger: silent,
		OnRejected: func(_ context.Context, e *queue.RejectedError) {
			fmt.Println(e.MessageID, e.Reason, e.Disposition)
		},
	})
	check(err)
	s, err := client.Sender(ctx, "orders", nil)
	check(err)
	for _, id := range []string{"m1", "m2"} {
		_, err = s.Send(ctx, &queue.Message{ID: id, Body: []byte("pay 10 to Alice")})
		check(err)
	}
	check(broker.Attacker().Rewrite(ctx, "orders", func(m []driver.Message) []driver.Message {
		m[0].Body[len(m[0].Body)-1] ^= 1
		return m
	}))
	r, err := client.Receiver(ctx, "orders", nil)
	check(err)
	good, err := r.Receive(ctx, 10)
	check(err)
	for _, d := range good {
		fmt.Println(d.ID, "delivered")
		check(d.Complete(ctx))
	}
	// Output:
	// m1 authentication_failed dead_lettered
	// m2 delivered
}

// Keys change while messages flow: distribute, make current, retire.
func Example_rotation() {
	ctx := context.Background()
	ring := ringOf(exampleKey("2026-10", 1))
	client, err := queue.New(memqueue.New(nil), &queue.Options{Keys: ring, Crypto: queue.CryptoConfig{Enabled: true}, Logger: silent})
	check(err)
	s, err := client.Sender(ctx, "orders", nil)
	check(err)
	send := func() {
		_, err := s.Send(ctx, &queue.Message{Body: []byte("x")})
		check(err)
	}
	send()
	check(ring.Add(exampleKey("2026-11", 2))) // first to every receiver
	check(ring.SetCurrent("2026-11"))         // then senders use it
	send()
	r, err := client.Receiver(ctx, "orders", nil)
	check(err)
	for range 2 {
		d, err := r.ReceiveOne(ctx)
		check(err)
		fmt.Println(d.KeyID)
		check(d.Complete(ctx))
	}
	check(ring.Remove("2026-10")) // when nothing that waits needs it any more
	// Output:
	// 2026-10
	// 2026-11
}

// A loop that polls: ErrNoMessage says that there is nothing now, and is no failure.
func ExampleReceiver_Receive() {
	ctx := context.Background()
	client, err := queue.New(memqueue.New(nil), &queue.Options{Logger: silent})
	check(err)
	s, err := client.Sender(ctx, "orders", nil)
	check(err)
	for range 5 {
		_, err := s.Send(ctx, &queue.Message{Body: []byte("x")})
		check(err)
	}
	r, err := client.Receiver(ctx, "orders", &queue.ReceiverOptions{Wait: 50 * time.Millisecond})
	check(err)
	for {
		batch, err := r.Receive(ctx, 3)
		if errors.Is(err, queue.ErrNoMessage) {
			fmt.Println("nothing there")
			break // a consumer goes on instead
		}
		check(err)
		fmt.Println(len(batch), "messages")
		for _, d := range batch {
			check(d.Complete(ctx))
		}
	}
	// Output:
	// 3 messages
	// 2 messages
	// nothing there
}

// The messages of one session, in order, under an exclusive lock.
func ExampleReceiver_NextSession() {
	ctx := context.Background()
	client, err := queue.New(memqueue.New(nil), &queue.Options{Logger: silent})
	check(err)
	s, err := client.Sender(ctx, "pulls", nil)
	check(err)
	for _, event := range []string{"opened", "synchronize", "closed"} {
		_, err := s.Send(ctx, &queue.Message{SessionID: "acme/api#7", Body: []byte(event)})
		check(err)
	}
	r, err := client.Receiver(ctx, "pulls", &queue.ReceiverOptions{Wait: 50 * time.Millisecond})
	check(err)
	session, err := r.NextSession(ctx)
	check(err)
	for d, err := range session.All(ctx) {
		check(err)
		fmt.Println(session.ID(), string(d.Body))
		check(d.Complete(ctx))
	}
	check(session.Close(ctx))
	// Output:
	// acme/api#7 opened
	// acme/api#7 synchronize
	// acme/api#7 closed
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
