package queue_test

import (
	"context"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/replay"
)

// hookedStore is a replay store whose calls a test can replace. A hook that is nil leaves
// its call alone.
type hookedStore struct {
	replay.Store
	begin  func(context.Context, []replay.Request) ([]replay.Claim, error)
	renew  func(context.Context, []replay.Lease) ([]replay.Renewed, error)
	finish func(context.Context, []replay.Finish) ([]replay.Finished, error)
	note   func(context.Context, []replay.Note) ([]replay.Noted, error)
}

func (s *hookedStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	if s.begin != nil {
		return s.begin(ctx, r)
	}
	return s.Store.Begin(ctx, group, r)
}

func (s *hookedStore) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	if s.renew != nil {
		return s.renew(ctx, l)
	}
	return s.Store.Renew(ctx, group, l)
}

func (s *hookedStore) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	if s.finish != nil {
		return s.finish(ctx, f)
	}
	return s.Store.Finish(ctx, group, f)
}

func (s *hookedStore) Note(ctx context.Context, group string, n []replay.Note) ([]replay.Noted, error) {
	if s.note != nil {
		return s.note(ctx, n)
	}
	return s.Store.Note(ctx, group, n)
}

// hang waits for the end of a call: a store that never answers.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// inHookedBubble is inBubble over a hookedStore.
func inHookedBubble(t *testing.T, change func(*fixture, *queue.Options), f func(*fixture, *hookedStore)) {
	t.Helper()
	store := &hookedStore{}
	hooked := func(x *fixture, o *queue.Options) {
		if change != nil {
			change(x, o)
		}
		store.Store = x.store
		x.store, o.ReplayStore = store, store
	}
	inBubble(t, hooked, func(x *fixture) { f(x, store) })
}

// A store that answers no note holds the good messages of a batch up for a moment only.
func TestNoteThatHangs(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		s.note = func(ctx context.Context, _ []replay.Note) ([]replay.Noted, error) { return nil, hang(ctx) }
		x.send(&queue.Message{ID: "good", Body: []byte("a")})
		x.inject(orders, x.sealed("old", time.Now().Add(-time.Hour), time.Time{}))
		r := x.receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Crypto: &queue.CryptoConfig{
			Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: time.Minute,
		}})
		begin := time.Now()
		ds, err := r.Receive(x.Context(), 10)
		x.must(err)
		if took := time.Since(begin); len(ds) != 1 || len(x.rejected) != 1 || took > 3*time.Second {
			x.Fatalf("%d delivered and %d rejected after %s, want one each within 3 s", len(ds), len(x.rejected), took)
		}
		x.must(ds[0].Complete(x.Context()))
	})
}
