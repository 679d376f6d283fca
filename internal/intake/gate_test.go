package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
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
			kind := map[ChangeKind]string{Stopped: "stopped", Resumed: "resumed", Suspended: "suspended"}[c.Kind]
			r.changes = append(r.changes, strings.TrimSpace(fmt.Sprintf("%s %s %s", kind, c.Reason, c.KeyID)))
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
		g.want(t, "stopped replay_store_error")
		p := admit(t, g, 5, time.Minute)
		if p.Max != 1 {
			t.Errorf("a probe may fetch %d messages, want 1", p.Max)
		}
		p.Unanswered(t.Context(), Outage{Reason: driver.ReasonKeyProvider, Cause: errAway})
		p = admit(t, g, 5, time.Minute)
		p.Answered(t.Context())
		g.want(t,
			"stopped replay_store_error", "resumed replay_store_error",
			"stopped key_provider_error", "resumed key_provider_error")
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
			backoff.Sleep(ctx, 10*time.Second)
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
		g.want(t, "stopped replay_store_error", "resumed replay_store_error")
	})
}

// TestPauseWithoutPeek: while no key opens messages they are given back, receiving pauses
// after MaxAuthFailures, and one message is fetched after 1 s, 2 s, 4 s and so on to five
// minutes. The first that opens ends the pause.
func TestPauseWithoutPeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		p := admit(t, g, 10, 0)
		for n := range 3 {
			if f := p.Failed(t.Context(), "k1", false); f.State != NoneWorks || f.Wait != FirstPause {
				t.Errorf("failure %d: %+v, want given back after %s", n+1, f, FirstPause)
			}
		}
		g.want(t, "stopped authentication_failed k1")
		if _, err := g.Admit(t.Context(), 10, FirstPause-1); !errors.Is(err, errPaused) {
			t.Errorf("Admit in the pause: %v, want %v", err, errPaused)
		}
		var waits []time.Duration
		for range 11 {
			begin := time.Now()
			probe := admit(t, g, 10, time.Hour)
			waits = append(waits, time.Since(begin).Round(time.Second))
			if probe.Max != 1 {
				t.Errorf("a probe may fetch %d messages, want 1", probe.Max)
			}
			if f := probe.Failed(t.Context(), "k1", false); f.State != NoneWorks {
				t.Errorf("the message of a probe: %+v, want given back", f)
			}
			probe.Idle()
		}
		want := []time.Duration{0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} // the first second is over
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(waits, want) {
			t.Errorf("probes after %v, want %v", waits, want)
		}
		probe := admit(t, g, 10, time.Hour)
		if !probe.Opened(t.Context(), "k1") {
			t.Error("the first message that opens is no news")
		}
		if p := admit(t, g, 10, 0); p.Max != 10 {
			t.Errorf("after the pause %d messages may be fetched, want 10", p.Max)
		}
		g.want(t, "stopped authentication_failed k1", "resumed authentication_failed")
	})
}

// TestPausePeeks: if the broker can peek, it is asked at once and then after 1 s, 2 s and
// so on, by one caller at a time, and no message is fetched until one opens.
func TestPausePeeks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		begin := time.Now()
		g := newGate(nil)
		g.o.Peek = func(ctx context.Context) (keys.ID, Answer) {
			at = append(at, time.Since(begin))
			backoff.Sleep(ctx, 100*time.Millisecond) // others come meanwhile
			if len(at) < 4 {
				return "", Away
			}
			return "k1", Back
		}
		p := admit(t, g, 10, 0)
		for range 3 {
			p.Failed(t.Context(), "k1", false)
		}
		done := make(chan Permit)
		for range 4 {
			go func() {
				p, err := g.Admit(t.Context(), 10, time.Hour)
				if err != nil {
					t.Errorf("Admit: %v", err)
				}
				done <- p
			}()
		}
		for range 4 {
			if p := <-done; p.Max != 10 {
				t.Errorf("%d messages may be fetched, want 10", p.Max)
			}
		}
		want := []time.Duration{0, 1100, 3200, 7300}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(at, want) {
			t.Errorf("peeked after %v, want %v", at, want)
		}
		g.want(t, "stopped authentication_failed k1", "resumed authentication_failed")
	})
}

