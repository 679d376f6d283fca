// Command first is the first program of the README: it sends a message and handles it.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

type Order struct{ Coffees int }

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn) // without it, a line for each message
	ctx, stop := context.WithCancel(context.Background())

	// A broker, a key, and a store that remembers which messages were handled.
	broker := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Retention: 24 * time.Hour}})
	key, err := keys.Generate("orders-2026", nil)
	check(err)
	ring, err := keys.NewRing(key)
	check(err)
	store, err := replay.NewMemory(nil)
	check(err)
	client, err := queue.New(broker, queue.Strict(ring, store))
	check(err)
	defer client.Close(context.Background())

	sender, err := client.Sender(ctx, "orders", nil)
	check(err)
	_, err = sender.Send(ctx, &queue.Message{Body: []byte(`{"coffees": 2}`)}) // sealed
	check(err)

	receiver, err := client.Receiver(ctx, "orders", nil)
	check(err)
	pool, err := worker.New(nil)
	check(err)
	check(pool.Handle(receiver, worker.JSON(func(ctx context.Context, o Order, d *queue.Delivery) error {
		fmt.Println("coffees:", o.Coffees, "sealed:", d.Encrypted) // authentic, fresh, not a replay
		stop()                                                     // a service would go on
		return nil                                                 // completes the message
	}), nil))
	check(pool.Run(ctx)) // renews locks, retries, and drains when ctx ends
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
