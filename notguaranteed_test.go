package queue_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// What docs/threat-model.md says is not guaranteed, and what holds all the same.

// A broker that stores a message and says that it refused it makes the application send
// again. These are two messages with one message ID, and each is handled once.
func TestRefusedSendThatWasStored(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.scripted(driver.None, true, outcome{refusal.err, true}, outcome{})
		sender, err := s.Sender(x.Context(), orders, nil)
		x.Must(err)
		m := &queue.Message{ID: "pay-1", Body: []byte("pay 100")}
		if _, err := sender.Send(x.Context(), m); !errors.Is(err, queue.ErrPermission) {
			x.Fatalf("Send = %v, want what the broker says", err)
		}
		_, err = sender.Send(x.Context(), m)
		x.Must(err)
		stored := x.Stored(orders)
		r, handled := x.Receiver(orders, nil), 0
		for range 2 {
			for _, m := range stored { // again and again
				x.Inject(orders, copyMessage(m))
			}
			for {
				d, err := r.ReceiveOne(x.Context())
				if err != nil {
					break
				}
				handled++
				if d.ID != "pay-1" {
					x.Errorf("message ID %q, by which the handler should know the second", d.ID)
				}
				x.Must(d.Complete(x.Context()))
			}
			x.Pass(time.Minute)
		}
		if len(stored) != 2 || handled != 2 {
			x.Errorf("%d messages were stored, %d handled; want 2 and each once", len(stored), handled)
		}
	})
}

// A broker can give the messages of one session to several receivers at once. Each is
// handled once, under its own session, and one that comes too early says so.
func TestSessionInSeveralHands(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		h := &hostileBroker{deliver: func(d []*driver.Delivery) {
			for _, d := range d {
				d.SessionID = "s"
			}
		}}
		var told atomic.Int64
		r := x.receiverOf(x.hostile(h, 5*time.Minute, func(o *queue.Options) {
			o.Observer = observe.Func(func(_ context.Context, _ observe.Source, event any) {
				if _, ok := event.(observe.Gap); ok {
					told.Add(1)
				}
			})
		}), nil)
		x.Pass(time.Minute) // the store is older than the sender's stream
		sender := x.Sender(orders)
		for i := range 3 {
			_, err := sender.Send(x.Context(), &queue.Message{ID: fmt.Sprint(i), SessionID: "s", Body: []byte("step")})
			x.Must(err)
		}
		x.Rewrite(orders, func(all []driver.Message) []driver.Message {
			for i := range all {
				all[i].SessionID = fmt.Sprint("free at once ", i)
			}
			return []driver.Message{all[1], all[0], all[2]}
		})
		gaps := map[string]bool{"1": true, "0": false, "2": false}
		for range 3 {
			d := x.One(r)
			if want, ok := gaps[d.ID]; d.SessionID != "s" || !ok || d.Gap != want {
				x.Errorf("message %s of session %q with gap %t", d.ID, d.SessionID, d.Gap)
			}
			delete(gaps, d.ID)
			defer func() { x.Must(d.Complete(x.Context())) }()
		}
		if n := told.Load(); n != 1 {
			x.Errorf("%d gaps were told, want 1", n)
		}
	})
}
