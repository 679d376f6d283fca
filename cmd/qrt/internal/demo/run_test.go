package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/cmd/qrt/internal/brokers"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// thief is an attacker who takes one dead letter away.
type thief struct {
	drivertest.Attacker
	mu    sync.Mutex
	stole int
}

func open(t *testing.T) *brokers.Broker {
	t.Helper()
	b, err := brokers.Open(t.Context(), "mem://")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// DeadLetters steals one of the mixed fleet.
func (f *thief) DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	m, why, err := f.Attacker.DeadLetters(ctx, queue)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(m) > 0 && f.stole == 0 && strings.HasPrefix(queue, "mixed-fleet") {
		f.stole++
		return m[1:], why[1:], err
	}
	return m, why, err
}

// TestLossIsSeen: a dead letter that is gone is lost, whatever the library says,
// and then the run is not OK.
func TestLossIsSeen(t *testing.T) {
	t.Parallel()
	b := NewBroker(open(t))
	f := &thief{Attacker: b.Attacker}
	b.Attacker = f
	r, err := Run(t.Context(), Config{Broker: b, Messages: MinMessages, Attempts: 2})
	if err != nil {
		t.Fatal(err)
	}
	if f.stole != 1 || r.Lost != 1 || r.OK || !slices.ContainsFunc(r.Faults, func(f string) bool { return strings.Contains(f, "1 messages were lost") }) {
		t.Errorf("stolen %d, lost %d, ok %v, faults %q", f.stole, r.Lost, r.OK, r.Faults)
	}
}

// idle is an attacker who says that he has done what he has not.
type idle struct{ drivertest.Attacker }

func (idle) Rewrite(context.Context, string, func([]driver.Message) []driver.Message) error {
	return nil
}

// TestAttackIsMade: an attack that did not happen is no success.
func TestAttackIsMade(t *testing.T) {
	t.Parallel()
	b := NewBroker(open(t))
	b.Attacker = idle{b.Attacker}
	if r, err := Run(t.Context(), Config{Broker: b, Messages: MinMessages, Attempts: 2}); err == nil && r.OK {
		t.Error("attacks that did not happen went well")
	}
}

// TestInexpressible: an attack for which the broker has nothing is not made, and
// does not count as one that was.
func TestInexpressible(t *testing.T) {
	t.Parallel()
	b := NewBroker(open(t))
	inner := b.NewQueue
	b.NewQueue = func(ctx context.Context, purpose string, s drivertest.QueueSpec) (string, error) {
		if purpose == "alter_session_id" {
			return "", fmt.Errorf("queues with sessions: %w", errors.ErrUnsupported)
		}
		return inner(ctx, purpose, s)
	}
	r, err := Run(t.Context(), Config{Broker: b, Messages: MinMessages, Attempts: 2})
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, a := range r.Attacks {
		if a.Name == "alter_session_id" {
			if want := (Attack{Name: a.Name, Reason: "unsupported"}); a != want {
				t.Errorf("%+v, want %+v", a, want)
			}
			continue
		}
		made += a.Attempts
	}
	if !r.OK || made != 2*(len(attacktest.Names())-1) {
		t.Errorf("ok %v, %d attempts, faults %q", r.OK, made, r.Faults)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	b := NewBroker(open(t))
	for _, c := range []Config{{Broker: b, Messages: MinMessages - 1, Attempts: 1}, {Broker: b, Messages: MinMessages}} {
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%d messages, %d attempts: no error", c.Messages, c.Attempts)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Config{Broker: b, Messages: MinMessages, Attempts: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestTogether(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	err := together(t.Context(),
		func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		func(context.Context) error { return failed },
	)
	if !errors.Is(err, failed) {
		t.Errorf("%v, want the first failure", err)
	}
}
