package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
)

// A session whose lock ran out holds nothing at the driver, with or without a
// Close; one that the broker took away, after Close.
func TestLostSessionIsLetGo(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.SessionCounter{}
		r := x.CountSessions(p, &queue.ReceiverOptions{Wait: time.Second})
		x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
		for range 3 {
			s, err := r.NextSession(x.Context())
			x.Must(err)
			x.Wait(31 * time.Second)
			if !errors.Is(context.Cause(s.Context()), queue.ErrSessionLost) {
				x.Fatalf("cause %v, want ErrSessionLost", context.Cause(s.Context()))
			}
			x.Must(s.Close(x.Context()))
			x.Must(s.Close(x.Context()))
		}
		if n := p.Held.Load(); n != 0 {
			x.Errorf("%d of 3 lost sessions are still open at the driver", n)
		}
		_, err := r.NextSession(x.Context())
		x.Must(err)
		x.Wait(31 * time.Second)
		if n := p.Held.Load(); n != 0 {
			x.Errorf("a session that was lost and never closed is still open at the driver")
		}
	})
}

// What stands behind a message that must wait is given back with its nonce: the
// next receiver does not find it claimed.
func TestBlockedSessionReleasesClaims(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 9)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Send(&queue.Message{ID: "m0", SessionID: "s", Body: []byte{0}})
		x.Must(x.Ring.SetCurrent("k1"))
		for i := 1; i < 4; i++ {
			x.Send(&queue.Message{ID: fmt.Sprint("m", i), SessionID: "s", Body: []byte{byte(i)}})
		}
		bot := newRing(x.T, "k1")
		r := x.Receiver(orders, &queue.ReceiverOptions{Keys: bot, Wait: time.Second})
		s, err := r.NextSession(x.Context())
		x.Must(err)
		if _, err := s.Receive(x.Context(), 10); !errors.Is(err, queue.ErrKeyNotFound) {
			x.Fatalf("Receive = %v, want ErrKeyNotFound", err)
		}
		x.Must(bot.Add(newKey(x.T, "k2", 9)))
		x.Wait(x.Rejected[0].Delay)
		s, err = r.AcceptSession(x.Context(), "s")
		x.Must(err)
		batch, err := s.Receive(x.Context(), 10)
		x.Must(err)
		var got []string
		for _, d := range batch {
			got = append(got, d.ID)
			x.Must(d.Complete(x.Context()))
		}
		if !slices.Equal(got, []string{"m0", "m1", "m2", "m3"}) {
			x.Errorf("received %v, want m0 to m3: what was given back unseen must not be claimed", got)
		}
	})
}

// Closing a Client ends its sessions: their contexts end at once, and not when the locks
// would have run out.
func TestSessionEndsWithClient(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
		s, err := x.Receiver(orders, nil).NextSession(x.Context())
		x.Must(err)
		begin := time.Now()
		x.Must(x.Client.Close(x.Context()))
		<-s.Context().Done()
		if took := time.Since(begin); took > 0 || !errors.Is(context.Cause(s.Context()), queue.ErrClosed) {
			x.Errorf("the session's context ended %s after the client's Close, by %v", took, context.Cause(s.Context()))
		}
		x.Must(s.Close(x.Context()))
	})
}

