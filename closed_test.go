package queue_test

import (
	"context"
	"errors"
	"testing"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/observe"
)

// lifetimes counts what the Observer was told of endpoints.
type lifetimes struct {
	observe.Nop
	open map[observe.Role]int // Configured without Closed
	seen int
}

func (l *lifetimes) Configured(_ context.Context, _ observe.Source, e observe.Configured) {
	l.open[e.Role]++
	l.seen++
}

func (l *lifetimes) Closed(_ context.Context, _ observe.Source, e observe.Closed) { l.open[e.Role]-- }

// Every Configured is followed by one Closed, also if opening fails after it, and if the
// Client closes what is open.
func TestEveryConfiguredIsClosed(t *testing.T) {
	l := &lifetimes{open: make(map[observe.Role]int)}
	inBubble(t, func(_ *fixture, o *queue.Options) { o.Observer = l }, func(x *fixture) {
		for _, o := range []*queue.ReceiverOptions{
			{MaxDeliveries: -1},
			{Crypto: &queue.CryptoConfig{MaxMessageAge: queue.QueueRetention}}, // which this broker does not tell
		} {
			if _, err := x.Client.Receiver(x.Context(), orders, o); !errors.Is(err, queue.ErrInvalidOptions) {
				x.Errorf("Receiver = %v, want ErrInvalidOptions", err)
			}
		}
		crypto, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		_, err = x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Keys: x.Ring, CryptoProvider: crypto})
		x.Must(err)
		x.Sender(orders)
		r := x.Receiver(orders, nil)
		x.Must(r.Close(x.Context()))
		x.Must(r.Close(x.Context()))
		x.Receiver(orders, nil)
	})
	for role, n := range l.open {
		if n != 0 {
			t.Errorf("%d of role %s are not closed", n, role)
		}
	}
	if l.seen < 5 {
		t.Errorf("%d were configured, want at least 5", l.seen)
	}
}
