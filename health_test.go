package queue

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// told is an Observer that keeps what it is told.
type told struct {
	observe.Nop
	events []string
}

func (o *told) Paused(_ context.Context, _ observe.Source, e observe.Paused) {
	o.events = append(o.events, "paused "+e.Reason)
}

func (o *told) Resumed(_ context.Context, _ observe.Source, e observe.Resumed) {
	o.events = append(o.events, "resumed "+e.Reason)
}

// Where one outage follows on another, each that was reported is also reported to be
// over: otherwise its alert would never end.
func TestOutageAfterOutage(t *testing.T) {
	o := &told{}
	h := &health{r: &Receiver{endpoint: &endpoint{obs: observe.NewScope(o, observe.Source{Queue: "orders"}), log: slog.New(slog.DiscardHandler)}}}
	away := errors.New("away")
	h.suspend(t.Context(), driver.ReasonReplayStore, "k1", away, false)
	h.suspend(t.Context(), driver.ReasonReplayStore, "k1", away, true)
	h.suspend(t.Context(), driver.ReasonKeyProvider, "k1", away, false) // of a message that was on its way
	h.suspend(t.Context(), driver.ReasonKeyProvider, "k1", away, true)  // the message that was let through
	h.recovered(t.Context())
	want := []string{
		"paused " + driver.ReasonReplayStore, "resumed " + driver.ReasonReplayStore,
		"paused " + driver.ReasonKeyProvider, "resumed " + driver.ReasonKeyProvider,
	}
	if !slices.Equal(o.events, want) {
		t.Errorf("told %q, want %q", o.events, want)
	}
}

// slowStore is a replay store that answers a Renew, which is how an outage is looked
// at, after a while, or when the call ends.
type slowStore struct {
	replay.NonceStore
	after time.Duration
	calls atomic.Int32
}

func (s *slowStore) Renew(ctx context.Context, _ string, _ replay.ID, _ string, _ time.Duration) error {
	s.calls.Add(1)
	if !sleepUntil(ctx, time.Now().Add(s.after)) {
		return ctx.Err()
	}
	return replay.ErrClaimLost
}

// impatientContext ends once it was asked for its end more often than anybody who
// waits has to.
type impatientContext struct {
	context.Context
	asked atomic.Int32
}

func (c *impatientContext) Err() error {
	if c.asked.Add(1) > 1000 {
		return context.Canceled
	}
	return c.Context.Err()
}

func outageOf(s replay.NonceStore) *health {
	h := &health{r: &Receiver{nonces: s, endpoint: &endpoint{obs: observe.NewScope(nil, observe.Source{}), log: slog.New(slog.DiscardHandler)}}}
	h.suspend(context.Background(), driver.ReasonReplayStore, keys.ID(""), errors.New("away"), false)
	return h
}

// While one caller waits for the answer that ends an outage, longer than the delay
// between two looks, the others sleep: they neither spin nor ask beside it.
func TestOthersSleepWhileOneAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowStore{after: 10 * time.Second}
		h := outageOf(store)
		deadline := time.Now().Add(time.Minute)
		admit := func(ctx context.Context, errs chan<- error) {
			_, err := h.admit(ctx, 1, deadline)
			errs <- err
		}
		asker, others := make(chan error, 1), make(chan error, 3)
		go admit(t.Context(), asker)
		time.Sleep(outageFirstDelay + time.Millisecond)
		for range cap(others) {
			go admit(&impatientContext{Context: t.Context()}, others)
		}
		if err := <-asker; err != nil {
			t.Errorf("the caller who asked: %v", err)
		}
		for range cap(others) {
			if err := <-others; err != nil {
				t.Errorf("a caller who waited beside it: %v", err)
			}
		}
		if n := store.calls.Load(); n != 1 {
			t.Errorf("%d looks, want 1", n)
		}
	})
}

// A look that is never answered does not keep all others from looking: receiving
// resumes when the provider is back.
func TestLookThatHangsIsNotTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &slowStore{after: time.Hour}
		h := outageOf(store)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := h.admit(ctx, 1, time.Now().Add(20*time.Second)); err == nil || ctx.Err() != nil {
			t.Fatalf("admitted while the store hangs: %v, context: %v", err, ctx.Err())
		}
		store.after = 0
		if _, err := h.admit(t.Context(), 1, time.Now().Add(time.Minute)); err != nil {
			t.Errorf("not admitted although the store answers: %v", err)
		}
	})
}