// A session gives its own messages alone, whatever the broker calls it: an authentic
// message of tenant B never comes beside the authentic state of tenant A. It is
// dead-lettered as one that was moved.
func TestMessageOfAnotherSession(t *testing.T) {
	for name, moved := range map[string]string{"another session's": "tenant-b", "without a session": ""} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				h := &hostileBroker{}
				r := x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil)
				s, err := r.AcceptSession(x.Context(), "tenant-a")
				x.Must(err)
				x.Must(s.SetState(x.Context(), []byte("secrets of tenant a")))
				x.Must(s.Close(x.Context()))
				raw := func(id string) driver.StatefulSession {
					q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
					x.Must(err)
					s, err := q.AcceptSession(x.Context(), id, time.Second)
					x.Must(err)
					return s.(driver.StatefulSession)
				}
				// The broker keeps the state of A where the session of B is.
				a, b := raw("tenant-a"), raw("tenant-b")
				state, err := a.State(x.Context())
				x.Must(err)
				x.Must(b.SetState(x.Context(), state))
				x.Must(a.Close(x.Context()))
				x.Must(b.Close(x.Context()))
				x.Send(&queue.Message{ID: "b-1", SessionID: "tenant-b", Body: []byte("order of tenant b")})
				h.session = func(string) string { return "tenant-a" }
				if moved == "" {
					// The message has no session; the broker stores it in one, and hides that.
					x.Rewrite(orders, func([]driver.Message) []driver.Message { return nil })
					x.Send(&queue.Message{ID: "b-1", Body: []byte("order without a tenant")})
					x.Rewrite(orders, func(all []driver.Message) []driver.Message {
						all[0].SessionID = "tenant-b"
						return all
					})
					h.deliver = func(d []*driver.Delivery) {
						for _, d := range d {
							d.SessionID = ""
						}
					}
				}
				s, err = r.NextSession(x.Context())
				x.Must(err)
				if got, err := s.State(x.Context()); string(got) != "secrets of tenant a" || err != nil || s.ID() != "tenant-a" {
					x.Fatalf("session %q, state %q, %v: the attack was not set up", s.ID(), got, err)
				}
				d, err := s.ReceiveOne(x.Context())
				if !errors.Is(err, queue.ErrAuthenticationFailed) {
					x.Fatalf("ReceiveOne = %v, %v, want ErrAuthenticationFailed", d, err)
				}
				if got := x.DeadReasons(orders); !slices.Equal(got, []string{"authentication_failed"}) {
					x.Errorf("dead letters %v", got)
				}
				x.Must(s.Close(x.Context()))
			})
		})
	}
}

// unnamedBroker gives each message without a session a session of its own, as SQS does.
type unnamedBroker struct{ hostileBroker }

func (b *unnamedBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.hostileBroker.Open(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return unnamedQueue{q}, nil
}

type unnamedQueue struct{ driver.Queue }

func (q unnamedQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	return unnamedSession{s}, err
}

type unnamedSession struct{ driver.Session }

func (unnamedSession) Unnamed() bool { return true }

// On a broker that makes a session of each message without one, that message is delivered,
// and one of another session is not.
func TestUnnamedSession(t *testing.T) {
	for _, hidden := range []bool{true, false} {
		t.Run(fmt.Sprintf("session ID hidden %t", hidden), func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				b := &unnamedBroker{}
				b.Broker = x.Broker.Connect()
				b.deliver = func(d []*driver.Delivery) {
					for _, d := range d {
						if hidden {
							d.SessionID = ""
						}
					}
				}
				c, err := queue.New(b, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject}})
				x.Must(err)
				r := x.receiverOf(c, nil)
				if hidden {
					x.Send(&queue.Message{ID: "m", Body: []byte("a")})
					x.Rewrite(orders, func(all []driver.Message) []driver.Message {
						all[0].SessionID = "group-of-m" // by which the broker keeps it
						return all
					})
				} else {
					x.Send(&queue.Message{ID: "m", SessionID: "tenant-a", Body: []byte("a")})
				}
				s, err := r.NextSession(x.Context())
				x.Must(err)
				d, err := s.ReceiveOne(x.Context())
				switch {
				case hidden && err != nil:
					x.Errorf("ReceiveOne: %v", err)
				case !hidden && !errors.Is(err, queue.ErrAuthenticationFailed):
					x.Errorf("ReceiveOne = %v, %v, want ErrAuthenticationFailed", d, err)
				}
				x.Must(s.Close(x.Context()))
				x.Must(c.Close(x.Context()))
			})
		})
	}
}

// A session is asked for by its ID, and no other is taken for it.
func TestAcceptSessionGetsTheOneItAskedFor(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		h := &hostileBroker{session: func(string) string { return "tenant-b" }}
		r := x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil)
		s, err := r.AcceptSession(x.Context(), "tenant-a")
		if !errors.Is(err, queue.ErrAuthenticationFailed) || !strings.Contains(err.Error(), `"tenant-b" instead of "tenant-a"`) {
			x.Fatalf("AcceptSession = %v, %v, want an error that names both", s, err)
		}
		h.session = nil // what was refused was given back at once
		s, err = r.AcceptSession(x.Context(), "tenant-a")
		x.Must(err)
		x.Must(s.Close(x.Context()))
	})
}

