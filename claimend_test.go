package queue_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay"
)

// A claim that the store granted although the receiver got no answer, or one that it does
// not use, ends with the attempt: the message is not busy for another receiver.
func TestClaimWithoutAnAnswerIsReleased(t *testing.T) {
	for name, lose := range map[string]func(context.CancelFunc, []replay.Claim) ([]replay.Claim, error){
		"an error":        func(context.CancelFunc, []replay.Claim) ([]replay.Claim, error) { return nil, errors.New("reset") },
		"too few answers": func(_ context.CancelFunc, c []replay.Claim) ([]replay.Claim, error) { return c[:1], nil },
		"an error beside": func(_ context.CancelFunc, c []replay.Claim) ([]replay.Claim, error) { return c, errors.New("reset") },
		"the caller left": func(cancel context.CancelFunc, _ []replay.Claim) ([]replay.Claim, error) {
			cancel()
			return nil, context.Canceled
		},
		"another store": func(_ context.CancelFunc, c []replay.Claim) ([]replay.Claim, error) {
			c[1].Stamp.ID[0] ^= 1
			return c, nil
		},
		"the caller is gone": func(cancel context.CancelFunc, c []replay.Claim) ([]replay.Claim, error) { cancel(); return c, nil },
	} {
		t.Run(name, func(t *testing.T) {
			inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
				const n = 3
				for range n {
					x.Send(&queue.Message{Body: []byte("a")})
				}
				r, other := x.Receiver(orders, nil), x.receiverOf(x.hostile(&hostileBroker{}, time.Hour, nil), nil)
				ctx, cancel := context.WithCancel(x.Context())
				defer cancel()
				s.begin = func(ctx context.Context, all []replay.Request) ([]replay.Claim, error) {
					s.begin = nil
					claims, err := s.Store.Begin(ctx, orders, all)
					x.Must(err)
					return lose(cancel, claims)
				}
				got, err := r.Receive(ctx, n)
				if len(got) == n {
					x.Fatalf("all were delivered, %v", err)
				}
				x.Wait(2 * time.Second) // that is the delay of what was given back
				rest := x.Some(other.Receive(x.Context(), n))
				if busy := slices.ContainsFunc(x.Rejected, func(e *queue.RejectedError) bool { return errors.Is(e, queue.ErrNonceBusy) }); busy || len(got)+len(rest) != n {
					x.Errorf("%d and then %d of %d delivered, some busy: %t", len(got), len(rest), n, busy)
				}
				for _, d := range slices.Concat(got, rest) {
					x.Must(d.Complete(x.Context()))
				}
			})
		})
	}
}

// A store that hangs while a claim is to be ended leaves the broker its time: the message
// goes back, or to the dead letters, all the same.
func TestStoreThatHangsLeavesTheBrokerItsTime(t *testing.T) {
	hangs := func(ctx context.Context, _ []replay.Finish) ([]replay.Finished, error) { return nil, hang(ctx) }
	stats := func(x *fixture, r *queue.Receiver) driver.Stats {
		s, err := r.Stats(x.Context())
		x.Must(err)
		return s
	}
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) { // rejected after its claim
		x.Send(&queue.Message{Body: []byte("a")})
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, MaxDeliveries: 1})
		x.Must(x.One(r).Abandon(x.Context(), 0))
		s.finish = hangs
		x.None(r, queue.ErrMaxDeliveries)
		if got := stats(x, r); got.DeadLetters != 1 {
			x.Errorf("%+v, want one dead letter", got)
		}
	})
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) { // fetched and not reached
		for range 4 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Prefetch: 4})
		for d, err := range r.All(x.Context()) {
			x.Must(err)
			x.Must(d.Complete(x.Context()))
			s.finish = hangs
			break
		}
		if got := stats(x, r); got.Ready != 3 {
			x.Errorf("%+v, want three ready", got)
		}
	})
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) { // settled by the application
		for range 3 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		r := x.Receiver(orders, nil)
		all, err := r.Receive(x.Context(), 3)
		x.Must(err)
		s.finish = hangs
		ctx, cancel := context.WithTimeout(x.Context(), 4*time.Second)
		defer cancel()
		x.Must(all[0].Abandon(ctx, 0))
		x.Must(all[1].DeadLetter(x.Context(), queue.Reason{Code: "odd"}))
		x.Must(all[2].Release(x.Context(), 0))
		synctest.Wait()
		if got := stats(x, r); got.Ready != 2 || got.DeadLetters != 1 {
			x.Errorf("%+v, want two ready and one dead letter", got)
		}
	})
}

// One message whose lock has ended, or ends at once, is no outage of the store for the
// others of its batch.
func TestShortLockIsNoOutage(t *testing.T) {
	for name, lock := range map[string]time.Duration{"ended": -time.Minute, "ends now": 0, "ends soon": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
				const n = 3
				for range n {
					x.Send(&queue.Message{Body: []byte("a")})
				}
				s.begin = func(ctx context.Context, all []replay.Request) ([]replay.Claim, error) {
					select { // the round trip
					case <-time.After(20 * time.Millisecond):
						return s.Store.Begin(ctx, orders, all)
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				h := &hostileBroker{deliver: func(d []*driver.Delivery) { d[0].LockedUntil = time.Now().Add(lock) }}
				r := x.receiverOf(x.hostile(h, time.Hour, nil), nil)
				all, err := r.Receive(x.Context(), n)
				x.Must(err)
				if len(all) != n {
					x.Fatalf("%d of %d delivered, rejected %v", len(all), n, x.Rejected)
				}
				for _, d := range all {
					x.Must(d.Complete(x.Context()))
				}
			})
		})
	}
}

// A store that does not answer while the locks live is away.
func TestClaimAfterTheLocksIsAnOutage(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		x.Send(&queue.Message{Body: []byte("a")})
		s.begin = func(ctx context.Context, _ []replay.Request) ([]replay.Claim, error) { return nil, hang(ctx) }
		h := &hostileBroker{deliver: func(d []*driver.Delivery) { d[0].LockedUntil = time.Now().Add(5 * time.Second) }}
		begin := time.Now()
		x.None(x.receiverOf(x.hostile(h, time.Hour, nil), nil), queue.ErrReplayStore)
		if took := time.Since(begin); took < 5*time.Second || took > 6*time.Second {
			x.Errorf("took %s, want the 5 s of the lock", took)
		}
	})
}
