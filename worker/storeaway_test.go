package worker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

var errAway = errors.New("connection reset")

// awayStore is a replay store that does not answer while it is away, and otherwise once in
// twenty times not. What it was asked for may have happened all the same.
type awayStore struct {
	replay.Store

	mu   sync.Mutex // guards what follows
	away bool
	r    *rand.Rand
}

func (s *awayStore) goAway(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

// call performs a call to the store, or not, and says whether it answers.
func (s *awayStore) call(do func()) error {
	s.mu.Lock()
	lost := s.away || s.r.IntN(20) == 0
	happens := !lost || s.r.IntN(2) == 0
	s.mu.Unlock()
	if happens {
		do()
	}
	if lost {
		return errAway
	}
	return nil
}

func (s *awayStore) Begin(ctx context.Context, group string, r []replay.Request) (c []replay.Claim, err error) {
	if lost := s.call(func() { c, err = s.Store.Begin(ctx, group, r) }); lost != nil {
		return nil, lost
	}
	return c, err
}

func (s *awayStore) Renew(ctx context.Context, group string, l []replay.Lease) (r []replay.Renewed, err error) {
	if lost := s.call(func() { r, err = s.Store.Renew(ctx, group, l) }); lost != nil {
		return nil, lost
	}
	return r, err
}

func (s *awayStore) Finish(ctx context.Context, group string, f []replay.Finish) (r []replay.Finished, err error) {
	if lost := s.call(func() { r, err = s.Store.Finish(ctx, group, f) }); lost != nil {
		return nil, lost
	}
	return r, err
}

func (s *awayStore) Probe(ctx context.Context, group string) (err error) {
	if lost := s.call(func() { err = s.Store.Probe(ctx, group) }); lost != nil {
		return lost
	}
	return err
}

// Several queues of one pool share a group of a replay store that is away for minutes, with
// calls under way: everything is completed once, soon after it is back, and nothing is a dead
// letter.
func TestStoreOfSeveralQueuesAway(t *testing.T) {
	const each = 40
	queues := []string{orders, "bills", "mails"}
	for seed := range uint64(soak(10, 1000)) {
		store := &awayStore{r: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // G404: a schedule, not a secret
		inBubble(t, func(x *fixture, o *queue.Options) {
			store.Store, o.ReplayStore, o.Logger = x.Store, store, quiet()
			o.Crypto.MaxMessageAge = 24 * time.Hour
		}, func(x *fixture) {
			var mu sync.Mutex
			completed := make(map[string]int)
			h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
				time.Sleep(time.Duration(1+len(d.ID)%3) * time.Second)
				err := d.Complete(ctx)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					completed[d.ID]++
				}
				return err
			})
			p, err := worker.New(&worker.Options{Concurrency: 6})
			x.Must(err)
			for _, q := range queues {
				s := x.Sender(q)
				for i := range each {
					_, err := s.Send(x.Context(), &queue.Message{ID: fmt.Sprint(q, i), Body: []byte("a")})
					x.Must(err)
				}
				r, err := x.Client.Receiver(x.Context(), q, &queue.ReceiverOptions{Wait: time.Second, Group: "all"})
				x.Must(err)
				x.Must(p.Handle(r, h, nil))
			}
			ctx, cancel := context.WithCancel(x.Context())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			x.Wait(5 * time.Second)
			store.goAway(true)
			x.Wait(4 * time.Minute)
			store.goAway(false)
			x.Wait(10 * time.Minute)
			cancel()
			x.Must(<-done)
			for _, q := range queues {
				if waiting, dead := len(x.Stored(q)), x.DeadReasons(q); waiting > 0 || len(dead) > 0 {
					x.Errorf("seed %d: %s has %d waiting and dead letters %v", seed, q, waiting, dead)
				}
			}
			for id, n := range completed {
				if n > 1 {
					x.Errorf("seed %d: %s was completed %d times", seed, id, n)
				}
			}
		})
	}
}
