package sbqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/sbattack"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// shortLock is the lock of queues whose locks are to run out: the shortest of Service Bus.
const shortLock = 5 * time.Second

// emulated describes the emulator to the suites.
func emulated(sessions bool) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Instance {
		server, err := sbemulator.Start(nil)
		if err != nil {
			t.Fatalf("emulator: %v", err)
		}
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Errorf("emulator: %v", err)
			}
		})
		settings := map[string]sbqueue.QueueOptions{}
		made := 0
		return &drivertest.Instance{
			Connect: func(context.Context) (driver.Broker, error) {
				return sbqueue.FromConnectionString(server.ConnectionString(), &sbqueue.Options{Queues: settings})
			},
			NewQueue: func(_ context.Context, s drivertest.QueueSpec) (string, error) {
				if s.Sessions && !sessions {
					return "", fmt.Errorf("a queue of sessions: %w", errors.ErrUnsupported)
				}
				o := sbemulator.QueueOptions{RequiresSession: s.Sessions, LockDuration: 60 * time.Second, MaxDeliveryCount: 100}
				if s.ShortLock {
					o.LockDuration = shortLock
				}
				if s.MaxDeliveries > 0 {
					o.MaxDeliveryCount = s.MaxDeliveries
				}
				if s.Dedup {
					o.DuplicateDetectionWindow = 10 * time.Minute
				}
				made++
				name := fmt.Sprintf("queue-%d", made)
				settings[name] = sbqueue.QueueOptions{
					Sessions: o.RequiresSession, Lock: o.LockDuration, MaxDeliveries: o.MaxDeliveryCount, Dedup: s.Dedup,
				}
				return name, server.CreateQueue(name, &o)
			},
			Attacker:     sbattack.New(server),
			Missing:      "not-there",
			InvalidNames: []string{"a b", "a\x00b", "/a", "a//b", strings.Repeat("n", sbqueue.MaxName+1)},
			Slack:        10 * time.Second,
			Quiet:        600 * time.Millisecond,
			Foreign:      func(stack string) bool { return strings.Contains(stack, "/sbemulator.") },
		}
	}}
}

// goroutines is the case that counts those of the whole process.
const goroutines = "goroutines"

func TestGoroutines(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		exclusive(t, drivertest.Cases(emulated(sessions)))
	}
}

// exclusive runs the case that counts goroutines.
func exclusive(t *testing.T, cases []drivertest.Case) {
	t.Helper()
	i := slices.IndexFunc(cases, func(c drivertest.Case) bool { return c.Name == goroutines })
	t.Run(goroutines, func(t *testing.T) { cases[i].Run(t) })
}

// beside runs the cases that want selects as subtests beside each other: each has
// an emulator of its own, and they mostly wait. A nil want selects all.
func beside(t *testing.T, cases []drivertest.Case, want func(name string) bool) {
	t.Helper()
	for _, c := range cases {
		if want != nil && !want(c.Name) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			c.Run(t)
		})
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, sessions := range map[string]bool{"queues": false, "sessions": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			beside(t, drivertest.Cases(emulated(sessions)), func(name string) bool {
				// The others would do the same once more.
				return name != goroutines && (!sessions || scale == 1 || strings.HasPrefix(name, "session") || strings.HasPrefix(name, "concurrent"))
			})
		})
	}
}

func TestAttacks(t *testing.T) {
	t.Parallel()
	for name, sessions := range map[string]bool{"queues": false, "sessions": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			beside(t, attacktest.Cases(emulated(sessions), 0), nil)
		})
	}
}
