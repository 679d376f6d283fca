package queue_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// TestPeek reads what waits, page by page, and leaves it where it is: sealed, in plain under any
// policy, and forged without its body.
func TestPeek(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		begin := time.Now()
		x.Send(&queue.Message{ID: "m", SessionID: "s", CorrelationID: "c", ContentType: "text/plain", Attributes: map[string]string{"a": "1"}, Body: []byte("body")})
		x.Inject(orders, driver.Message{ID: "plain", Body: []byte("plain")})
		forged := x.sealed("forged", time.Now(), time.Time{})
		forged.Body[len(forged.Body)-1] ^= 1
		x.Inject(orders, forged)
		r := x.Receiver(orders, nil)
		received := x.One(r)
		x.Must(received.Abandon(x.Context(), 0))
		page, next, err := r.Peek(x.Context(), "", 2)
		x.Must(err)
		rest, end, err := r.Peek(x.Context(), next, 2)
		x.Must(err)
		if len(page) != 2 || len(rest) != 1 || next == "" || end != "" {
			x.Fatalf("%d and %d messages, cursors %q and %q", len(page), len(rest), next, end)
		}
		m, plain, last := page[0], page[1], rest[0]
		if m.Err != nil || m.ID != "m" || m.SessionID != "s" || m.CorrelationID != "c" || m.ContentType != "text/plain" || m.Attributes["a"] != "1" ||
			string(m.Body) != "body" || m.Queue != orders || m.BrokerID == "" || m.BrokerID != received.BrokerID || m.Count != 1 || !m.EnqueuedAt.Equal(begin) ||
			!m.Encrypted || m.KeyID != "k1" || m.Sender != received.Sender || !m.EncryptedAt.Equal(received.EncryptedAt) {
			x.Errorf("sealed: %+v", m)
		}
		if plain.Err != nil || plain.ID != "plain" || plain.Encrypted || string(plain.Body) != "plain" {
			x.Errorf("plain: %+v", plain)
		}
		if !errors.Is(last.Err, queue.ErrAuthenticationFailed) || last.ID != "forged" || last.KeyID != "k1" || last.Body != nil {
			x.Errorf("forged: %+v", last)
		}
		x.Must(x.One(r).Complete(x.Context()))
		if n := len(x.Stored(orders)); n != 2 {
			x.Errorf("%d messages are left, want 2", n)
		}
	})
}

// TestPeekRefuses what cannot be meant, and tells what the broker says.
func TestPeekRefuses(t *testing.T) {
	const op = "peek"
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{}
		c := x.behind(p, nil)
		r := x.receives(c, nil)
		_, _, err := r.Peek(x.Context(), "", 0)
		x.failed("none", err, queue.ErrInvalidOptions, op)
		_, _, err = r.Peek(noContext, "", 1)
		x.failed("no context", err, queue.ErrInvalidOptions, op)
		left, cancel := context.WithCancel(x.Context())
		cancel()
		if _, _, err = r.Peek(left, "", 1); !errors.Is(err, context.Canceled) || p.count("peek") != 0 {
			x.Errorf("a caller that left: %v after %d calls", err, p.count("peek"))
		}
		p.set(func() { p.fails = map[string]error{"peek": driver.Unsupported("peeking")} })
		_, _, err = r.Peek(x.Context(), "", 1)
		x.failed("a broker that cannot", err, errors.ErrUnsupported, op)
		x.Must(c.Close(x.Context()))
		_, _, err = r.Peek(x.Context(), "", 1)
		x.failed("a closed Client", err, queue.ErrClosed, op)
		if n := p.count("peek"); n != 1 {
			x.Errorf("the broker was asked %d times", n)
		}
	})
}
