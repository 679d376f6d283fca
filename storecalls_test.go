package queue_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
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
		store.Store = x.Store
		x.Store, o.ReplayStore = store, store
	}
	inBubble(t, hooked, func(x *fixture) { f(x, store) })
}

// A caller that leaves while the store is asked gets nothing without a claim, and the next one all.
func TestBeginThatHangs(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		for i := range 3 {
			x.Must(second(x.Sender(orders).Send(x.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("a")})))
		}
		r := x.Receiver(orders, nil)
		s.begin = func(ctx context.Context, _ []replay.Request) ([]replay.Claim, error) { return nil, hang(ctx) }
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		if d, err := r.Receive(ctx, 3); len(d) > 0 || !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("%d messages, %v", len(d), err)
		}
		s.begin = nil
		handled := map[string]bool{}
		for len(handled) < 3 {
			d := x.One(r)
			if _, _, ok := d.Claim(); !ok || handled[d.ID] {
				x.Errorf("message %s: claimed %v, handled before %v", d.ID, ok, handled[d.ID])
			}
			handled[d.ID] = true
			x.Must(d.Complete(x.Context()))
		}
	})
}

// keysAway is a replay store that does not say which keys opened messages.
type keysAway struct{ replay.Store }

func (keysAway) KnownKeys(ctx context.Context, _ string) ([]replay.KnownKey, error) {
	return nil, hang(ctx)
}

// What a call waits for the store's known keys is part of what it waits for a message.
func TestKnownKeysThatHang(t *testing.T) {
	away := func(x *fixture, o *queue.Options) { o.ReplayStore = keysAway{x.Store} }
	inBubble(t, away, func(x *fixture) {
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: 10 * time.Second})
		begin := time.Now()
		x.Nothing(r.Receive(x.Context(), 1))
		if took := time.Since(begin); took != 10*time.Second {
			x.Errorf("Receive took %s, want 10 s", took)
		}
	})
}

// A claim is released also under a context without a deadline, and the message is free at once.
func TestReleaseWithoutDeadline(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		x.Must(second(x.Sender(orders).Send(x.Context(), &queue.Message{Body: []byte("a")})))
		r := x.Receiver(orders, nil)
		d := x.One(r)
		released := 0
		s.finish = func(ctx context.Context, f []replay.Finish) ([]replay.Finished, error) {
			if end, ok := ctx.Deadline(); !ok || time.Until(end) <= 0 || ctx.Err() != nil {
				x.Errorf("the store has until %v, %v", end, ctx.Err())
			}
			released += len(f)
			return s.Store.Finish(ctx, "", f)
		}
		x.Must(d.Abandon(context.Background(), 0))
		if released != 1 {
			x.Errorf("%d claims were released, want 1", released)
		}
	})
}

// A store that answers no note holds the good messages of a batch up for a moment only.
func TestNoteThatHangs(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		s.note = func(ctx context.Context, _ []replay.Note) ([]replay.Noted, error) { return nil, hang(ctx) }
		x.Send(&queue.Message{ID: "good", Body: []byte("a")})
		x.Inject(orders, x.sealed("old", time.Now().Add(-time.Hour), time.Time{}))
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Crypto: &queue.CryptoConfig{
			Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true, MaxMessageAge: time.Minute,
		}})
		begin := time.Now()
		ds, err := r.Receive(x.Context(), 10)
		x.Must(err)
		if took := time.Since(begin); len(ds) != 1 || len(x.Rejected) != 1 || took > 3*time.Second {
			x.Fatalf("%d delivered and %d rejected after %s, want one each within 3 s", len(ds), len(x.Rejected), took)
		}
		x.Must(ds[0].Complete(x.Context()))
	})
}

