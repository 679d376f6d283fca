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
		r := x.receiver(orders, nil)
		take := func(r *queue.Receiver, id string) *queue.Session {
			s, err := r.AcceptSession(x.Context(), id)
			x.must(err)
			return s
		}
		s := take(r, "s1")
		if b, err := s.State(x.Context()); b != nil || err != nil {
			x.Errorf("State = %q, %v at the beginning", b, err)
		}
		x.must(s.SetState(x.Context(), []byte("secret progress")))
		x.must(s.Close(x.Context()))
		s = take(r, "s1")
		if b, err := s.State(x.Context()); string(b) != "secret progress" || err != nil {
			x.Errorf("State = %q, %v", b, err)
		}
		x.must(s.Close(x.Context()))

		// What the broker has.
		q, err := x.broker.Connect().Open(x.Context(), orders, nil)
		x.must(err)
		raw, err := q.AcceptSession(x.Context(), "s1", time.Second)
		x.must(err)
		stored, err := raw.(driver.StatefulSession).State(x.Context())
		x.must(err)
		if bytes.Contains(stored, []byte("secret")) {
			x.Error("the broker has the state in plaintext")
		}
		// It moves the state to another session, alters it, replaces it, and
		// delivers it as a message.
		other, err := q.AcceptSession(x.Context(), "s2", time.Second)
		x.must(err)
		x.must(other.(driver.StatefulSession).SetState(x.Context(), stored))
		x.must(other.Close(x.Context()))
		altered := bytes.Clone(stored)
		altered[len(altered)-1] ^= 1
		x.must(raw.(driver.StatefulSession).SetState(x.Context(), altered))
		x.must(raw.Close(x.Context()))
		for _, id := range []string{"s1", "s2"} {
			s := take(r, id)
			if b, err := s.State(x.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
				x.Errorf("%s: State = %q, %v; want ErrAuthenticationFailed", id, b, err)
			}
			x.must(s.SetState(x.Context(), nil))
			x.must(s.Close(x.Context()))
		}
		raw, err = q.AcceptSession(x.Context(), "s1", time.Second)
		x.must(err)
		x.must(raw.(driver.StatefulSession).SetState(x.Context(), []byte("plain")))
		x.must(raw.Close(x.Context()))
		s = take(r, "s1")
		if b, err := s.State(x.Context()); !errors.Is(err, queue.ErrUnencryptedMessage) {
			x.Errorf("State = %q, %v; want ErrUnencryptedMessage", b, err)
		}
		x.must(s.Close(x.Context()))
		x.inject(orders, driver.Message{ID: "state", Body: stored})
		x.none(r, queue.ErrAuthenticationFailed)
	})
}

// A state is bound to its queue: the session of that name in another queue, with
// the same key, does not read it.
func TestSessionStateMovedToAnotherQueue(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s, err := x.receiver(orders, nil).AcceptSession(x.Context(), "s")
		x.must(err)
		x.must(s.SetState(x.Context(), []byte("progress")))
		x.must(s.Close(x.Context()))
		raw := func(name string) driver.StatefulSession {
			q, err := x.broker.Connect().Open(x.Context(), name, nil)
			x.must(err)
			s, err := q.AcceptSession(x.Context(), "s", time.Second)
			x.must(err)
			return s.(driver.StatefulSession)
		}
		from, to := raw(orders), raw("ledger")
		stored, err := from.State(x.Context())
		x.must(err)
		x.must(to.SetState(x.Context(), stored))
		x.must(from.Close(x.Context()))
		x.must(to.Close(x.Context()))
		s, err = x.receiver("ledger", nil).AcceptSession(x.Context(), "s")
		x.must(err)
		if b, err := s.State(x.Context()); !errors.Is(err, queue.ErrAuthenticationFailed) {
			x.Errorf("State = %q, %v; want ErrAuthenticationFailed", b, err)
		}
		x.must(s.Close(x.Context()))
	})
}
