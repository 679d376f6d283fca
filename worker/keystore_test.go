package worker_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/replay"
)

// slowKeys is a key store that takes its time, and fails at a rate.
type slowKeys struct {
	*keys.Ring
	took time.Duration
	rate int // of failures, in percent

	mu     sync.Mutex
	random *rand.Rand
}

func (s *slowKeys) call(ctx context.Context) error {
	select {
	case <-time.After(s.took):
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.random.IntN(100) < s.rate {
		return errors.New("throttled")
	}
	return nil
}

func (s *slowKeys) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	return s.Ring.GetKey(ctx, id)
}

func (s *slowKeys) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	if err := s.call(ctx); err != nil {
		return nil, err
	}
	return s.Ring.ValidKeyIDs(ctx)
}

// overSlowKeys opens the queue for receiving with keys that come slowly, or not always; if cached,
// over a Cached of the application's own.
func overSlowKeys(t *testing.T, x *queuetest.Fixture, cached bool, took time.Duration, rate int) *queue.Receiver {
	t.Helper()
	var provider keys.Provider = &slowKeys{Ring: x.Keys, took: took, rate: rate, random: rand.New(rand.NewPCG(1, 2))}
	if cached {
		c, err := keys.NewCached(provider, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		provider = c
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := queue.Strict(provider, store)
	o.Logger = quiet()
	c, err := queue.New(x.Broker, o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Receiver(t.Context(), orders, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A key store that throttles most calls makes no message a dead letter: nothing is wrong
// with them.
func TestThrottledKeyStore(t *testing.T) {
	for _, cached := range []bool{false, true} {
		for _, rate := range []int{30, 50, 80} {
			inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, _ *queue.Receiver) {
				const n = 200
				sendSome(t, s, n)
				r := overSlowKeys(t, x, cached, 20*time.Millisecond, rate)
				var handled atomic.Int64
				runFor(t, 20*time.Hour, r, nil, func(context.Context, *queue.Delivery) error {
					handled.Add(1)
					return nil
				})
				if err := r.Client().Close(t.Context()); err != nil {
					t.Error(err)
				}
				if handled.Load() != n {
					t.Errorf("cached %t, at %d %% of failures: %d of %d messages were handled", cached, rate, handled.Load(), n)
				}
			})
		}
	}
}

// A caller that polls with a short deadline while the key store is slow uses no message up
// that it never saw.
func TestImpatientCallerAndSlowKeyStore(t *testing.T) {
	for _, cached := range []bool{false, true} {
		inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, _ *queue.Receiver) {
			const n = 20
			sendSome(t, s, n)
			r := overSlowKeys(t, x, cached, 1500*time.Millisecond, 0)
			got := 0
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				batch, err := r.Receive(ctx, 10)
				if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, queue.ErrNoMessage) {
					t.Error(err)
				}
				for _, d := range batch {
					got++
					if err := d.Complete(t.Context()); err != nil {
						t.Error(err)
					}
				}
				cancel()
			}
			if dead := x.DeadLettered(t.Context(), orders); len(dead) > 0 || got != n {
				t.Errorf("cached %t: saw %d of %d, %d dead letters", cached, got, n, len(dead))
			}
			if err := r.Client().Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Messages come for an hour while the key store takes two seconds for each answer: once the first
// has come, none waits for it.
func TestReceivingDoesNotStallForKeys(t *testing.T) {
	for _, cached := range []bool{false, true} {
		inField(t, memqueue.QueueOptions{}, func(t *testing.T, x *queuetest.Fixture, s *queue.Sender, _ *queue.Receiver) {
			r := overSlowKeys(t, x, cached, 2*time.Second, 0)
			slow := 0
			for begin := time.Now(); time.Since(begin) < time.Hour; <-time.After(500 * time.Millisecond) {
				sendSome(t, s, 1)
				at := time.Now()
				d, err := r.ReceiveOne(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Complete(t.Context()); err != nil {
					t.Fatal(err)
				}
				if time.Since(at) > time.Second {
					slow++
				}
			}
			if slow > 1 {
				t.Errorf("cached %t: %d messages waited for the key store, want the first at most", cached, slow)
			}
			if err := r.Client().Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
