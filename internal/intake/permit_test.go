package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// failTimes notes n messages that do not authenticate, and returns what followed for the last.
func failTimes(t *testing.T, p *Permit, id keys.ID, n int) (f Failure) {
	for range n {
		f = p.Failed(t.Context(), id, false)
	}
	return f
}

// refused checks that nothing may be fetched for longest, and that Admit takes no longer.
func refused(t *testing.T, g *recorded, longest time.Duration, want error) {
	t.Helper()
	begin := time.Now()
	if p, err := g.Admit(t.Context(), 1, longest); !errors.Is(err, want) {
		t.Errorf("Admit = %+v, %v, want %v", p, err, want)
	}
	if took := time.Since(begin); took != longest {
		t.Errorf("Admit took %s, want %s", took, longest)
	}
}

// TestPermitEndsOnce: a permit that has ended touches no probe of another caller.
func TestPermitEndsOnce(t *testing.T) {
	away := Outage{Reason: driver.ReasonReplayStore, Cause: errAway}
	for name, end := range map[string]func(*testing.T, *Permit){
		"answered":   func(t *testing.T, p *Permit) { p.Answered(t.Context()) },
		"passed":     func(_ *testing.T, p *Permit) { p.Passed() },
		"idle":       func(_ *testing.T, p *Permit) { p.Idle() },
		"unanswered": func(t *testing.T, p *Permit) { p.Unanswered(t.Context(), away) },
	} {
		t.Run("outage "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				g := inOutage(t, func(context.Context, Outage) Answer { asked++; return NeedsMessage })
				first := admit(t, g, 1, time.Minute)
				end(t, &first)
				late := admit(t, g, 1, time.Minute)
				if late.probe == noProbe { // the outage is over: another begins
					late.Unanswered(t.Context(), away)
					late = admit(t, g, 1, time.Minute)
				}
				before := asked
				first.Idle()
				first.Answered(t.Context())
				first.Passed()
				refused(t, g, 5*time.Minute, errAway)
				if asked != before {
					t.Errorf("%d questions beside that of another caller, want none", asked-before)
				}
				late.Answered(t.Context())
				admit(t, g, 1, 0)
			})
		})
	}
	for name, end := range map[string]func(*testing.T, *Permit){
		"failed": func(t *testing.T, p *Permit) { p.Failed(t.Context(), "k1", false) },
		"idle":   func(_ *testing.T, p *Permit) { p.Idle() },
	} {
		t.Run("pause "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(nil)
				p := admit(t, g, 1, 0)
				failTimes(t, &p, "k1", 3)
				first := admit(t, g, 1, time.Minute)
				end(t, &first)
				second := admit(t, g, 1, time.Minute)
				first.Idle()
				first.Failed(t.Context(), "k1", false)
				p.Failed(t.Context(), "k1", false)
				refused(t, g, time.Hour, errPaused)
				second.Opened(t.Context(), "k1")
				admit(t, g, 1, 0)
			})
		})
	}
}

// TestProbesMessageOpened: that the message of an outage's probe opened is noted beside its end.
func TestProbesMessageOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := inOutage(t, func(context.Context, Outage) Answer { return NeedsMessage })
		p := admit(t, g, 1, time.Minute)
		p.Opened(t.Context(), "k1")
		p.Answered(t.Context())
		admit(t, g, 1, 0)
		g.want(t, "stopped replay_store_error", "resumed replay_store_error")
	})
}

// TestOnlyOneCallerTriesAMessage: while one caller fetches a message because a peek could not
// tell, the others neither peek nor fetch.
func TestOnlyOneCallerTriesAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		peeks := 0
		g.o.Peek = func(context.Context) (keys.ID, Answer) { peeks++; return "", NeedsMessage }
		p := admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 3)
		probe := admit(t, g, 1, time.Minute)
		refused(t, g, time.Hour, errPaused)
		if peeks != 1 {
			t.Errorf("%d peeks, want 1", peeks)
		}
		probe.Opened(t.Context(), "k1")
		admit(t, g, 1, 0)
	})
}

