package deadletter_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
)

// handled sends a message, has a receiver of the group complete it, and returns the copy that
// the broker kept.
func (x *fixture) handled(group string) driver.Message {
	x.Helper()
	x.Send(&queue.Message{ID: "pay-1", Body: []byte("pay 100")})
	stolen := x.Steal()
	x.Must(x.One(x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Group: group})).Complete(x.Context()))
	return stolen
}

// bury puts a copy among the dead letters, as the broker can.
func (x *fixture) bury(m driver.Message) {
	x.Helper()
	m.Body = slices.Clone(m.Body)
	x.Rewrite(orders, func(all []driver.Message) []driver.Message { return append([]driver.Message{m}, all...) })
	b := x.Broker.Connect()
	q, err := b.Open(x.Context(), orders, nil)
	x.Must(err)
	d, err := q.Receive(x.Context(), 1, 0)
	x.Must(err)
	x.Must(q.Settle(x.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.MoveToDeadLetter, Reason: "message_expired"}})[0])
	x.Must(b.Close(x.Context()))
}

// resealing redrives all dead letters, sealed anew, with these options.
func (x *fixture) resealing(o *deadletter.Options) deadletter.RedriveReport {
	x.Helper()
	o.Wait = time.Second
	d, err := deadletter.Open(x.Context(), x.Client, orders, o)
	x.Must(err)
	report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
	x.Must(err)
	return report
}

// A redrive whose messages may be older than those of the receivers makes nothing new that they
// handled, and have forgotten.
func TestRedriveOfAnotherAge(t *testing.T) {
	for _, later := range []time.Duration{11 * time.Minute, 24 * time.Hour, 13 * 24 * time.Hour} {
		t.Run(later.String(), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) { // messages of five minutes
				stolen := x.handled("")
				x.Wait(later)
				x.bury(stolen)
				report := x.resealing(&deadletter.Options{Crypto: &queue.CryptoConfig{
					Enabled: true, PlaintextPolicy: queue.AllowWithAlert, TrackReplays: true, MaxMessageAge: 14 * 24 * time.Hour, Loosen: true,
				}})
				if d, err := x.Receiver(orders, nil).ReceiveOne(x.Context()); err == nil {
					x.Errorf("handled again: %q; the redrive was %+v", d.Body, report)
				}
			})
		})
	}
}

// Nor does a redrive under another group than that of the receivers, whether that group has a
// memory or none: what goes back has the identity that they know.
func TestRedriveUnderAnotherGroup(t *testing.T) {
	for _, remembers := range []bool{false, true} {
		inBubble(t, func(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = 24 * time.Hour }, func(x *fixture) {
			if remembers {
				x.Prove(x.Receiver(orders, nil)) // of the queue's own group
				x.Wait(time.Hour)
			}
			stolen := x.handled("billing")
			x.Wait(time.Hour)
			x.bury(stolen)
			report := x.resealing(&deadletter.Options{})
			r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Group: "billing"})
			if d, err := r.ReceiveOne(x.Context()); err == nil {
				x.Errorf("handled again: %q; the redrive was %+v", d.Body, report)
			}
		})
	}
}

// A dry run does not exempt a message from freshness that the broker withheld.
func TestDryRunMakesNothingKnown(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Prove(x.Receiver(orders, nil))
		x.Wait(time.Minute)
		x.Send(&queue.Message{ID: "m", Body: []byte("withheld")})
		stolen := x.Steal()
		x.Rewrite(orders, func([]driver.Message) []driver.Message { return nil })
		x.bury(stolen)
		_, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, DryRun: true})
		x.Must(err)
		x.Wait(20 * time.Hour)
		x.Inject(orders, stolen)
		if d, err := x.Receiver(orders, nil).ReceiveOne(x.Context()); !errors.Is(err, queue.ErrMessageExpired) {
			x.Errorf("ReceiveOne = %v, %v; want ErrMessageExpired", d, err)
		}
	})
}
