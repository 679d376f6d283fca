package worker_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/worker"
)

// unpeekable is a broker that cannot peek.
type unpeekable struct{ driver.Broker }

func (b unpeekable) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return unpeekableQueue{q}, err
}

type unpeekableQueue struct{ driver.Queue }

func (q unpeekableQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	c.Peek = driver.None
	return c
}

// A pool with a wrong secret logs the pause once, and not each look whether it is over. When
// the secret is corrected it handles the backlog without a restart.
func TestWrongSecretIsLoggedOnce(t *testing.T) {
	const backlog = 60
	for _, peeks := range []bool{true, false} {
		for _, sessions := range []bool{true, false} {
			t.Run(fmt.Sprintf("peeks %t, sessions %t", peeks, sessions), func(t *testing.T) {
				long := func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = 24 * time.Hour }
				inBubble(t, long, func(x *fixture) {
					for i := range backlog {
						m := &queue.Message{Body: []byte("a")}
						if sessions {
							m.SessionID = fmt.Sprint("s", i%5)
						}
						x.Send(m)
					}
					ring, err := keys.NewRing(newKey(x.T, "k1", 0xee))
					x.Must(err)
					o := x.Client.Options()
					o.Keys, o.KeysFor = ring, nil
					var broker driver.Broker = x.Broker.Connect()
					if !peeks {
						broker = unpeekable{broker}
					}
					c, err := queue.New(broker, &o)
					x.Must(err)
					r, err := c.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: time.Second})
					x.Must(err)
					var handled atomic.Int32
					h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error { handled.Add(1); return nil })
					before := strings.Count(x.Log.String(), "\n")
					_, stop := x.run(r, h, nil, &worker.HandleOptions{Sessions: sessions})
					x.Pass(40 * time.Minute)
					lines := x.Log.String()
					if n := strings.Count(lines, "\n") - before; n > 5 || strings.Count(lines, "Receiving PAUSED") != 1 {
						x.Errorf("%d lines in 40 minutes, want the pause alone:\n%s", n, lines[max(0, len(lines)-2000):])
					}
					x.Must(ring.Remove("k1"))
					x.Must(ring.Add(newKey(x.T, "k1", 1)))
					x.Pass(10 * time.Minute)
					x.Must(stop())
					if n := handled.Load(); n != backlog {
						x.Errorf("%d of %d were handled after the correction", n, backlog)
					}
					if n := len(x.DeadReasons(orders)); n > 0 {
						x.Errorf("%d dead letters, want none", n)
					}
					x.Must(c.Close(x.Context()))
				})
			})
		}
	}
}
