package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
)

// afterWindow is the attack that spends its time waiting.
const afterWindow = "replay_after_window"

// The window of that attack: all its messages have to be sent and received within it,
// and then it has to pass. So it is a multiple of the time that this takes on this
// machine, with a minimum. If the machine becomes slower than it was measured, the
// attack is repeated with a longer window, a bounded number of times.
const (
	windowFactor = 5
	minWindow    = 3 * time.Second
	maxWindow    = 5 * time.Minute
	windowTries  = 4
)

// errSlow says that honest messages took longer than the window: then some of
// them are rightly too old, and the outcome says nothing of the attack.
var errSlow = errors.New("the messages took longer than the window")

// replayAfterWindow performs the attack that has a window. waiting is called when
// it begins to wait.
func (r *run) replayAfterWindow(ctx context.Context, waiting func()) (attacktest.Outcome, error) {
	window := windowFor(r.pace * time.Duration(r.Attempts))
	for try := 1; ; try++ {
		o, took, err := r.replayAfter(ctx, window, waiting)
		switch {
		case !errors.Is(err, errSlow):
			return o, err
		case try == windowTries || window >= maxWindow:
			return o, fmt.Errorf("%s: %d messages took %s, with a window of %s: use fewer --attempts, or a machine with less to do",
				afterWindow, r.Attempts, display.Duration(took), display.Duration(window))
		}
		window = windowFor(took)
	}
}

func windowFor(took time.Duration) time.Duration {
	return min(max(windowFactor*took, minWindow), maxWindow)
}

// replayAfter performs the attack once. It fails with errSlow, and the time that
// was needed, if the window was too short for what had to happen within.
func (r *run) replayAfter(ctx context.Context, window time.Duration, waiting func()) (attacktest.Outcome, time.Duration, error) {
	var took time.Duration
	begin := time.Now()
	b := r.instance(afterWindow)
	b.Wait = func(ctx context.Context, d time.Duration) error {
		if took = time.Since(begin); took > window {
			return errSlow
		}
		waiting()
		err := pause(ctx, d)
		begin = time.Now()
		return err
	}
	o, err := attacktest.Run(ctx, afterWindow, &attacktest.Env{Broker: b, Payload: r.payload, Window: window}, r.Attempts)
	if err != nil {
		return o, took, err
	}
	// After the window honest messages were sent and received once more.
	if again := time.Since(begin); again > window && len(o.Faults) > 0 {
		return o, again, errSlow
	}
	return o, took, nil
}

// pause lets d pass.
func pause(ctx context.Context, d time.Duration) error {
	if !backoff.Sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}
