package worker_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/worker"
)

// TestNegativeOptions: an option that is negative is refused by its name.
func TestNegativeOptions(t *testing.T) {
	refused := func(t *testing.T, err error, name string) {
		t.Helper()
		if !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), name+" is negative") {
			t.Errorf("%v, want ErrInvalidOptions that says that %s is negative", err, name)
		}
	}
	for name, o := range map[string]worker.Options{
		"worker.Options.Concurrency":  {Concurrency: -1},
		"worker.Options.DrainTimeout": {DrainTimeout: -1},
		"worker.Options.CancelGrace":  {CancelGrace: -1},
	} {
		_, err := worker.New(&o)
		refused(t, err, name)
	}
	inBubble(t, nil, func(x *fixture) {
		p, err := worker.New(nil)
		x.Must(err)
		r, h := x.Receiver(orders, nil), worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil })
		for name, o := range map[string]worker.HandleOptions{
			"HandleOptions.Weight":        {Weight: -1},
			"HandleOptions.Concurrency":   {Concurrency: -1},
			"HandleOptions.Prefetch":      {Prefetch: -1},
			"HandleOptions.SessionIdle":   {SessionIdle: -1},
			"HandleOptions.SessionTurn":   {SessionTurn: -1},
			"HandleOptions.MaxProcessing": {MaxProcessing: -1},
			"HandleOptions.MaxDeliveries": {MaxDeliveries: -1},
		} {
			refused(x.T, p.Handle(r, h, &o), name)
		}
	})
}
