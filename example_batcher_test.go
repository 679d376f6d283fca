package queue_test

import (
	"context"
	"fmt"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/sessionkey"
)

// jobs returns a client over memqueue and a receiver of its queue "jobs".
func jobs() (*queue.Client, *queue.Receiver) {
	client, err := queue.New(memqueue.New(nil), &queue.Options{Logger: silent})
	check(err)
	r, err := client.Receiver(context.Background(), "jobs", nil)
	check(err)
	return client, r
}

// Messages that are sent one by one share their calls to the broker.
func ExampleBatcher() {
	ctx := context.Background()
	client, receiver := jobs()
	s, err := client.Sender(ctx, "jobs", nil)
	check(err)
	b, err := queue.NewBatcher(s, &queue.BatcherOptions{Linger: 5 * time.Millisecond})
	check(err)
	for i := range 100 {
		check(b.SendAsync(ctx, &queue.Message{Body: fmt.Appendf(nil, "job %d", i)}, func(r queue.SendResult) { check(r.Err) }))
	}
	check(b.Close(ctx)) // sends what waits
	stats, err := receiver.Stats(ctx)
	check(err)
	fmt.Println(stats.Ready)
	// Output: 100
}

// A strategy fills in the session of each message.
func ExampleSenderOptions_sessionKey() {
	ctx := context.Background()
	client, receiver := jobs()
	byPullRequest := sessionkey.Composite{sessionkey.Field("repository.full_name"), sessionkey.Field("number")}
	s, err := client.Sender(ctx, "jobs", &queue.SenderOptions{SessionKey: byPullRequest})
	check(err)
	_, err = s.Send(ctx, &queue.Message{Body: []byte(`{"number": 7, "repository": {"full_name": "acme/api"}}`)})
	check(err)
	d, err := receiver.ReceiveOne(ctx)
	check(err)
	fmt.Println(d.SessionID)
	// Output: acme/api:7
}