// TestPauseThatEndedMeanwhile: a probe that fails, or finds nothing, after another message
// opened does not stop the receiver again.
func TestPauseThatEndedMeanwhile(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *Permit){
		"failed": func(t *testing.T, p *Permit) { p.Failed(t.Context(), "k2", false) },
		"idle":   func(_ *testing.T, p *Permit) { p.Idle() },
		"opened": func(t *testing.T, p *Permit) { p.Opened(t.Context(), "k1") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(nil)
				p := admit(t, g, 1, 0)
				failTimes(t, &p, "k1", 3)
				probe := admit(t, g, 1, time.Minute)
				p.Opened(t.Context(), "k1")
				end(t, &probe)
				if p := admit(t, g, 7, 0); p.Max != 7 {
					t.Errorf("%d messages may be fetched, want 7", p.Max)
				}
				g.want(t, "stopped authentication_failed k1", "resumed authentication_failed")
			})
		})
	}
}

// TestOpenedLeavesTheProbeToOthers: a message that opened ended the pause, so that its
// permit holds no turn in a later one.
func TestOpenedLeavesTheProbeToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		p := admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 3)
		probe := admit(t, g, 1, time.Minute)
		probe.Opened(t.Context(), "k1")
		g.pause.begin(time.Now(), FirstPause) // another pause, and its probe
		second := admit(t, g, 1, time.Minute)
		probe.Idle()
		refused(t, g, time.Hour, errPaused)
		second.Opened(t.Context(), "k1")
		admit(t, g, 1, 0)
	})
}

// TestLateMessagesEndNoOutage: only the message of a probe says that an outage is over. One
// that was on its way had what it needed before.
func TestLateMessagesEndNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(func(context.Context, Outage) Answer { return Away })
		late, p := admit(t, g, 1, 0), admit(t, g, 1, 0)
		p.Unanswered(t.Context(), Outage{Reason: driver.ReasonReplayStore, Cause: errAway})
		late.Answered(t.Context())
		late.Passed()
		refused(t, g, time.Minute, errAway)
		g.want(t, "stopped replay_store_error")
	})
}

// TestOutageInAPause: an outage that the message of a pause's probe met leaves the pause to
// the next probe.
func TestOutageInAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(func(context.Context, Outage) Answer { return Back })
		p := admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 3)
		probe := admit(t, g, 1, time.Minute)
		probe.Unanswered(t.Context(), Outage{Reason: driver.ReasonReplayStore, Cause: errAway})
		probe.Idle()
		again := admit(t, g, 5, time.Minute)
		if again.Max != 1 {
			t.Errorf("%d messages may be fetched in a pause, want 1", again.Max)
		}
		again.Opened(t.Context(), "k1")
		admit(t, g, 1, 0)
	})
}

// TestProbeThatFoundNothing: what was not found out is asked after the delay, and not at once:
// a queue that is empty, or a peek that panics, makes no loop.
func TestProbeThatFoundNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		g := inOutage(t, func(context.Context, Outage) Answer { return NeedsMessage })
		for n := range 4 {
			p := admit(t, g, 1, time.Hour)
			if got, want := time.Since(begin), time.Duration(n+1)*FirstDelay; got != want {
				t.Errorf("question %d after %s, want %s", n+1, got, want)
			}
			p.Idle()
		}
	})
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		g := newGate(nil)
		g.o.Peek = func(context.Context) (keys.ID, Answer) { return "", NeedsMessage }
		p := admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 3)
		for n := range 4 {
			p := admit(t, g, 1, time.Hour)
			if got, want := time.Since(begin), time.Duration(n)*FirstPause; got != want {
				t.Errorf("peek %d after %s, want %s", n+1, got, want)
			}
			p.Idle()
		}
	})
}

// TestPassedAsksAtOnce: a message that could be judged without what is away delays the next
// question by nothing.
func TestPassedAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := inOutage(t, func(context.Context, Outage) Answer { return NeedsMessage })
		p := admit(t, g, 1, time.Minute)
		p.Passed()
		p = admit(t, g, 1, 0)
		if p.Max != 1 || p.probe != outageProbe {
			t.Errorf("%+v, want a permit for one message", p)
		}
	})
}