// A session without a name has no state, and no name of the broker's choice: its handler
// would take both for those of a session that the broker names.
func TestSessionOfAMessageHasNoName(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, nil)
		a, err := r.AcceptSession(x.Context(), "tenant-a")
		x.Must(err)
		x.Must(a.SetState(x.Context(), []byte("secrets of tenant a")))
		x.Must(a.Close(x.Context()))
		q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
		x.Must(err)
		raw, err := q.AcceptSession(x.Context(), "tenant-a", time.Second)
		x.Must(err)
		state, err := raw.(driver.StatefulSession).State(x.Context())
		x.Must(err)
		x.Must(raw.Close(x.Context()))
		h := &hostileBroker{session: func(string) string { return "tenant-a" }, state: state}
		x.Send(&queue.Message{ID: "alone", Body: []byte("a")})
		s, err := x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil).NextSession(x.Context())
		x.Must(err)
		if s.ID() != "" {
			x.Errorf("the session is called %q, want no name", s.ID())
		}
		if state, err := s.State(x.Context()); !errors.Is(err, errors.ErrUnsupported) {
			x.Errorf("State = %q, %v; want ErrUnsupported", state, err)
		}
		if err := s.SetState(x.Context(), []byte("x")); !errors.Is(err, errors.ErrUnsupported) {
			x.Errorf("SetState = %v, want ErrUnsupported", err)
		}
		d, err := s.ReceiveOne(x.Context())
		x.Must(err)
		x.Must(d.Complete(x.Context()))
		x.Must(s.Close(x.Context()))
	})
}

// Messages without a session that wait for a key use up no session's wait.
func TestMessagesWithoutASessionBlockNone(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		r := x.Receiver(orders, nil)
		for i := range 3 {
			x.Inject(orders, driver.Message{ID: fmt.Sprint("f", i), Body: []byte("QRE1\x02")})
			x.Inject(orders, x.sealed(fmt.Sprint("good", i), time.Now(), time.Time{}))
		}
		good := 0
		for good < 3 {
			s, err := r.NextSession(x.Context())
			x.Must(err)
			if d, err := s.ReceiveOne(x.Context()); err == nil {
				x.Must(d.Complete(x.Context()))
				good++
			}
			x.Must(s.Close(x.Context()))
		}
		if n := len(x.DeadReasons(orders)); n != 3 {
			x.Errorf("%d dead letters, want the 3 of a version that no sender may use", n)
		}
	})
}

// Each message without a session waits for its own key, however long others have waited.
func TestMessageWithoutASessionWaitsForItsKey(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		r := x.receiverOf(x.hostile(&hostileBroker{}, 2*time.Hour, nil), nil)
		x.Send(&queue.Message{ID: "first", Body: []byte("a")}) // so that the queue is there
		for i := range 3 {
			m := x.sealed(fmt.Sprint(i), time.Now(), time.Time{})
			m.Body = []byte(strings.Replace(string(m.Body), "\x02k1", "\x02k9", 1))
			x.Rewrite(orders, func([]driver.Message) []driver.Message { return []driver.Message{m} })
			s, err := r.NextSession(x.Context())
			x.Must(err)
			if got := x.rejected(s, queue.ErrKeyNotFound).Disposition; got != driver.Abandoned {
				x.Errorf("message %d is %s, want abandoned", i, got)
			}
			x.Wait(16 * time.Minute) // a horizon, and more
		}
	})
}

// rejected receives one message of a session, which must be rejected with that error.
func (x *fixture) rejected(s *queue.Session, want error) *queue.RejectedError {
	x.Helper()
	_, err := s.ReceiveOne(x.Context())
	var e *queue.RejectedError
	if !errors.As(err, &e) || !errors.Is(e, want) {
		x.Fatalf("ReceiveOne: %v, want %v", err, want)
	}
	return e
}
