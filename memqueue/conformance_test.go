package memqueue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/memqueue"
)

// harness describes memqueue to the suites. limits are those of every queue.
func harness(limits memqueue.QueueOptions) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Instance {
		b := memqueue.New(&memqueue.Options{DeclaredOnly: true})
		t.Cleanup(func() {
			if err := b.Close(context.Background()); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		made := 0
		return &drivertest.Instance{
			Connect: func(context.Context) (driver.Broker, error) { return b.Connect(), nil },
			NewQueue: func(_ context.Context, s drivertest.QueueSpec) (string, error) {
				o := limits
				o.SessionOnly = limits.SessionOnly && s.Sessions
				if o.MaxDeliveries = s.MaxDeliveries; o.MaxDeliveries == 0 {
					o.MaxDeliveries = -1
				}
				if s.ShortLock {
					o.Lock = time.Second
				}
				if s.Dedup {
					o.DedupWindow = time.Minute
				}
				made++
				name := fmt.Sprintf("queue-%d", made)
				return name, b.Declare(name, o)
			},
			Attacker:     b.Attacker(),
			Missing:      "not-declared",
			InvalidNames: []string{"a\x00b", "a\nb", "not-utf8-\xff", strings.Repeat("n", driver.MaxName+1)},
		}
	}}
}

// inBubbles runs cases as subtests, each in a bubble of its own.
func inBubbles(t *testing.T, cases []drivertest.Case) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { c.Run(t) }) })
	}
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]memqueue.QueueOptions{
		"default":                  {},
		"limits":                   {MaxBody: 64 << 10, MaxBatch: 16, MaxBatchBytes: 128 << 10, MaxAttributes: 12, TTL: time.Hour, Retention: 24 * time.Hour},
		"session only, one by one": {SessionOnly: true, MaxBatch: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, drivertest.Cases(harness(o)))
		})
	}
}

func TestAttacks(t *testing.T) {
	for name, o := range map[string]memqueue.QueueOptions{
		"default":      {},
		"session only": {SessionOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, attacktest.Cases(harness(o), 0))
		})
	}
}
