package deadletter_test

import (
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue/deadletter"
)

// TestHeldLettersOfABrokerThatDoesNotCount: a broker that can peek is looked over before a
// read by receiving calls itself complete: others may hold letters, and a broker that does
// not answer has none to receive.
func TestHeldLettersOfABrokerThatDoesNotCount(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(20)
		q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
		x.Must(err)
		other, err := q.DeadLetters(x.Context())
		x.Must(err)
		held, err := other.Receive(x.Context(), 3, time.Second)
		x.Must(err)
		d := x.opened(&broken{fail: map[string]error{"stats": errBroken}}, nil)
		var left *deadletter.IncompleteError
		report, err := d.Redrive(x.Context(), nil)
		if !errors.As(err, &left) || left.Left != int64(len(held)) || report.Redriven != 20-len(held) {
			x.Errorf("Redrive: %+v, %v; want all but the %d that are held", report, err, len(held))
		}
		n, err := d.Purge(x.Context(), &deadletter.Filter{})
		if !errors.As(err, &left) || left.Left != int64(len(held)) || n != 0 {
			x.Errorf("Purge = %d, %v; want none of the %d that are held", n, err, len(held))
		}
		x.Must(other.Close(x.Context()))
		if n, err := d.Purge(x.Context(), &deadletter.Filter{}); n != len(held) || err != nil {
			x.Errorf("Purge = %d, %v; want the rest of %d", n, err, len(held))
		}
		away := x.opened(&broken{fail: map[string]error{"stats": errBroken, "peek": errBroken}}, nil)
		if _, err := away.Purge(x.Context(), &deadletter.Filter{}); !errors.Is(err, errBroken) {
			x.Errorf("Purge with a broker that is away: %v, want %v", err, errBroken)
		}
		if _, err := away.Redrive(x.Context(), nil); !errors.Is(err, errBroken) {
			x.Errorf("Redrive with a broker that is away: %v, want %v", err, errBroken)
		}
	})
}
