package queuetest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/queuetest"
)

// handle is a handler as an application has it.
func handle(ctx context.Context, d *queue.Delivery) error {
	switch {
	case string(d.Body) == "poison":
		return d.DeadLetter(ctx, queue.Reason{Code: "odd", Description: "not an order"})
	case d.Count < 3:
		return d.Abandon(ctx, time.Minute)
	}
	return d.Complete(ctx)
}

func TestNewDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			body  string
			count int
			want  queuetest.Outcome
		}{
			{"poison", 0, queuetest.Outcome{Disposition: driver.DeadLettered, Reason: queue.Reason{Code: "odd", Description: "not an order"}}},
			{"order", 0, queuetest.Outcome{Disposition: driver.Abandoned, Delay: time.Minute}},
			{"order", 3, queuetest.Outcome{Disposition: driver.Completed}},
		} {
			m := &queue.Message{ID: "m", SessionID: "s", Attributes: map[string]string{"a": "1"}, Body: []byte(c.body)}
			d := queuetest.NewDelivery(t, m, &queuetest.DeliveryOptions{Queue: orders, Count: c.count})
			if d.ID != "m" || d.SessionID != "s" || d.Attributes["a"] != "1" || !d.Encrypted || d.Queue != orders || d.Count != max(1, c.count) {
				t.Errorf("delivery %+v, want what the message and the options say", d.Received)
			}
			if got := d.Outcome(); got != (queuetest.Outcome{}) {
				t.Errorf("before it is settled: %+v", got)
			}
			if err := d.Renew(t.Context()); err != nil {
				t.Errorf("Renew: %v", err)
			}
			if err := handle(t.Context(), d.Delivery); err != nil {
				t.Errorf("%s: %v", c.body, err)
			}
			if got := d.Outcome(); got != c.want {
				t.Errorf("%s, delivery %d: %+v, want %+v", c.body, c.count, got, c.want)
			}
			if err := d.Complete(t.Context()); !errors.Is(err, queue.ErrSettled) {
				t.Errorf("settled twice: %v", err)
			}
		}
	})
}

// A Delivery that a program makes itself has no broker; each call says so.
func TestDeliveryMadeByHand(t *testing.T) {
	d := &queue.Delivery{Received: queue.Received{Queue: orders, Message: queue.Message{ID: "m"}}}
	ctx := t.Context()
	f := queuetest.New(t, nil)
	_, r := open(t, f)
	for what, err := range map[string]error{
		"Complete":   d.Complete(ctx),
		"Abandon":    d.Abandon(ctx, 0),
		"Release":    d.Release(ctx, time.Second),
		"DeadLetter": d.DeadLetter(ctx, queue.Reason{Code: "x"}),
		"Renew":      d.Renew(ctx),
		"RenewAll":   r.RenewAll(ctx, []*queue.Delivery{d, d})[1],
	} {
		if !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "queuetest.NewDelivery") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if d.Context(ctx) != ctx || !d.HeldUntil().IsZero() {
		t.Error("it has a trace or a lock")
	}
	if _, _, ok := d.Claim(); ok {
		t.Error("it has a claim")
	}
}
