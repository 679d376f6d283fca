package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
