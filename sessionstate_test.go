package queue_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

func TestSessionState(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, nil)
		take := func(r *queue.Receiver, id string) *queue.Session {
			s, err := r.AcceptSession(x.Context(), id)
			x.Must(err)
			return s
		}
		s := take(r, "s1")
		if b, err := s.State(x.Context()); b != nil || err != nil {
			x.Errorf("State = %q, %v at the beginning", b, err)
		}
		x.Must(s.SetState(x.Context(), []byte("secret progress")))
		x.Must(s.Close(x.Context()))
		s = take(r, "s1")
		if b, err := s.State(x.Context()); string(b) != "secret progress" || err != nil {
			x.Errorf("State = %q, %v", b, err)
		}
		x.Must(s.Close(x.Context()))

		// What the broker has.
		q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
		x.Must(err)
		raw, err := q.AcceptSession(x.Context(), "s1", time.Second)
		x.Must(err)
		stored, err := raw.(driver.StatefulSession).State(x.Context())
		x.Must(err)
		if bytes.Contains(stored, []byte("secret")) {
			x.Error("the broker has the state in plaintext")
		}
		// It moves the state to another session, alters it, replaces it, and
		// delivers it as a message.
		other, err := q.AcceptSession(x.Context(), "s2", time.Second)
		x.Must(err)
		x.Must(other.(driver.StatefulSession).SetState(x.Context(), stored))
		x.Must(other.Close(x.Context()))
		altered := bytes.Clone(stored)
		altered[len(altered)-1] ^= 1
		x.Must(raw.(driver.StatefulSession).SetState(x.Context(), altered))
		x.Must(raw.Close(x.Context()))
		for _, id := range []string{"s1", "s2"} {
			s := take(r, id)
			if b, err := s.State(x.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
				x.Errorf("%s: State = %q, %v; want ErrAuthenticationFailed", id, b, err)
			}
			x.Must(s.SetState(x.Context(), nil))
			x.Must(s.Close(x.Context()))
		}
		raw, err = q.AcceptSession(x.Context(), "s1", time.Second)
		x.Must(err)
		x.Must(raw.(driver.StatefulSession).SetState(x.Context(), []byte("plain")))
		x.Must(raw.Close(x.Context()))
		s = take(r, "s1")
		if b, err := s.State(x.Context()); !errors.Is(err, queue.ErrUnencryptedMessage) {
			x.Errorf("State = %q, %v; want ErrUnencryptedMessage", b, err)
		}
		x.Must(s.Close(x.Context()))
		x.Inject(orders, driver.Message{ID: "state", Body: stored})
		x.None(r, queue.ErrAuthenticationFailed)
	})
}

// A state is bound to its queue: the session of that name in another queue, with
// the same key, does not read it.
func TestSessionStateMovedToAnotherQueue(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s, err := x.Receiver(orders, nil).AcceptSession(x.Context(), "s")
		x.Must(err)
		x.Must(s.SetState(x.Context(), []byte("progress")))
		x.Must(s.Close(x.Context()))
		raw := func(name string) driver.StatefulSession {
			q, err := x.Broker.Connect().Open(x.Context(), name, nil)
			x.Must(err)
			s, err := q.AcceptSession(x.Context(), "s", time.Second)
			x.Must(err)
			return s.(driver.StatefulSession)
		}
		from, to := raw(orders), raw("ledger")
		stored, err := from.State(x.Context())
		x.Must(err)
		x.Must(to.SetState(x.Context(), stored))
		x.Must(from.Close(x.Context()))
		x.Must(to.Close(x.Context()))
		s, err = x.Receiver("ledger", nil).AcceptSession(x.Context(), "s")
		x.Must(err)
		if b, err := s.State(x.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
			x.Errorf("State = %q, %v; want ErrAuthenticationFailed", b, err)
		}
		x.Must(s.Close(x.Context()))
	})
}