// A caller of Complete leaves with its own context, whether it makes the call or waits for
// that of others.
func TestCompleteEndsWithItsContext(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		const n = 4
		for range n {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		all, err := x.Receiver(orders, nil).Receive(x.Context(), n)
		x.Must(err)
		s.finish = func(ctx context.Context, _ []replay.Finish) ([]replay.Finished, error) { return nil, hang(ctx) }
		var wg sync.WaitGroup
		for i, d := range all {
			wg.Go(func() {
				limit := time.Duration(i+1) * 3 * time.Second
				ctx, cancel := context.WithTimeout(x.Context(), limit)
				defer cancel()
				begin := time.Now()
				err := d.Complete(ctx)
				if took := time.Since(begin); err == nil || took > limit {
					x.Errorf("message %d: %v after %s, want an error after at most %s", i, err, took, limit)
				}
			})
			synctest.Wait() // the first makes the call, the others wait
		}
		wg.Wait()
		x.Wait(settleTimeout) // a call for the others may be under way
		synctest.Wait()
		s.finish = nil
		for _, d := range all {
			x.Must(d.Complete(x.Context()))
		}
	})
}

// settleTimeout is the library's own bound of a call that no caller waits for.
const settleTimeout = 15 * time.Second

// A caller waits for a store without an answer for a while and not for ever, although its
// own context has no end.
func TestCompleteWithoutADeadlineEnds(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		x.Send(&queue.Message{Body: []byte("a")})
		d := x.One(x.Receiver(orders, nil))
		s.finish = func(ctx context.Context, _ []replay.Finish) ([]replay.Finished, error) { return nil, hang(ctx) }
		s.renew = func(ctx context.Context, _ []replay.Lease) ([]replay.Renewed, error) { return nil, hang(ctx) }
		if err := d.Renew(context.Background()); !errors.Is(err, queue.ErrReplayStore) {
			x.Errorf("Renew: %v, want ErrReplayStore", err)
		}
		if err := d.Complete(context.Background()); !errors.Is(err, queue.ErrReplayStore) {
			x.Errorf("Complete: %v, want ErrReplayStore", err)
		}
		s.finish = nil
		if err := d.Complete(context.Background()); err != nil && !errors.Is(err, queue.ErrLockLost) {
			x.Errorf("Complete once the store answers: %v", err)
		}
	})
}

// A store that panics ends the calls that met it, and no later one.
func TestCompleteAfterAPanic(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		const n = 3
		for range n + 1 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		all, err := x.Receiver(orders, nil).Receive(x.Context(), n+1)
		x.Must(err)
		first := make(chan struct{})
		s.finish = func(context.Context, []replay.Finish) ([]replay.Finished, error) {
			<-first
			panic("a store's mistake")
		}
		var wg sync.WaitGroup
		for i, d := range all[:n] {
			wg.Go(func() {
				defer func() {
					if p := recover(); p != "a store's mistake" {
						x.Errorf("message %d: the panic %v, want the store's", i, p)
					}
				}()
				_ = d.Complete(x.Context())
			})
		}
		synctest.Wait()
		close(first)
		wg.Wait()
		s.renew = func(context.Context, []replay.Lease) ([]replay.Renewed, error) { panic("a store's mistake") }
		func() {
			defer func() {
				if recover() == nil {
					x.Error("Renew: no panic")
				}
			}()
			_ = all[0].Renew(x.Context())
		}()
		s.finish, s.renew = nil, nil
		x.Must(all[0].Renew(x.Context()))
		for _, d := range all { // those that met the panic can be completed, too
			x.Must(d.Complete(x.Context()))
		}
	})
}

// contexts is a replay store that keeps the context of the last call of each kind.
type contexts struct {
	replay.Store
	mu   sync.Mutex // guards last
	last map[string]context.Context
}

func (s *contexts) called(ctx context.Context, call string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[call] = ctx
}

func (s *contexts) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	s.called(ctx, "Begin")
	return s.Store.Begin(ctx, group, r)
}

func (s *contexts) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	s.called(ctx, "Renew")
	return s.Store.Renew(ctx, group, l)
}

