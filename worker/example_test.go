package worker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/worker"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// processing returns a client over memqueue and a function that sends to jobs.
func processing() (client *queue.Client, send func(session, body string)) {
	ctx := context.Background()
	client, err := queue.New(memqueue.New(nil), &queue.Options{Logger: quiet()})
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
func ExamplePool() {
	client, send := processing()
	send("", `{"order": 7}`)
	ctx, stop := context.WithCancel(context.Background())

	p, err := worker.New(nil)
	check(err)
	type job struct{ Order int }
	check(p.Handle(receiver(client), worker.JSON(func(_ context.Context, j job, d *queue.Delivery) error {
		fmt.Println("order", j.Order)
		stop()
		return nil // completes the message
	}), nil))
	check(p.Run(ctx))
	// Output: order 7
}

// A failed message is retried by policy; one that can never succeed is
// dead-lettered at once.
func ExamplePool_retry() {
	client, send := processing()
	send("", "flaky")
	ctx, stop := context.WithCancel(context.Background())

	p, err := worker.New(&worker.Options{Concurrency: 1})
	check(err)
	check(p.Handle(receiver(client), worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		fmt.Println(string(d.Body), "delivery", d.Count)
		switch {
		case d.Count == 1:
			return errors.New("the database is busy") // by the policy
		case d.Count == 2:
			return worker.RetryAfter(nil, 2*time.Millisecond)
		}
		stop()
		return worker.Permanent(errors.New("no such order"), "bad_request")
	}), &worker.HandleOptions{Retry: backoff.Fixed(time.Millisecond)}))
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

// While the breaker of what handlers call is open nothing is fetched, so that an outage
// spends the deliveries of the few messages that opened it, once.
func ExamplePool_downstream() {
	client, send := processing()
	for i := range 20 {
		send("", fmt.Sprint(i))
	}
	pool, err := worker.New(nil)
	check(err)
	receiver := receiver(client)
	ctx, stop := context.WithCancel(context.Background())
	handler := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
		return errors.New("connection refused")
	})

	payments, err := backoff.NewBreaker(&backoff.BreakerOptions{OnChange: func(s backoff.State) {
		fmt.Println("the breaker is", s)
		stop()
	}})
	check(err)
	check(pool.Handle(receiver, handler, &worker.HandleOptions{Downstream: payments}))
	check(pool.Run(ctx))

	stats, err := receiver.Stats(context.Background())
	check(err)
	fmt.Println("dead letters:", stats.DeadLetters)
	// Output:
	// the breaker is open
	// dead letters: 0
}

// A service that asks to wait costs its messages no delivery.
func ExampleLater() {
	client, send := processing()
	send("", "report")
	ctx, stop := context.WithCancel(context.Background())

	p, err := worker.New(nil)
	check(err)
	calls := 0
	check(p.Handle(receiver(client), worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		if calls++; calls < 4 {
			return worker.Later(errors.New("429 Too Many Requests"), time.Millisecond)
		}
		fmt.Println(string(d.Body), "call", calls, "delivery", d.Count)
		stop()
		return nil
	}), &worker.HandleOptions{MaxDeliveries: 2}))
	check(p.Run(ctx))
	// Output: report call 4 delivery 1
}

// Each session's messages are handled in order, one at a time.
func ExamplePool_sessions() {
	client, send := processing()
	for _, event := range []string{"opened", "edited", "closed"} {
		send("pull-7", event)
	}
	ctx, stop := context.WithCancel(context.Background())

	p, err := worker.New(nil)
	check(err)
	check(p.Handle(receiver(client), worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
		fmt.Println(d.SessionID, string(d.Body))
		if string(d.Body) == "closed" {
			stop()
		}
		return nil
	}), &worker.HandleOptions{Sessions: true}))
	check(p.Run(ctx))
	// Output:
	// pull-7 opened
	// pull-7 edited
	// pull-7 closed
}

// Stop waits for what is under way. In a service the context of Run comes from
// signal.NotifyContext, and a second signal is a Stop with a context that has ended.
func ExamplePool_Stop() {
	client, send := processing()
	send("", "slow")
	started := make(chan struct{})

	p, err := worker.New(&worker.Options{DrainTimeout: 10 * time.Second})
	check(err)
	check(p.Handle(receiver(client), worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
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
	check(p.Stop(context.Background()))
	fmt.Println("drained:", <-done)
	// Output:
	// finished
	// drained: <nil>
}
