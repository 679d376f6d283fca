package queue_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/replay"
)

// No call to the store has more items than it takes, however many messages are received,
// renewed and completed at once.
func TestNoCallAboveMaxBatch(t *testing.T) {
	const n = replay.MaxBatch + 10
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		messages := make([]*queue.Message, n)
		for i := range messages {
			messages[i] = &queue.Message{Body: []byte("a")}
		}
		_, err := x.Sender(orders).SendBatch(x.Context(), messages)
		x.Must(err)
		r := x.Receiver(orders, nil)
		all, err := r.Receive(x.Context(), n)
		x.Must(err)
		if len(all) != replay.MaxBatch {
			x.Fatalf("%d messages at once, want the %d that one call claims", len(all), replay.MaxBatch)
		}
		rest, err := r.Receive(x.Context(), n)
		x.Must(err)
		all = append(all, rest...)
		if len(all) != n {
			x.Fatalf("%d messages, want %d", len(all), n)
		}
		for i, err := range r.RenewAll(x.Context(), all) {
			if err != nil {
				x.Fatalf("renewal of message %d: %v", i, err)
			}
		}
		var calls []int
		first := make(chan struct{})
		s.finish = func(ctx context.Context, f []replay.Finish) ([]replay.Finished, error) {
			if calls = append(calls, len(f)); len(calls) == 1 {
				<-first
			}
			return s.Store.Finish(ctx, orders, f)
		}
		var wg sync.WaitGroup
		complete := func(d *queue.Delivery) {
			if err := d.Complete(x.Context()); err != nil {
				x.Errorf("Complete: %v", err)
			}
		}
		wg.Go(func() { complete(all[0]) })
		synctest.Wait()
		for _, d := range all[1:] {
			wg.Go(func() { complete(d) })
		}
		synctest.Wait()
		close(first)
		wg.Wait()
		if want := []int{1, replay.MaxBatch, n - 1 - replay.MaxBatch}; !slices.Equal(calls, want) {
			x.Errorf("calls of %v claims, want %v", calls, want)
		}
		if left := len(x.Stored(orders)); left > 0 {
			x.Errorf("%d messages are left", left)
		}
	})
}

// Claims that end together share the first call, too: on one processor all that are ready to
// run come before it.
func TestCompletionsTogetherShareACall(t *testing.T) {
	fixturetest.Processors(t, 1)
	const n = 8
	var calls []int
	for range 20 { // a round may be interrupted
		calls = nil
		inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
			for range n {
				x.Send(&queue.Message{Body: []byte("a")})
			}
			all, err := x.Receiver(orders, nil).Receive(x.Context(), n)
			x.Must(err)
			s.finish = func(ctx context.Context, f []replay.Finish) ([]replay.Finished, error) {
				calls = append(calls, len(f))
				return s.Store.Finish(ctx, orders, f)
			}
			var wg sync.WaitGroup
			for _, d := range all {
				wg.Go(func() {
					if err := d.Complete(x.Context()); err != nil {
						x.Errorf("Complete: %v", err)
					}
				})
			}
			wg.Wait()
		})
		if slices.Equal(calls, []int{n}) {
			return
		}
	}
	t.Errorf("calls of %v claims in the last round, want one of %d in some round", calls, n)
}