func (s *contexts) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	s.called(ctx, fmt.Sprint("Finish ", f[0].Kind))
	return s.Store.Finish(ctx, group, f)
}

func (s *contexts) Note(ctx context.Context, group string, n []replay.Note) ([]replay.Noted, error) {
	s.called(ctx, "Note")
	return s.Store.Note(ctx, group, n)
}

func (s *contexts) KnownKeys(ctx context.Context, group string) ([]replay.KnownKey, error) {
	s.called(ctx, "KnownKeys")
	return s.Store.KnownKeys(ctx, group)
}

func (s *contexts) NoteKey(ctx context.Context, group string, k replay.KnownKey) (replay.KnownKey, error) {
	s.called(ctx, "NoteKey")
	return s.Store.NoteKey(ctx, group, k)
}

func (s *contexts) Streams(ctx context.Context, group string) iter.Seq2[replay.Stream, error] {
	s.called(ctx, "Streams")
	return s.Store.Streams(ctx, group)
}

// What a call to the store has left behind ends with it: a context that goes on keeps its timer,
// and whatever the store hangs on it.
func TestContextsOfStoreCallsEnd(t *testing.T) {
	store := &contexts{last: make(map[string]context.Context)}
	inBubble(t, func(x *fixture, o *queue.Options) { store.Store = x.Store; o.ReplayStore = store }, func(x *fixture) {
		for range 4 {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		// It is past its own end, which the store need not judge. The broker's clock is behind.
		x.Send(&queue.Message{ID: "old", Body: []byte("a"), TTL: time.Second})
		x.Rewrite(orders, func(all []driver.Message) []driver.Message {
			old := all[len(all)-1]
			old.TTL = 0
			return append([]driver.Message{old}, all[:len(all)-1]...)
		})
		x.Wait(time.Minute)
		r := x.Receiver(orders, &queue.ReceiverOptions{Wait: time.Second, Prefetch: 2})
		all, err := r.Receive(x.Context(), 3)
		x.Must(err)
		x.Must(all[0].Renew(x.Context()))
		x.Must(all[0].Complete(x.Context()))
		x.Must(all[1].DeadLetter(x.Context(), queue.Reason{Code: "a"}))
		for d, err := range r.All(x.Context()) {
			x.Must(err)
			x.Must(d.Complete(x.Context()))
			break // the other is released
		}
		synctest.Wait()
		for _, call := range []string{
			"Begin", "Renew", "Note", "KnownKeys", "NoteKey", "Streams",
			fmt.Sprint("Finish ", replay.Consumed), fmt.Sprint("Finish ", replay.Released), fmt.Sprint("Finish ", replay.Parked),
		} {
			if ctx := store.last[call]; ctx == nil || ctx.Err() == nil {
				x.Errorf("%s: the context is %v, want one that has ended", call, ctx)
			}
		}
	})
}

// A call to the store that several callers share, and that fails or brings too few answers, fails
// for each of them: none takes its message for handled.
func TestCompleteInASharedCallThatFails(t *testing.T) {
	t.Run("an error", func(t *testing.T) { completeTogether(t, errFailing) })
	t.Run("no answer", func(t *testing.T) { completeTogether(t, nil) })
}

func completeTogether(t *testing.T, failure error) {
	t.Helper()
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		const n = 4
		for range n {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		all, err := x.Receiver(orders, nil).Receive(x.Context(), n)
		x.Must(err)
		answer := make(chan struct{})
		s.finish = func(context.Context, []replay.Finish) ([]replay.Finished, error) {
			<-answer
			return nil, failure
		}
		errs := make([]error, n)
		var wg sync.WaitGroup
		for i, d := range all {
			wg.Go(func() { errs[i] = d.Complete(x.Context()) })
		}
		synctest.Wait() // one makes the call, the others wait
		close(answer)
		wg.Wait()
		for _, err := range errs {
			x.failed("Complete", err, queue.ErrReplayStore, "complete")
		}
		s.finish = nil
		for _, d := range all {
			x.Must(d.Complete(x.Context()))
		}
	})
}

