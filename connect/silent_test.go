package connect

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
)

const (
	silentQueue = "away0"
	silentSent  = 10
	// maxSilent is for a call without a deadline: a few attempts of some seconds each.
	maxSilent = 40 * time.Second
	// lateSilent is how long a call goes on after its context, on a machine with much to do.
	lateSilent = 5 * time.Second
	// lateClose is how long a Close does: it gives back what is held.
	lateClose = 10 * time.Second
)

// TestSilentNetwork: over a network that takes everything and answers nothing each call ends
// by itself, with an error, or soon after its context. A Close does, too. Nothing is lost.
func TestSilentNetwork(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	for name, start := range map[string]func(*testing.T) *distant{
		"postgres": distantPostgres, "sqs": distantSQS, "sb": distantServiceBus(false), "sb of sessions": distantServiceBus(true),
	} {
		for _, patience := range []time.Duration{0, 500 * time.Millisecond} {
			t.Run(fmt.Sprintf("%s/patience=%s", name, patience), func(t *testing.T) {
				t.Parallel()
				w := newSilentWork(t, start(t), name == "sb of sessions")
				w.proxy.Stall()
				var all sync.WaitGroup
				for _, c := range w.calls() {
					all.Go(func() { c.make(t, patience) })
				}
				all.Wait()
				for what, closing := range map[string]func(context.Context) error{"the session": w.closeSession, "the broker": w.b.Close} {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					begin := time.Now()
					err := closing(ctx)
					cancel()
					if took := time.Since(begin); took > time.Second+lateClose {
						t.Errorf("Close of %s, with 1 s: %v after %s", what, err, took)
					}
				}
				w.proxy.Resume()
				w.count()
			})
		}
	}
}

// silentWork is what is under way when the network falls silent.
type silentWork struct {
	*testing.T
	*distant
	b       driver.Broker
	q       driver.Queue
	session driver.Session // nil: none
	source  driver.Source  // of held
	held    []*driver.Delivery
	dead    driver.Queue      // nil: none
	letters *deadletter.Queue // nil: none
}

func newSilentWork(t *testing.T, d *distant, sessions bool) *silentWork {
	t.Helper()
	w := &silentWork{T: t, distant: d, b: d.open()}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	var err error
	w.q, err = w.b.Open(ctx, silentQueue, nil)
	must(err)
	session := ""
	if sessions || w.q.Capabilities().AcceptByID {
		session = "s"
	}
	for i := range silentSent {
		m := &driver.Message{ID: fmt.Sprint("m", i), Body: []byte("x"), SessionID: session}
		if i > 0 && !sessions {
			m.SessionID = ""
		}
		must(w.q.Send(ctx, []*driver.Message{m})[0].Err)
	}
	w.source = w.q
	if session != "" {
		w.session, err = w.q.AcceptSession(ctx, session, 10*time.Second)
		must(err)
		if sessions {
			w.source = w.session
		}
	}
	for len(w.held) < 4 {
		got, err := w.source.Receive(ctx, 4-len(w.held), 10*time.Second)
		must(err)
		w.held = append(w.held, got...)
	}
	if w.q.Capabilities().DeadLetter == driver.None {
		return w
	}
	if w.dead, err = w.q.DeadLetters(ctx); err != nil {
		w.dead = nil
		return w
	}
	must(w.source.Settle(ctx, []driver.Settlement{{Delivery: w.held[3], Kind: driver.MoveToDeadLetter, Reason: "test"}})[0])
	client, err := queue.New(w.b, nil)
	must(err)
	w.letters, err = deadletter.Open(ctx, client, silentQueue, nil)
	must(err)
	return w
}

// silentCall is one call. If empty, it may end without an error: it waits for messages, and
// none came.
type silentCall struct {
	name  string
	empty bool
	do    func(context.Context) error
}

