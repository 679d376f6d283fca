package queue_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/sessionkey"
)

// processing returns a client over memqueue and a function that sends to jobs.
func processing() (client *queue.Client, send func(session, body string)) {
	ctx := context.Background()
	client, err := queue.New(memqueue.New(nil), &queue.Options{Logger: silent})
	check(err)
	s, err := client.Sender(ctx, "jobs", nil)
	check(err)
	return client, func(session, body string) {
		_, err := s.Send(ctx, &queue.Message{SessionID: session, Body: []byte(body)})
		check(err)
	}
}

func receiver(c *queue.Client) *queue.Receiver {
	r, err := c.Receiver(context.Background(), "jobs", nil)
	check(err)
	return r
}

// A handler gets decoded values; its return settles the message.
func ExampleProcessor() {
	client, send := processing()
	send("", `{"order": 7}`)
	ctx, stop := context.WithCancel(context.Background())

	p, err := queue.NewProcessor(nil)
	check(err)
	type job struct{ Order int }
	check(p.Handle(receiver(client), queue.Typed(queue.JSON, func(_ context.Context, j job, d *queue.Delivery) error {
		fmt.Println("order", j.Order)
		stop()
		return nil // completes the message
	}), nil))
	check(p.Run(ctx))
	// Output: order 7
}

// A failed message is retried by policy; one that can never succeed is
// dead-lettered at once.
func ExampleProcessor_retry() {
	client, send := processing()
	send("", "flaky")
	ctx, stop := context.WithCancel(context.Background())

	p, err := queue.NewProcessor(&queue.ProcessorOptions{Concurrency: 1})
	check(err)
	check(p.Handle(receiver(client), queue.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		fmt.Println(string(d.Body), "delivery", d.Count)
		switch {
		case d.Count == 1:
			return errors.New("the database is busy") // by the policy
		case d.Count == 2:
			return queue.RetryAfter(2*time.Millisecond, nil)
		}
		stop()
		return queue.Permanent("bad_request", errors.New("no such order"))
	}), &queue.HandleOptions{Retry: backoff.Fixed(time.Millisecond)}))
	check(p.Run(ctx))

	stats, err := receiver(client).Stats(context.Background())
	check(err)
	fmt.Println("dead letters:", stats.DeadLetters)
	// Output:
	// flaky delivery 1
	// flaky delivery 2
	// flaky delivery 3
	// dead letters: 1
}

// Each session's messages are handled in order, one at a time.
func ExampleProcessor_sessions() {
	client, send := processing()
	for _, event := range []string{"opened", "edited", "closed"} {
		send("pull-7", event)
	}
	ctx, stop := context.WithCancel(context.Background())

	p, err := queue.NewProcessor(nil)
	check(err)
	check(p.Handle(receiver(client), queue.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		fmt.Println(d.SessionID, string(d.Body))
		if string(d.Body) == "closed" {
			stop()
		}
		return nil
	}), &queue.HandleOptions{Sessions: true}))
	check(p.Run(ctx))
	// Output:
	// pull-7 opened
	// pull-7 edited
	// pull-7 closed
}

// Shutdown waits for what is under way. In a service, the context of Run comes
// from signal.NotifyContext, and a second signal calls Close.
func ExampleProcessor_Shutdown() {
	client, send := processing()
	send("", "slow")
	started := make(chan struct{})

	p, err := queue.NewProcessor(&queue.ProcessorOptions{DrainTimeout: 10 * time.Second})
	check(err)
	check(p.Handle(receiver(client), queue.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
		close(started)
		select {
		case <-time.After(20 * time.Millisecond):
			fmt.Println("finished")
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}), nil))
	done := make(chan error)
	go func() { done <- p.Run(context.Background()) }()
	<-started
	check(p.Shutdown(context.Background()))
	fmt.Println("drained:", <-done)
	// Output:
	// finished
	// drained: <nil>
}

// Messages that are sent one by one share their calls to the broker.
func ExampleBatcher() {
	ctx := context.Background()
	client, _ := processing()
	s, err := client.Sender(ctx, "jobs", nil)
	check(err)
	b, err := queue.NewBatcher(s, &queue.BatcherOptions{Linger: 5 * time.Millisecond})
	check(err)
	for i := range 100 {
		check(b.SendAsync(ctx, &queue.Message{Body: fmt.Appendf(nil, "job %d", i)}, func(r queue.SendResult) { check(r.Err) }))
	}
	check(b.Close(ctx)) // sends what waits
	stats, err := receiver(client).Stats(ctx)
	check(err)
	fmt.Println(stats.Ready)
	// Output: 100
}

// A strategy fills in the session of each message.
func ExampleSenderOptions_sessionKey() {
	ctx := context.Background()
	client, _ := processing()
	byPullRequest := sessionkey.Composite{sessionkey.Field("repository.full_name"), sessionkey.Field("number")}
	s, err := client.Sender(ctx, "jobs", &queue.SenderOptions{SessionKey: byPullRequest})
	check(err)
	_, err = s.Send(ctx, &queue.Message{Body: []byte(`{"number": 7, "repository": {"full_name": "acme/api"}}`)})
	check(err)
	d, err := receiver(client).ReceiveOne(ctx)
	check(err)
	fmt.Println(d.SessionID)
	// Output: acme/api:7
}
