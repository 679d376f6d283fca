package sbqueue_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// No message lives shorter at the broker than its sender said: AMQP's field for it
// has 32 bits of milliseconds.
func TestTTL(t *testing.T) {
	t.Parallel()
	n := start(t, &sbemulator.Options{FrozenClock: true}, sbemulator.QueueOptions{})
	q := n.open(t)
	for _, c := range []struct {
		name   string
		ttl    time.Duration
		sealed bool
		want   time.Duration // at the broker; 0 means for ever
		kind   driver.Kind
	}{
		{"an hour", time.Hour, false, time.Hour, 0},
		{"less than the field can tell", time.Microsecond, false, time.Millisecond, 0},
		{"more than a millisecond", 1500 * time.Microsecond, false, 2 * time.Millisecond, 0},
		{"the longest", sbqueue.MaxTTL, false, sbqueue.MaxTTL, 0},
		{"longer, sealed", sbqueue.MaxTTL + 1, true, 0, 0},
		{"50 days, sealed", 50 * 24 * time.Hour, true, 0, 0},
		{"longer", sbqueue.MaxTTL + 1, false, 0, driver.Invalid},
		{"50 days", 50 * 24 * time.Hour, false, 0, driver.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := q.Send(t.Context(), []*driver.Message{{ID: c.name, TTL: c.ttl, Sealed: c.sealed}})[0].Err
			if driver.KindOf(err) != c.kind {
				t.Fatalf("Send: %v", err)
			}
			all, serr := n.Messages("q")
			if serr != nil {
				t.Fatal(serr)
			}
			var got time.Duration
			for _, m := range all {
				if m.MessageID == c.name && !m.ExpiresAt.IsZero() {
					got = m.ExpiresAt.Sub(m.EnqueuedAt)
				}
			}
			if got != c.want {
				t.Errorf("it lives for %s, not %s", got, c.want)
			}
		})
	}
}

// A program that reads dead letters without this library sees why, from where and when
// they came.
func TestDeadLetterOrigin(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	q := n.open(t)
	send(t, q, &driver.Message{ID: "a", Attributes: map[string]string{"k": "v"}})
	d := receive(t, q, 1)[0]
	x := driver.Settlement{Delivery: d, Kind: driver.MoveToDeadLetter, Reason: "why", Description: "and how"}
	if err := q.Settle(t.Context(), []driver.Settlement{x})[0]; err != nil {
		t.Fatal(err)
	}
	all, err := n.Messages("q/$DeadLetterQueue")
	if err != nil || len(all) != 1 {
		t.Fatalf("%d dead letters, %v", len(all), err)
	}
	p := all[0].ApplicationProperties
	at, err := time.Parse(time.RFC3339, fmt.Sprint(p["qrt-dead-at"]))
	if p["qrt-dead-queue"] != "q" || p["DeadLetterReason"] != "why" || p["DeadLetterErrorDescription"] != "and how" || p["k"] != "v" ||
		err != nil || time.Since(at).Abs() > time.Minute {
		t.Errorf("properties %v, %v; want queue, reason, description, k and a recent time", p, err)
	}
}

// An abandon with a delay makes no copy of a message that is no longer held: it
// would come twice.
func TestNoCopyOfLost(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	q := n.open(t)
	send(t, q, &driver.Message{ID: "a"})
	d := receive(t, q, 1)[0]
	stored, err := n.Messages("q")
	if err == nil {
		err = n.ExpireLock("q", stored[0].SequenceNumber)
	}
	if err != nil {
		t.Fatal(err)
	}
	x := driver.Settlement{Delivery: d, Kind: driver.Abandon, Delay: time.Hour}
	if err := q.Settle(t.Context(), []driver.Settlement{x})[0]; !errors.Is(err, driver.ErrLockLost) {
		t.Errorf("Settle: %v", err)
	}
	if stored, err = n.Messages("q"); err != nil || len(stored) != 1 {
		t.Errorf("%d messages, %v", len(stored), err)
	}
}
