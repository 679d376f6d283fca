package docs_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
)

// placeOrder is the code of an application that testing.md tests.
func placeOrder(ctx context.Context, client *queue.Client, id string) error {
	sender, err := client.Sender(ctx, "orders", nil)
	if err != nil {
		return err
	}
	_, err = sender.Send(ctx, &queue.Message{ID: id, Body: []byte(`{"order":"` + id + `"}`)})
	return err
}

// handleOrder is a handler that testing.md tests.
func handleOrder(ctx context.Context, d *queue.Delivery) error {
	if string(d.Body) == "no order" {
		return d.DeadLetter(ctx, queue.Reason{Code: "not_an_order"})
	}
	return d.Complete(ctx)
}

func TestHandlerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := queuetest.NewDelivery(t, &queue.Message{Body: []byte("no order")}, &queuetest.DeliveryOptions{Count: 2})
		if err := handleOrder(t.Context(), d.Delivery); err != nil {
			t.Fatal(err)
		}
		if got := d.Outcome(); got.Disposition != driver.DeadLettered || got.Reason.Code != "not_an_order" {
			t.Fatalf("outcome: %+v", got)
		}
	})
}

func TestApplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		app := queuetest.New(t, nil)
		if err := placeOrder(t.Context(), app.Client, "o-1"); err != nil {
			t.Fatal(err)
		}
		waiting := app.Waiting(t.Context(), "orders")
		if len(waiting) != 1 || string(waiting[0].Body) != `{"order":"o-1"}` {
			t.Fatalf("waiting: %v", waiting)
		}
		if n := len(app.DeadLettered(t.Context(), "orders")); n != 0 {
			t.Fatalf("%d dead letters", n)
		}
		app.Broker.Inject(queuetest.Fault{On: queuetest.Send, Err: queuetest.Unavailable()})
		if err := placeOrder(t.Context(), app.Client, "o-2"); err == nil {
			t.Fatal("the broker was away, and nothing was said")
		}
	})
}

func TestMemory(t *testing.T) {
	client, err := queue.New(memqueue.New(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
