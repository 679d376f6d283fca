package queue_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// A prepared message is sealed and not sent; it can be sent later, by a driver alone,
// and its copies are handled once.
func TestPrepare(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.Sender(orders)
		body := []byte("from an outbox")
		p, err := s.Prepare(x.Context(), &queue.Message{ID: "m", SessionID: "s", Body: body, Attributes: map[string]string{"a": "1"}})
		x.Must(err)
		if n := len(x.Stored(orders)); n != 0 {
			x.Fatalf("%d messages were sent", n)
		}
		if p.Queue != orders || p.KeyID != "k1" {
			x.Errorf("queue %q, key %q", p.Queue, p.KeyID)
		}
		m := p.Message.Clone()
		if !m.Sealed || bytes.Contains(m.Body, body) || m.ID != "m" || m.DedupID != "m" || m.SessionID != "s" {
			x.Errorf("prepared %+v, want m sealed, with its session and DedupID", m)
		}
		h, err := envelope.Parse(m.Body)
		x.Must(err)
		q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
		x.Must(err)
		for range 2 {
			for _, r := range q.Send(x.Context(), []*driver.Message{&p.Message}) {
				x.Must(r.Err)
			}
		}
		r := x.Receiver(orders, nil)
		d := x.One(r)
		if string(d.Body) != string(body) || d.Attributes["a"] != "1" || d.Gap {
			x.Errorf("received %+v, want the body and its attribute, without a gap", d.Message)
		}
		x.Must(d.Complete(x.Context()))
		x.None(r, queue.ErrNoMessage)

		// Its stream is loose: plain messages do not wait for it.
		x.Send(&queue.Message{ID: "plain", SessionID: "s"})
		plain, err := envelope.Parse(x.Steal().Body)
		x.Must(err)
		if h.Stream == plain.Stream || h.Settled != 0 || h.Previous != 0 || plain.Previous != 0 || plain.Sequence != 1 {
			x.Errorf("prepared %+v, plain %+v", h.Header, plain.Header)
		}
	})
}

// Ages count from Prepare, whenever it is sent.
func TestPrepareFreshness(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p, err := x.Sender(orders).Prepare(x.Context(), &queue.Message{ID: "m"})
		x.Must(err)
		x.Wait(6 * time.Minute)
		x.Inject(orders, p.Message)
		x.None(x.Receiver(orders, nil), queue.ErrMessageExpired)
	})
}

func TestPrepareFails(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.Sender(orders)
		if p, err := s.Prepare(x.Context(), &queue.Message{TTL: -1}); !errors.Is(err, queue.ErrInvalidMessage) || p != nil {
			x.Errorf("%v, %v; want ErrInvalidMessage alone", p, err)
		}
		var none context.Context // must be an error, not a panic
		if p, err := s.Prepare(none, &queue.Message{}); err == nil || p != nil {
			x.Errorf("%v, %v; want an error alone", p, err)
		}
		off, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Crypto: &queue.CryptoConfig{Loosen: true}})
		x.Must(err)
		body := []byte("plain")
		p, err := off.Prepare(x.Context(), &queue.Message{Body: body})
		x.Must(err)
		body[0] = 'X'
		if m := p.Message; m.Sealed || string(m.Body) != "plain" || p.KeyID != "" {
			x.Errorf("%+v, key %q", m, p.KeyID)
		}
	})
}
