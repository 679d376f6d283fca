package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// countingSessions counts what is open of a driver's sessions.
type countingSessions struct {
	driver.Broker
	caps     func(*driver.Capabilities)
	accepted atomic.Int32
	open     atomic.Int32
}

func (p *countingSessions) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &countedQueue{q, p}, err
}

type countedQueue struct {
	driver.Queue
	p *countingSessions
}

func (q *countedQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.p.caps != nil {
		q.p.caps(&c)
	}
	return c
}

func (q *countedQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	q.p.accepted.Add(1)
	q.p.open.Add(1)
	return &countedSession{Session: s, p: q.p}, nil
}

type countedSession struct {
	driver.Session
	p      *countingSessions
	closed atomic.Bool
}

func (s *countedSession) Close(ctx context.Context) error {
	if !s.closed.Swap(true) {
		s.p.open.Add(-1)
	}
	return s.Session.Close(ctx)
}

// counted returns a receiver over a client whose sessions are counted.
func (x *fixture) counted(p *countingSessions, o *queue.ReceiverOptions) *queue.Receiver {
	x.Helper()
	p.Broker = x.broker
	c, err := queue.New(p, &queue.Options{
		Keys: x.ring, ReplayStore: x.store, Logger: quiet(),
		Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true, MaxMessageAge: 2 * time.Hour},
	})
	x.must(err)
	r, err := c.Receiver(x.Context(), orders, o)
	x.must(err)
	return r
}

// A session whose lock ran out holds nothing at the driver, with or without a
// Close; one that the broker took away, after Close.
func TestLostSessionIsLetGo(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &countingSessions{}
		r := x.counted(p, &queue.ReceiverOptions{Wait: time.Second})
		x.send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
		for range 3 {
			s, err := r.NextSession(x.Context())
			x.must(err)
			x.wait(31 * time.Second)
			if !errors.Is(context.Cause(s.Context()), queue.ErrSessionLost) {
				x.Fatalf("cause %v, want ErrSessionLost", context.Cause(s.Context()))
			}
			x.must(s.Close(x.Context()))
			x.must(s.Close(x.Context()))
		}
		if n := p.open.Load(); n != 0 {
			x.Errorf("%d of 3 lost sessions are still open at the driver", n)
		}
		_, err := r.NextSession(x.Context())
		x.must(err)
		x.wait(31 * time.Second)
		if n := p.open.Load(); n != 0 {
			x.Errorf("a session that was lost and never closed is still open at the driver")
		}
	})
}

// What stands behind a message that must wait is given back with its nonce: the
// next receiver does not find it claimed.
func TestBlockedSessionReleasesClaims(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		x.must(x.ring.Add(newKey(x.T, "k2", 9)))
		x.must(x.ring.SetCurrent("k2"))
		x.send(&queue.Message{ID: "m0", SessionID: "s", Body: []byte{0}})
		x.must(x.ring.SetCurrent("k1"))
		for i := 1; i < 4; i++ {
			x.send(&queue.Message{ID: fmt.Sprint("m", i), SessionID: "s", Body: []byte{byte(i)}})
		}
		bot := newRing(x.T, "k1")
		r := x.receiver(orders, &queue.ReceiverOptions{Keys: bot, Wait: time.Second})
		s, err := r.NextSession(x.Context())
		x.must(err)
		if _, err := s.Receive(x.Context(), 10); !errors.Is(err, queue.ErrKeyNotFound) {
			x.Fatalf("Receive = %v, want ErrKeyNotFound", err)
		}
		x.must(bot.Add(newKey(x.T, "k2", 9)))
		x.wait(x.rejected[0].Delay)
		s, err = r.AcceptSession(x.Context(), "s")
		x.must(err)
		batch, err := s.Receive(x.Context(), 10)
		x.must(err)
		var got []string
		for _, d := range batch {
			got = append(got, d.ID)
			x.must(d.Complete(x.Context()))
		}
		if !slices.Equal(got, []string{"m0", "m1", "m2", "m3"}) {
			x.Errorf("received %v, want m0 to m3: what was given back unseen must not be claimed", got)
		}
	})
}

