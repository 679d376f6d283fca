package memqueue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/memqueue"
)

// harness describes memqueue to the suites. o are limits that every queue has.
func harness(o memqueue.QueueOptions) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Broker {
		const most = 8 // queues of a kind that a case makes
		options := &memqueue.Options{Queues: make(map[string]memqueue.QueueOptions), DeclaredOnly: true}
		name := func(s drivertest.QueueSpec, i int) string {
			return fmt.Sprintf("queue/%t/%d/%t/%t/%d", s.ShortLock, s.MaxDeliveries, s.Sessions, s.Dedup, i)
		}
		made := make(map[drivertest.QueueSpec]int)
		for _, short := range []bool{false, true} {
			for _, deliveries := range []int{0, 2, 3} {
				for _, sessions := range []bool{false, true} {
					for _, dedup := range []bool{false, true} {
						s := drivertest.QueueSpec{ShortLock: short, MaxDeliveries: deliveries, Sessions: sessions, Dedup: dedup}
						q := o
						q.MaxDeliveries = deliveries
						if deliveries == 0 {
							q.MaxDeliveries = -1
						}
						if short {
							q.Lock = time.Second
						}
						if dedup {
							q.DedupWindow = time.Minute
						}
						q.SessionOnly = o.SessionOnly && sessions
						for i := range most {
							options.Queues[name(s, i)] = q
						}
					}
				}
			}
		}
		b := memqueue.New(options)
		t.Cleanup(func() {
			if err := b.Close(context.Background()); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		return &drivertest.Broker{
			Connect: func(context.Context) (driver.Provider, error) { return b.Connect(), nil },
			NewQueue: func(_ context.Context, s drivertest.QueueSpec) (string, error) {
				made[s]++
				return name(s, made[s]), nil
			},
			Attacker:     b.Attacker(),
			Missing:      "not-declared",
			InvalidNames: []string{"a\x00b", "a\nb", "not-utf8-\xff", strings.Repeat("n", memqueue.MaxName+1)},
		}
	}}
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]memqueue.QueueOptions{
		"default":                  {},
		"limits":                   {MaxBody: 64 << 10, MaxBatch: 16, MaxBatchBytes: 128 << 10, MaxAttributes: 12, TTL: time.Hour, Retention: 24 * time.Hour},
		"session only, one by one": {SessionOnly: true, MaxBatch: 1},
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.Conformance(drivertest.NewIn(t, synctest.Test), harness(o))
		})
	}
}