// TestAdmitOfACallerThatLeft: a caller that leaves gets its context's error at once, in a
// wait, in a question and in a peek, and nothing is asked for it after that.
func TestAdmitOfACallerThatLeft(t *testing.T) {
	leave := func(t *testing.T, g *recorded) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := g.Admit(ctx, 1, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Admit: %v, want %v", err, context.DeadlineExceeded)
		}
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("Admit took %s, want 20s", took)
		}
	}
	synctest.Test(t, func(t *testing.T) { // waits: 15 s after the third question
		leave(t, inOutage(t, func(context.Context, Outage) Answer { return Away }))
	})
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		leave(t, inOutage(t, func(ctx context.Context, _ Outage) Answer {
			calls++
			<-ctx.Done()
			if calls == 1 {
				return Away
			}
			return Back // and yet it says nothing: the caller has left
		}))
		if calls != 2 { // the first took AskTimeout
			t.Errorf("%d questions, want 2", calls)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		calls := 0
		g.o.Peek = func(ctx context.Context) (keys.ID, Answer) {
			calls++
			<-ctx.Done()
			return "", Away
		}
		p := admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 3)
		leave(t, g)
		if calls != 2 {
			t.Errorf("%d peeks, want 2", calls)
		}
		refused(t, g, 0, errPaused)
	})
}

// TestQuestionsContextEnds: the context of a question ends with it, so that nothing of it
// goes on behind the caller's back.
func TestQuestionsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, peeked context.Context
		g := newGate(func(ctx context.Context, _ Outage) Answer { asked = ctx; return Back })
		g.o.Peek = func(ctx context.Context) (keys.ID, Answer) { peeked = ctx; return "k1", Back }
		p := admit(t, g, 1, 0)
		p.Unanswered(t.Context(), Outage{Reason: driver.ReasonReplayStore, Cause: errAway})
		failTimes(t, &p, "k1", 3)
		admit(t, g, 1, time.Minute)
		for what, ctx := range map[string]context.Context{"Ask": asked, "Peek": peeked} {
			if ctx == nil || ctx.Err() == nil {
				t.Errorf("the context of %s goes on after it", what)
			}
			if end, ok := ctx.Deadline(); !ok || time.Until(end) > AskTimeout {
				t.Errorf("the context of %s has no end", what)
			}
		}
	})
}

// TestOthersSleepWhileOnePeeks: while one caller peeks for longer than the delay, the others
// sleep, and are told in how long to look again.
func TestOthersSleepWhileOnePeeks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		var mu sync.Mutex // over retries
		var retries []time.Duration
		g.o.Paused = func(retry time.Duration) error {
			mu.Lock()
			defer mu.Unlock()
			retries = append(retries, retry)
			return errPaused
		}
		calls := 0
		g.o.Peek = func(ctx context.Context) (keys.ID, Answer) {
			if calls++; calls < 4 {
				return "", Away
			}
			backoff.Sleep(ctx, 10*time.Second)
			return "k1", Back
		}
		p := admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 3)
		done := make(chan error)
		go func() {
			_, err := g.Admit(t.Context(), 1, time.Hour)
			done <- err
		}()
		time.Sleep((1+2+4)*time.Second + 1) // the fourth peek is under way
		synctest.Wait()
		mu.Lock()
		retries = nil
		mu.Unlock()
		refused(t, g, 0, errPaused)
		if len(retries) != 1 || retries[0] != 4*time.Second-1 {
			t.Errorf("others may look again in %v, want the delay of 4s", retries)
		}
		if _, err := g.Admit(&restless{Context: t.Context()}, 1, time.Hour); err != nil {
			t.Errorf("Admit: %v", err)
		}
		if err := <-done; err != nil || calls != 4 {
			t.Errorf("%v after %d peeks, want 4", err, calls)
		}
		if n := len(retries); n > 20 {
			t.Errorf("another caller looked %d times in ten seconds", n)
		}
	})
}

// TestSuspensionAtItsLimit: one failure less than MaxAuthFailures suspends no key and stops
// nothing.
func TestSuspensionAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		p := admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 2)
		failTimes(t, &p, "k2", 2) // they count by key
		g.want(t)
		admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 1)
		failTimes(t, &p, "k2", 2)
		g.want(t, "stopped authentication_failed k1") // the pause says it of all keys
	})
}

