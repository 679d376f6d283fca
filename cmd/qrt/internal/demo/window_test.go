package demo

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/driver"
)

// slow is a connection over which every send takes as long as delay says.
type slow struct {
	driver.Broker
	delay func() time.Duration
}

func (s slow) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := s.Broker.Open(ctx, name, o)
	return slowQueue{q, s.delay}, err
}

type slowQueue struct {
	driver.Queue
	delay func() time.Duration
}

func (q slowQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	sent := q.Queue.Send(ctx, m)
	if err := pause(ctx, q.delay()); err != nil {
		panic(err)
	}
	return sent
}

// replayed performs the attack that has a window on a broker whose n-th call to
// send takes delay(n), and returns how often honest messages were sent: twice in
// an attack that was made to its end.
func replayed(t *testing.T, delay func(n int) time.Duration) (o attacktest.Outcome, sends, waits int, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		bed := open(t)
		r := &run{report: &Report{}, pace: time.Millisecond, short: [][]byte{[]byte(`{"action":"opened"}`)}}
		r.Attempts = 10
		r.Broker = NewBroker(bed)
		r.Broker.Connect = func(ctx context.Context) (driver.Broker, error) {
			p, err := bed.Connect(ctx)
			return slow{p, func() time.Duration { sends++; return delay(sends) }}, err
		}
		o, err = r.replayAfterWindow(t.Context(), func() { waits++ })
	})
	return o, sends, waits, err
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		delay        func(n int) time.Duration
		sends, waits int
	}{
		"fast":              {func(int) time.Duration { return 0 }, 2, 1},
		"slow":              {func(int) time.Duration { return 7 * time.Second }, 3, 1},
		"slower and slower": {func(n int) time.Duration { return time.Duration(n*n) * 5 * time.Second }, 3, 1},
		"slow in the end":   {func(n int) time.Duration { return time.Duration(n-1) * 7 * time.Second }, 4, 2},
	} {
		t.Run(name, func(t *testing.T) {
			o, sends, waits, err := replayed(t, c.delay)
			if err != nil || len(o.Faults) > 0 || o.Attempts != 10 || o.DeadLettered != 10 || o.Reason != "message_expired" {
				t.Errorf("%+v, %v; want 10 of 10 dead-lettered as message_expired", o, err)
			}
			if sends != c.sends || waits != c.waits {
				t.Errorf("%d sends and %d waits, want %d and %d", sends, waits, c.sends, c.waits)
			}
		})
	}
	if _, _, _, err := replayed(t, func(int) time.Duration { return time.Hour }); err == nil || !strings.Contains(err.Error(), "use fewer --attempts") {
		t.Errorf("an hour for each send: %v", err)
	}
}
