package memqueue_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

// A broker with one queue of its own kind. Applications hand it to queue.New in
// place of a real one; here the driver's interface is used directly.
func Example() {
	ctx := context.Background()
	broker := memqueue.New(&memqueue.Options{
		Queues: map[string]memqueue.QueueOptions{
			"payments": {Lock: 5 * time.Second, MaxDeliveries: 2},
		},
		DeclaredOnly: true,
	})
	defer func() { _ = broker.Close(ctx) }() // returns nil
	q, err := broker.Open(ctx, "payments", nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range q.Send(ctx, []*driver.Message{{ID: "m-1", Body: []byte("1 EUR")}}) {
		if r.Err != nil {
			log.Fatal(r.Err)
		}
	}
	for range 2 {
		got, err := q.Receive(ctx, 1, time.Second)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s, delivery %d: %s\n", got[0].ID, got[0].Count, got[0].Body)
		q.Settle(ctx, []driver.Settlement{{Delivery: got[0], Kind: driver.Abandon}})
	}
	dead, err := broker.StoredDeadLetters("payments")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(dead[0].ID, dead[0].DeadLetter.Reason)
	// Output:
	// m-1, delivery 1: 1 EUR
	// m-1, delivery 2: 1 EUR
	// m-1 max_deliveries
}

// An attacker who controls the broker changes what is stored.
func ExampleBroker_Rewrite() {
	ctx := context.Background()
	broker := memqueue.New(nil)
	defer func() { _ = broker.Close(ctx) }() // returns nil
	q, err := broker.Open(ctx, "payments", nil)
	if err != nil {
		log.Fatal(err)
	}
	q.Send(ctx, []*driver.Message{{ID: "m-1", Body: []byte("1 EUR")}})
	err = broker.Rewrite("payments", func(all []memqueue.Stored) []memqueue.Stored {
		all[0].Body = []byte("1,000,000 EUR")
		return all
	})
	if err != nil {
		log.Fatal(err)
	}
	got, err := q.Receive(ctx, 1, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", got[0].Body)
	// Output:
	// 1,000,000 EUR
}