// TestDelaysOfFailures: the delay doubles once in its own time, and in a pause it is at least
// that of the pause.
func TestDelaysOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		p := admit(t, g, 1, 0)
		p.Opened(t.Context(), "works")
		failTimes(t, &p, "k1", 3)
		for n := range 8 {
			want := FirstPause << n
			time.Sleep(want - 1)
			if f := p.Failed(t.Context(), "k1", false); f.Wait != want {
				t.Errorf("just before the delay is over: %s, want %s", f.Wait, want)
			}
			time.Sleep(time.Nanosecond)
			if f := p.Failed(t.Context(), "k1", false); f.Wait != 2*want {
				t.Errorf("when it is over: %s, want %s", f.Wait, 2*want)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		g := newGate(nil)
		p := admit(t, g, 1, 0)
		failTimes(t, &p, "k1", 3)
		for range 4 {
			probe := admit(t, g, 1, time.Hour)
			failTimes(t, &probe, "k1", 1)
		}
		if f := p.Failed(t.Context(), "k2", false); f.Wait != 16*time.Second {
			t.Errorf("the first failure under another key waits %s, want the pause's 16s", f.Wait)
		}
	})
}

// TestOpenedIsNewsOnce: only the first message that opens under a key is news, and what is
// known of other keys stays.
func TestOpenedIsNewsOnce(t *testing.T) {
	g := newGate(nil)
	p := Permit{g: g.Gate}
	failTimes(t, &p, "k3", 2)
	for i, want := range []bool{true, false, false} {
		if got := p.Opened(t.Context(), "k1"); got != want {
			t.Errorf("message %d: news is %v", i+1, got)
		}
	}
	if !p.Opened(t.Context(), "k2") {
		t.Error("the first message under another key is no news")
	}
	for _, id := range []keys.ID{"k1", "k2"} {
		if f := p.Failed(t.Context(), id, false); f.State != KeyWorks {
			t.Errorf("%s: %+v, want that it works", id, f)
		}
	}
	p.Failed(t.Context(), "k3", false)
	g.want(t, "suspended authentication_failed k3")
}

// TestTrialsAtTheirBound: the keys beyond the bound share one trial, and no key that works
// makes room for another.
func TestTrialsAtTheirBound(t *testing.T) {
	g := newGate(nil)
	p := Permit{g: g.Gate}
	for i := range maxTrials {
		p.Failed(t.Context(), keys.ID(fmt.Sprint("forged-", i)), false)
	}
	g.want(t)
	for i := range 3 {
		p.Failed(t.Context(), keys.ID(fmt.Sprint("more-", i)), false)
	}
	if len(g.changes) != 1 {
		t.Errorf("told %q, want that the trial which others share is suspended", g.changes)
	}

	g = newGate(nil)
	p = Permit{g: g.Gate}
	for i := range maxTrials {
		p.Failed(t.Context(), keys.ID(fmt.Sprint("forged-", i)), false)
	}
	p.Opened(t.Context(), "good-0")
	p.Failed(t.Context(), "forged again", false)
	if n := len(g.trials.of); n > maxTrials+1 {
		t.Errorf("%d trials are kept, want at most %d", n, maxTrials+1)
	}
	for i := range maxTrials {
		p.Opened(t.Context(), keys.ID(fmt.Sprint("good-", i)))
	}
	for i := range 10 {
		p.Opened(t.Context(), keys.ID(fmt.Sprint("one too many-", i)))
	}
	if p.Opened(t.Context(), "one too many") {
		t.Error("a key that there is no room for is news, each time anew")
	}
	for i := range maxTrials {
		if f := p.Failed(t.Context(), keys.ID(fmt.Sprint("good-", i)), false); f.State != KeyWorks {
			t.Fatalf("good-%d made room for another: %+v", i, f)
		}
	}
	if n := len(g.trials.of); n > maxTrials+1 {
		t.Errorf("%d trials are kept, want at most %d", n, maxTrials+1)
	}
}

// One message with few deliveries left stops a receiver, or suspends its key if another one
// works, long before MaxAuthFailures have failed.
func TestSpentMessageSuspends(t *testing.T) {
	for _, other := range []bool{false, true} {
		var told []ChangeKind
		g := NewGate(GateOptions{
			MaxAuthFailures: 20,
			Tell:            func(_ context.Context, c Change) { told = append(told, c.Kind) },
			Paused:          func(time.Duration) error { return errors.New("paused") },
		})
		want := Stopped
		p := Permit{g: g}
		if other {
			p.Opened(t.Context(), "k2")
			want = Suspended
		}
		for range 3 {
			if p.Failed(t.Context(), "k1", false); len(told) > 0 {
				t.Fatalf("another key works %t: told %v of a message that can come again", other, told)
			}
		}
		if p.Failed(t.Context(), "k1", true); len(told) != 1 || told[0] != want {
			t.Errorf("another key works %t: told %v, want %v", other, told, want)
		}
	}
}
