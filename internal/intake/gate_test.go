package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var (
	errAway   = errors.New("away")
	errPaused = errors.New("paused")
)

// recorded is a Gate whose changes are kept as text, and whose question is ask.
type recorded struct {
	*Gate
	mu      sync.Mutex
	changes []string
}

func newGate(ask func(context.Context, Outage) Answer) *recorded {
	r := &recorded{}
	r.Gate = NewGate(GateOptions{
		MaxAuthFailures: 3,
		Ask:             ask,
		Tell: func(_ context.Context, c Change) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.changes = append(r.changes, fmt.Sprintf("stopped=%t %s", c.Stopped, c.Reason))
		},
		Paused: func(time.Duration) error { return errPaused },
	})
	return r
}

// inOutage makes a gate that stands in an outage of the replay store.
func inOutage(t *testing.T, ask func(context.Context, Outage) Answer) *recorded {
	g := newGate(ask)
	p := admit(t, g, 1, 0)
	p.Unanswered(t.Context(), Outage{Reason: driver.ReasonReplayStore, Cause: errAway})
	return g
}

func admit(t *testing.T, g *recorded, limit int, longest time.Duration) Permit {
	t.Helper()
	p, err := g.Admit(t.Context(), limit, longest)
	if err != nil {
		t.Fatalf("Admit: %v", err)
	}
	return p
}

func (r *recorded) want(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.changes, want) {
		t.Errorf("told %q, want %q", r.changes, want)
	}
}

// TestOutageAfterOutage: each outage that was reported is also reported to be over,
// when another follows on it. Otherwise its alert would never end.
func TestOutageAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := inOutage(t, func(context.Context, Outage) Answer { return NeedsMessage })
		late := Permit{g: g.Gate} // of a message that was on its way
		late.Unanswered(t.Context(), Outage{Reason: driver.ReasonKeyProvider, Cause: errAway})
		g.want(t, "stopped=true replay_store_error")
		p := admit(t, g, 5, time.Minute)
		if p.Max != 1 {
			t.Errorf("a probe may fetch %d messages, want 1", p.Max)
		}
		p.Unanswered(t.Context(), Outage{Reason: driver.ReasonKeyProvider, Cause: errAway})
		p = admit(t, g, 5, time.Minute)
		p.Answered(t.Context())
		g.want(t,
			"stopped=true replay_store_error", "stopped=false replay_store_error",
			"stopped=true key_provider_error", "stopped=false key_provider_error")
		if p := admit(t, g, 5, 0); p.Max != 5 {
			t.Errorf("after the outage %d messages may be fetched, want 5", p.Max)
		}
	})
}

// TestOutageDelays: what does not answer is asked after 1 s, 2 s, 4 s and so on to
// 30 s, and receiving resumes at the first answer.
func TestOutageDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		begin := time.Now()
		g := inOutage(t, func(context.Context, Outage) Answer {
			asked = append(asked, time.Since(begin))
			if len(asked) < 8 {
				return Away
			}
			return Back
		})
		if _, err := g.Admit(t.Context(), 1, 3*time.Second-1); !errors.Is(err, errAway) {
			t.Errorf("Admit in the outage: %v, want %v", err, errAway)
		}
		admit(t, g, 1, time.Hour)
		want := []time.Duration{1, 3, 7, 15, 31, 61, 91, 121}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(asked, want) {
			t.Errorf("asked after %v, want %v", asked, want)
		}
	})
}

// restless is a context that ends once it was asked for its end more often than a
// caller that sleeps has to.
type restless struct {
	context.Context
	asked atomic.Int32
}

func (c *restless) Err() error {
	if c.asked.Add(1) > 1000 {
		return context.Canceled
	}
	return c.Context.Err()
}

// TestOthersSleepWhileOneAsks: while one caller waits for an answer, longer than the
// delay between two questions, the others sleep. They neither spin nor ask beside it.
func TestOthersSleepWhileOneAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		g := inOutage(t, func(ctx context.Context, _ Outage) Answer {
			calls.Add(1)
			sleepUntil(ctx, time.Now().Add(10*time.Second))
			return Back
		})
		errs := make(chan error, 4)
		ask := func(ctx context.Context) {
			_, err := g.Admit(ctx, 1, time.Minute)
			errs <- err
		}
		go ask(t.Context())
		time.Sleep(FirstDelay + time.Millisecond)
		for range cap(errs) - 1 {
			go ask(&restless{Context: t.Context()})
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Errorf("Admit: %v", err)
			}
		}
		if n := calls.Load(); n != 1 {
			t.Errorf("%d questions, want 1", n)
		}
	})
}

// TestQuestionThatHangs: a question that is never answered ends, and others are asked
// after it.
func TestQuestionThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := true
		g := inOutage(t, func(ctx context.Context, _ Outage) Answer {
			if hangs {
				<-ctx.Done()
				return Away
			}
			return Back
		})
		if _, err := g.Admit(t.Context(), 1, 20*time.Second); !errors.Is(err, errAway) {
			t.Errorf("Admit: %v, want %v", err, errAway)
		}
		hangs = false
		admit(t, g, 1, time.Minute)
	})
}

// TestProbeWithoutEnd: a probe whose fetch brought nothing, whose caller left, or whose
// question panicked, lets the next caller ask.
func TestProbeWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := NeedsMessage
		var during func()
		g := inOutage(t, func(context.Context, Outage) Answer {
			if during != nil {
				during()
			}
			return answer
		})
		p := admit(t, g, 1, time.Minute)
		p.Idle()
		p.Idle()

		ctx, cancel := context.WithCancel(t.Context())
		during = cancel
		if _, err := g.Admit(ctx, 1, time.Minute); !errors.Is(err, context.Canceled) {
			t.Errorf("Admit of a caller that left: %v, want %v", err, context.Canceled)
		}
		during = func() { panic("ask") }
		func() {
			defer func() { _ = recover() }()
			_, _ = g.Admit(t.Context(), 1, time.Minute)
			t.Error("no panic")
		}()
		during, answer = nil, Back
		admit(t, g, 1, time.Minute)
		g.want(t, "stopped=true replay_store_error", "stopped=false replay_store_error")
	})
}

// TestPause: failures in a row pause, a success in between starts the count again, one
// message is tried every 30 s, and the first that opens ends the pause.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		p := admit(t, g, 10, 0)
		for range 2 {
			p.Forged(t.Context())
		}
		p.Opened(t.Context())
		for n := range 3 {
			if p.Forged(t.Context()) {
				t.Errorf("failure %d is given back, want dead-lettered", n+1)
			}
		}
		if !p.Forged(t.Context()) {
			t.Error("a failure after the pause began is dead-lettered, want given back")
		}
		if _, err := g.Admit(t.Context(), 10, ProbeInterval-1); !errors.Is(err, errPaused) {
			t.Errorf("Admit in the pause: %v, want %v", err, errPaused)
		}
		first := admit(t, g, 10, time.Second)
		if first.Max != 1 || first.Forged(t.Context()) {
			t.Errorf("the probe may fetch %d, want 1, and its message is dead-lettered", first.Max)
		}
		if _, err := g.Admit(t.Context(), 10, ProbeInterval-1); !errors.Is(err, errPaused) {
			t.Errorf("a second probe within the interval: %v, want %v", err, errPaused)
		}
		second := admit(t, g, 10, time.Second)
		second.Opened(t.Context())
		if p := admit(t, g, 10, 0); p.Max != 10 {
			t.Errorf("after the pause %d messages may be fetched, want 10", p.Max)
		}
		g.want(t, "stopped=true authentication_failed", "stopped=false authentication_failed")
	})
}
