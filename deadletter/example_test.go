package deadletter_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// Dead letters go back to their queue, sealed anew under the current key.
func ExampleQueue_Redrive() {
	ctx := context.Background()
	key, err := keys.New("k1", bytes.Repeat([]byte{1}, keys.Size), nil) // for an example; a key is random
	check(err)
	ring, err := keys.NewRing(key)
	check(err)
	store, err := replay.NewMemory(nil)
	check(err)
	client, err := queue.New(memqueue.New(nil), &queue.Options{
		Keys: ring, ReplayStore: store, Logger: slog.New(slog.DiscardHandler),
		Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true},
	})
	check(err)
	s, err := client.Sender(ctx, "orders", nil)
	check(err)
	_, err = s.Send(ctx, &queue.Message{ID: "order-7", Body: []byte("two coffees")})
	check(err)
	r, err := client.Receiver(ctx, "orders", nil)
	check(err)
	d, err := r.ReceiveOne(ctx)
	check(err)
	check(d.DeadLetter(ctx, queue.Reason{Code: "out_of_coffee"}))

	dead, err := deadletter.Open(ctx, client, "orders", &deadletter.Options{Wait: 10 * time.Millisecond})
	check(err)
	for p, err := range dead.All(ctx, nil) {
		check(err)
		fmt.Println(p.ID, p.DeadLetter.Reason)
	}
	report, err := dead.Redrive(ctx, &deadletter.RedriveOptions{Reseal: true})
	check(err)
	fmt.Println("redriven:", report.Redriven)
	d, err = r.ReceiveOne(ctx)
	check(err)
	fmt.Println(d.ID, string(d.Body))
	// Output:
	// order-7 out_of_coffee
	// redriven: 1
	// order-7 two coffees
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
