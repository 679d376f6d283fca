package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/worker"
)

// A dead letter tells its operator what the handler failed with, and the broker nothing.
func TestDeadLettersTellWhy(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		const secret = "Jane Doe"
		for _, id := range []string{"fails", "panics", "permanent"} {
			x.Send(&queue.Message{ID: id, Body: []byte("x")})
		}
		h := worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			switch err := errors.New("no such account: " + secret); d.ID {
			case "panics":
				panic(err)
			case "permanent":
				return worker.Permanent(err, "gone")
			default:
				return err
			}
		})
		_, stop := x.run(x.Receiver(orders, nil), h, nil, &worker.HandleOptions{MaxDeliveries: 2})
		x.Pass(3 * time.Hour)
		x.Must(stop())
		_, why, err := x.Broker.Attacker().DeadLetters(x.Context(), orders)
		x.Must(err)
		for _, w := range why {
			if strings.Contains(w.Description, secret) {
				x.Errorf("the broker was told %q", w.Description)
			}
		}
		if strings.Contains(x.Log.String(), secret) {
			x.Errorf("the log tells: %s", x.Log)
		}
		q, err := deadletter.Open(x.Context(), x.Client, orders, nil)
		x.Must(err)
		n := 0
		for l, err := range q.All(x.Context(), nil) {
			x.Must(err)
			n++
			if !strings.Contains(l.Detail, "no such account: "+secret) || l.ID == "panics" && !strings.Contains(l.Detail, "TestDeadLettersTellWhy") {
				x.Errorf("%s: %q, %v", l.ID, l.Detail, l.DetailErr)
			}
		}
		if n != 3 {
			x.Errorf("%d dead letters, want 3", n)
		}
		x.Must(q.Close(x.Context()))
	})
}