func (c *silentCall) make(t *testing.T, patience time.Duration) {
	t.Helper()
	ctx, limit := t.Context(), maxSilent
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
		limit = patience + lateSilent
	}
	begin := time.Now()
	err := c.do(ctx)
	if took := time.Since(begin); took > limit || err == nil && !c.empty {
		t.Errorf("%s: %v after %s, want an error within %s", c.name, err, took, limit)
	}
}

func (w *silentWork) calls() []silentCall {
	settle := func(n int, kind driver.SettleKind) func(context.Context) error {
		return func(ctx context.Context) error {
			return w.source.Settle(ctx, []driver.Settlement{{Delivery: w.held[n], Kind: kind}})[0]
		}
	}
	calls := []silentCall{
		{"Open", false, func(ctx context.Context) error { _, err := w.b.Open(ctx, "away1", nil); return err }},
		{"Send", false, func(ctx context.Context) error {
			return w.q.Send(ctx, []*driver.Message{{ID: "late", Body: []byte("x"), SessionID: w.held[0].SessionID}})[0].Err
		}},
		{"Receive", true, func(ctx context.Context) error { _, err := w.source.Receive(ctx, 1, time.Second); return err }},
		{"Renew", false, func(ctx context.Context) error { return w.source.Renew(ctx, w.held[:1])[0].Err }},
		{"Complete", false, settle(1, driver.Complete)},
		{"Abandon", false, settle(2, driver.Abandon)},
		{"Peek", false, func(ctx context.Context) error { _, _, err := w.q.Peek(ctx, "", 10); return err }},
		{"Stats", false, func(ctx context.Context) error { _, err := w.q.Stats(ctx); return err }},
	}
	if w.letters != nil {
		calls = append(
			calls,
			silentCall{"Receive of dead letters", true, func(ctx context.Context) error { _, err := w.dead.Receive(ctx, 1, time.Second); return err }},
			silentCall{"Peek of dead letters", false, func(ctx context.Context) error { _, _, err := w.dead.Peek(ctx, "", 10); return err }},
			silentCall{"Stats of dead letters", false, func(ctx context.Context) error { _, err := w.dead.Stats(ctx); return err }},
			silentCall{"Purge", false, func(ctx context.Context) error { _, err := w.letters.Purge(ctx, &deadletter.Filter{}); return err }},
			silentCall{"Redrive", false, func(ctx context.Context) error { _, err := w.letters.Redrive(ctx, nil); return err }},
			silentCall{"dry run", false, func(ctx context.Context) error {
				_, err := w.letters.Redrive(ctx, &deadletter.RedriveOptions{DryRun: true})
				return err
			}},
		)
	}
	if w.session == nil {
		return calls
	}
	calls = append(
		calls,
		silentCall{"RenewSession", false, func(ctx context.Context) error { _, err := w.session.RenewSession(ctx); return err }},
		silentCall{"AcceptSession", false, func(ctx context.Context) error { _, err := w.q.AcceptSession(ctx, "", time.Second); return err }},
	)
	if s, ok := w.session.(driver.StatefulSession); ok {
		calls = append(
			calls,
			silentCall{"State", false, func(ctx context.Context) error { _, err := s.State(ctx); return err }},
			silentCall{"SetState", false, func(ctx context.Context) error { return s.SetState(ctx, []byte("x")) }},
		)
	}
	return calls
}

func (w *silentWork) closeSession(ctx context.Context) error {
	if w.session == nil {
		return nil
	}
	return w.session.Close(ctx)
}

// count finds that nothing is lost, if the broker tells. One message was being completed.
func (w *silentWork) count() {
	w.Helper()
	b := w.open()
	defer func() { _ = b.Close(context.Background()) }()
	q, err := b.Open(w.Context(), silentQueue, nil)
	if err != nil {
		w.Fatal(err)
	}
	s, err := q.Stats(w.Context())
	if err != nil {
		return // it does not count
	}
	if n := s.Ready + max(s.InFlight, 0) + max(s.DeadLetters, 0); n < silentSent-1 {
		w.Errorf("%d messages are left, want %d at least: %+v", n, silentSent-1, s)
	}
}