// TestPeekThatEndsOtherwise: a peek that can tell nothing gives its turn to a message; one
// that panics, and a fetch that brings nothing, let another caller probe.
func TestPeekThatEndsOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, crash := NeedsMessage, false
		g := newGate(nil)
		g.o.Peek = func(context.Context) (keys.ID, Answer) {
			if crash {
				panic("peek")
			}
			return "k1", answer
		}
		p := admit(t, g, 10, 0)
		for range 3 {
			p.Failed(t.Context(), "k1", false)
		}
		p = admit(t, g, 10, 0)
		if p.Max != 1 {
			t.Errorf("%d messages may be fetched to find out, want 1", p.Max)
		}
		if _, err := g.Admit(t.Context(), 10, 0); !errors.Is(err, errPaused) {
			t.Errorf("a second probe beside the first: %v, want %v", err, errPaused)
		}
		p.Idle()
		crash = true
		func() {
			defer func() { _ = recover() }()
			_, _ = g.Admit(t.Context(), 10, time.Minute)
			t.Error("no panic")
		}()
		crash, answer = false, Back
		if p := admit(t, g, 10, time.Minute); p.Max != 10 {
			t.Errorf("%d messages may be fetched, want 10", p.Max)
		}
	})
}

// TestKeyIsSuspendedAlone: while another key opens messages receiving goes on, and what
// fails under a key that has opened none is given back for longer and longer.
func TestKeyIsSuspendedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		p := admit(t, g, 10, 0)
		p.Opened(t.Context(), "k1")
		if f := p.Failed(t.Context(), "k1", false); f.State != KeyWorks {
			t.Errorf("a failure under a key that works: %+v, want forged", f)
		}
		var longest time.Duration
		for range 1000 {
			f := p.Failed(t.Context(), "k2", false)
			if f.State != OtherWorks || f.Wait < longest {
				t.Fatalf("%+v after %s, want given back for longer", f, longest)
			}
			longest = f.Wait
			time.Sleep(f.Wait)
			if p := admit(t, g, 10, 0); p.Max != 10 {
				t.Fatalf("%d messages may be fetched, want 10", p.Max)
			}
		}
		if longest != MaxPause {
			t.Errorf("the longest delay is %s, want %s", longest, MaxPause)
		}
		g.want(t, "suspended authentication_failed k2")
		p.Opened(t.Context(), "k2")
		if f := p.Failed(t.Context(), "k2", false); f.State != KeyWorks {
			t.Errorf("a failure after a message opened: %+v, want forged", f)
		}
	})
}

// TestTrialsAreBounded: key IDs that messages make up fill no memory, and leave room for
// those that open messages.
func TestTrialsAreBounded(t *testing.T) {
	g := newGate(nil)
	p := Permit{g: g.Gate}
	for i := range 10 * maxTrials {
		p.Failed(t.Context(), keys.ID(fmt.Sprint("forged-", i)), false)
	}
	for i := range maxTrials {
		if id := keys.ID(fmt.Sprint("good-", i)); !p.Opened(t.Context(), id) {
			t.Fatalf("no room for %s", id)
		}
	}
	if n := len(g.trials.of); n > maxTrials+1 {
		t.Errorf("%d trials are kept, want at most %d", n, maxTrials+1)
	}
}

// TestCheckStops: what Check finds stops the receiver before it fetches.
func TestCheckStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := Away
		g := newGate(func(context.Context, Outage) Answer { return answer })
		bad := &Outage{Reason: driver.ReasonKeyProvider, KeyID: "k1", Cause: errAway}
		g.o.Check = func() *Outage { return bad }
		if _, err := g.Admit(t.Context(), 10, time.Minute); !errors.Is(err, errAway) {
			t.Errorf("Admit: %v, want %v", err, errAway)
		}
		answer, bad = Back, nil
		admit(t, g, 10, time.Minute)
		g.want(t, "stopped key_provider_error", "resumed key_provider_error")
	})
}

// A Permit says whether its caller has waited, or something was asked, so that the caller counts
// that time; of an open gate it says no.
func TestPermitSaysThatItIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(func(context.Context, Outage) Answer { return Back })
		p := admit(t, g, 1, time.Minute)
		if p.Late {
			t.Error("of an open gate it is late")
		}
		p.Unanswered(t.Context(), Outage{Reason: driver.ReasonReplayStore, Cause: errAway})
		if p := admit(t, g, 1, time.Minute); !p.Late {
			t.Error("after an outage it is not")
		}
		if p := admit(t, g, 1, time.Minute); p.Late {
			t.Error("later it is late")
		}
	})
}