// A caller's own deadline counts, also if it is later than that of callers who have none.
func TestCompleteWithALaterDeadline(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		x.Send(&queue.Message{Body: []byte("a")})
		d := x.One(x.Receiver(orders, nil))
		s.finish = func(ctx context.Context, f []replay.Finish) ([]replay.Finished, error) {
			select {
			case <-time.After(settleTimeout + 5*time.Second):
				return s.Store.Finish(ctx, orders, f)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		ctx, cancel := context.WithTimeout(x.Context(), time.Minute)
		defer cancel()
		x.Must(d.Complete(ctx))
	})
}

// A caller that leaves while it waits for the next call has no part in it, and the others have.
func TestCompleteOfACallerThatLeft(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		const n = 4
		for range n {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		all, err := x.Receiver(orders, nil).Receive(x.Context(), n)
		x.Must(err)
		answer := make(chan struct{})
		var calls []int
		s.finish = func(ctx context.Context, f []replay.Finish) ([]replay.Finished, error) {
			if calls = append(calls, len(f)); len(calls) == 1 {
				<-answer
			}
			return s.Store.Finish(ctx, orders, f)
		}
		var wg sync.WaitGroup
		left, leave := context.WithCancel(x.Context())
		for i, d := range all {
			wg.Go(func() {
				ctx := x.Context()
				if i == 2 {
					ctx = left
				}
				if err := d.Complete(ctx); (i == 2) != errors.Is(err, context.Canceled) || i != 2 && err != nil {
					x.Errorf("message %d: %v", i, err)
				}
			})
			synctest.Wait() // the first makes the call, the others wait
		}
		leave()
		synctest.Wait()
		close(answer)
		wg.Wait()
		if want := []int{1, n - 2}; !slices.Equal(calls, want) {
			x.Errorf("calls of %v claims, want %v", calls, want)
		}
		x.Must(all[2].Complete(x.Context()))
	})
}

// A batch in which nothing is to be claimed asks the store nothing.
func TestRejectedAreNotClaimed(t *testing.T) {
	inHookedBubble(t, nil, func(x *fixture, s *hookedStore) {
		asked := 0
		s.begin = func(ctx context.Context, r []replay.Request) ([]replay.Claim, error) {
			asked++
			return s.Store.Begin(ctx, orders, r)
		}
		r := x.Receiver(orders, nil)
		x.Inject(orders, driver.Message{ID: "plain", Body: []byte("a")})
		x.None(r, queue.ErrUnencryptedMessage)
		if asked > 0 {
			x.Errorf("the store was asked %d times", asked)
		}
	})
}

// A message without a claim is renewed at the broker alone: the store knows nothing of it.
func TestRenewalWithoutAClaim(t *testing.T) {
	plain := func(_ *fixture, o *queue.Options) { o.Crypto.PlaintextPolicy = queue.Allow }
	inHookedBubble(t, plain, func(x *fixture, s *hookedStore) {
		asked := 0
		s.renew = func(ctx context.Context, l []replay.Lease) ([]replay.Renewed, error) {
			asked += len(l)
			return s.Store.Renew(ctx, orders, l)
		}
		r := x.Receiver(orders, nil)
		x.Inject(orders, driver.Message{ID: "plain", Body: []byte("a")})
		x.Send(&queue.Message{Body: []byte("sealed")})
		all, err := r.Receive(x.Context(), 2)
		x.Must(err)
		if len(all) != 2 {
			x.Fatalf("%d messages, want 2", len(all))
		}
		for i, err := range r.RenewAll(x.Context(), all) {
			if err != nil {
				x.Errorf("message %d: %v", i, err)
			}
		}
		if asked != 1 {
			x.Errorf("the store was asked for %d claims, want 1", asked)
		}
	})
}
