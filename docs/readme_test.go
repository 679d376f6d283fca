package docs_test

import (
	"context"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// TestReadme runs the fragments of the README in one go: what is sent is
// received, first by hand and then by a handler.
func TestReadme(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	silence(t)
	key, err := keys.Generate("orders-2026", nil)
	check(err)
	ring, err := keys.NewRing(key)
	check(err)
	store, err := replay.NewMemory(nil)
	check(err)
	broker := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Retention: 24 * time.Hour}})

	client, err := queue.New(broker, queue.Strict(ring, store)) // keys; a memory of handled messages
	check(err)
	defer func() { check(client.Close(context.Background())) }()
	sender, err := client.Sender(ctx, "orders", nil)
	check(err)
	receiver, err := client.Receiver(ctx, "orders", nil)
	check(err)

	body := []byte(`{"number": 7}`)
	_, err = sender.Send(ctx, &queue.Message{SessionID: "acme/api#7", Body: body})
	check(err)
	d, err := receiver.ReceiveOne(ctx) // authentic, fresh, not a replay
	check(err)
	if string(d.Body) != string(body) || !d.Encrypted {
		t.Fatalf("received %q, encrypted %v", d.Body, d.Encrypted)
	}
	check(d.Complete(ctx))

	type PullRequest struct{ Number int }
	review := func(_ context.Context, pr PullRequest) error {
		defer cancel()
		if pr.Number != 7 {
			t.Errorf("pull request %d, want 7", pr.Number)
		}
		return nil
	}
	_, err = sender.Send(ctx, &queue.Message{SessionID: "acme/api#7", Body: body, ContentType: "application/json"})
	check(err)
	p, err := queue.NewProcessor(nil)
	check(err)
	err = p.Handle(receiver, queue.Typed(queue.JSON, func(ctx context.Context, pr PullRequest, d *queue.Delivery) error {
		return review(ctx, pr) // nil completes; RetryAfter, Permanent, or any error by policy
	}), &queue.HandleOptions{Sessions: true})
	check(err)
	err = p.Run(ctx) // renews locks, retries, keeps each session in order, drains when ctx ends
	check(err)
	stats, err := receiver.Stats(context.Background())
	check(err)
	if stats.Ready+stats.InFlight+stats.DeadLetters > 0 {
		t.Errorf("left in the queue: %+v", stats)
	}
}
