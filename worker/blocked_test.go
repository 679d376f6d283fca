package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/worker"
)

// On a broker without a delay on abandon a session whose first message must wait
// is not handed round until the message's deliveries are used up: its lock is
// the delay.
func TestBlockedSessionWaitsOutItsLock(t *testing.T) {
	for _, support := range []driver.Support{driver.None, driver.Native} {
		t.Run(support.String(), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				x.Must(x.Ring.Add(newKey(x.T, "k2", 9)))
				x.Must(x.Ring.SetCurrent("k2"))
				x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
				x.Must(x.Ring.SetCurrent("k1"))
				p := &fixturetest.SessionCounter{Caps: func(c *driver.Capabilities) { c.AbandonDelay = support }}
				bot := newRing(x.T, "k1")
				r := x.CountSessions(p, &queue.ReceiverOptions{Wait: time.Second, Keys: bot, MaxDeliveries: 10})
				_, stop := x.run(r, worker.HandlerFunc(func(context.Context, *queue.Delivery) error { return nil }), nil, &worker.HandleOptions{Sessions: true})
				x.Pass(2 * time.Minute)
				if got := x.DeadReasons(orders); len(got) != 0 {
					x.Errorf("dead letters %v within two minutes: a rotation that is on its way must not lose messages", got)
				}
				if n := p.Accepted.Load(); n > 8 {
					x.Errorf("the session was accepted %d times in two minutes", n)
				}
				x.Must(bot.Add(newKey(x.T, "k2", 9)))
				x.Pass(4 * time.Minute)
				if n := len(x.Stored(orders)) + len(x.DeadReasons(orders)); n != 0 {
					x.Errorf("%d messages are left, want none: the key is there", n)
				}
				x.Must(stop())
				if n := p.Held.Load(); n != 0 {
					x.Errorf("%d sessions are still open", n)
				}
			})
		})
	}
}