// The end of a Client is that of its sessions: whoever waits for the context of one
// learns it at once, and not when the lock would have run out.
func TestSessionEndsWithClient(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.send(&queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
		s, err := x.receiver(orders, nil).NextSession(x.Context())
		x.must(err)
		begin := time.Now()
		x.must(x.client.Close(x.Context()))
		<-s.Context().Done()
		if took := time.Since(begin); took > 0 || !errors.Is(context.Cause(s.Context()), queue.ErrClosed) {
			x.Errorf("the session's context ended %s after the client's Close, by %v", took, context.Cause(s.Context()))
		}
		x.must(s.Close(x.Context()))
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
				x.must(err)
				x.must(s.SetState(x.Context(), []byte("secrets of tenant a")))
				x.must(s.Close(x.Context()))
				raw := func(id string) driver.StatefulSession {
					q, err := x.broker.Connect().Open(x.Context(), orders, nil)
					x.must(err)
					s, err := q.AcceptSession(x.Context(), id, time.Second)
					x.must(err)
					return s.(driver.StatefulSession)
				}
				// The broker keeps the state of A where the session of B is.
				a, b := raw("tenant-a"), raw("tenant-b")
				state, err := a.State(x.Context())
				x.must(err)
				x.must(b.SetState(x.Context(), state))
				x.must(a.Close(x.Context()))
				x.must(b.Close(x.Context()))
				x.send(&queue.Message{ID: "b-1", SessionID: "tenant-b", Body: []byte("order of tenant b")})
				h.session = func(string) string { return "tenant-a" }
				if moved == "" {
					// The message has no session; the broker stores it in one, and hides that.
					x.rewrite(orders, func([]driver.Message) []driver.Message { return nil })
					x.send(&queue.Message{ID: "b-1", Body: []byte("order without a tenant")})
					x.rewrite(orders, func(all []driver.Message) []driver.Message {
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
				x.must(err)
				if got, err := s.State(x.Context()); string(got) != "secrets of tenant a" || err != nil || s.ID() != "tenant-a" {
					x.Fatalf("session %q, state %q, %v: the attack was not set up", s.ID(), got, err)
				}
				d, err := s.ReceiveOne(x.Context())
				if !errors.Is(err, queue.ErrAuthenticationFailed) {
					x.Fatalf("ReceiveOne = %v, %v, want ErrAuthenticationFailed", d, err)
				}
				if got := x.deadReasons(orders); !slices.Equal(got, []string{"authentication_failed"}) {
					x.Errorf("dead letters %v", got)
				}
				x.must(s.Close(x.Context()))
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
				b.Broker = x.broker.Connect()
				b.deliver = func(d []*driver.Delivery) {
					for _, d := range d {
						if hidden {
							d.SessionID = ""
						}
					}
				}
				c, err := queue.New(b, &queue.Options{Keys: x.ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject}})
				x.must(err)
				r := x.receiverOf(c, nil)
				if hidden {
					x.send(&queue.Message{ID: "m", Body: []byte("a")})
					x.rewrite(orders, func(all []driver.Message) []driver.Message {
						all[0].SessionID = "group-of-m" // by which the broker keeps it
						return all
					})
				} else {
					x.send(&queue.Message{ID: "m", SessionID: "tenant-a", Body: []byte("a")})
				}
				s, err := r.NextSession(x.Context())
				x.must(err)
				d, err := s.ReceiveOne(x.Context())
				switch {
				case hidden && err != nil:
					x.Errorf("ReceiveOne: %v", err)
				case !hidden && !errors.Is(err, queue.ErrAuthenticationFailed):
					x.Errorf("ReceiveOne = %v, %v, want ErrAuthenticationFailed", d, err)
				}
				x.must(s.Close(x.Context()))
				x.must(c.Close(x.Context()))
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
		x.must(err)
		x.must(s.Close(x.Context()))
	})
}

// A session without a name has no state, and no name of the broker's choice: its handler
// would take both for those of a session that the broker names.
func TestSessionOfAMessageHasNoName(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.receiver(orders, nil)
		a, err := r.AcceptSession(x.Context(), "tenant-a")
		x.must(err)
		x.must(a.SetState(x.Context(), []byte("secrets of tenant a")))
		x.must(a.Close(x.Context()))
		q, err := x.broker.Connect().Open(x.Context(), orders, nil)
		x.must(err)
		raw, err := q.AcceptSession(x.Context(), "tenant-a", time.Second)
		x.must(err)
		state, err := raw.(driver.StatefulSession).State(x.Context())
		x.must(err)
		x.must(raw.Close(x.Context()))
		h := &hostileBroker{session: func(string) string { return "tenant-a" }, state: state}
		x.send(&queue.Message{ID: "alone", Body: []byte("a")})
		s, err := x.receiverOf(x.hostile(h, 5*time.Minute, nil), nil).NextSession(x.Context())
		x.must(err)
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
		x.must(err)
		x.must(d.Complete(x.Context()))
		x.must(s.Close(x.Context()))
	})
}

// Messages without a session that wait for a key use up no session's wait.
func TestMessagesWithoutASessionBlockNone(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		r := x.receiver(orders, nil)
		for i := range 3 {
			x.inject(orders, driver.Message{ID: fmt.Sprint("f", i), Body: []byte("QRE1\x02")})
			x.inject(orders, x.sealed(fmt.Sprint("good", i), time.Now(), time.Time{}))
		}
		good := 0
		for good < 3 {
			s, err := r.NextSession(x.Context())
			x.must(err)
			if d, err := s.ReceiveOne(x.Context()); err == nil {
				x.must(d.Complete(x.Context()))
				good++
			}
			x.must(s.Close(x.Context()))
		}
		if n := len(x.deadReasons(orders)); n != 3 {
			x.Errorf("%d dead letters, want the 3 of a version that no sender may use", n)
		}
	})
}
