package sbqueue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/azure/sbemulator"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// shortLock is the lock of queues whose locks are to run out.
const shortLock = 3 * time.Second

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
			Attacker:     attacker{server},
			Missing:      "not-there",
			InvalidNames: []string{"a b", "a\x00b", "/a", "a//b", strings.Repeat("n", sbqueue.MaxName+1)},
			Slack:        10 * time.Second,
			Quiet:        600 * time.Millisecond,
			Foreign:      func(stack string) bool { return strings.Contains(stack, "/sbemulator.") },
		}
	}}
}

// attacker works on the emulator's store.
type attacker struct{ s *sbemulator.Server }

func (a attacker) Read(_ context.Context, queue string) ([]driver.Message, error) {
	stored, err := a.settled(queue)
	if err != nil {
		return nil, err
	}
	var out []driver.Message
	for _, m := range stored {
		if !m.Locked && m.ScheduledFor.IsZero() {
			out = append(out, decode(&m))
		}
	}
	return out, nil
}

// settled returns what is stored once nobody takes anything any more: the SDK's
// receivers have credit left after a call, and give back what comes until it is
// used up.
func (a attacker) settled(queue string) ([]sbemulator.Message, error) {
	const quiet, most = 5, 150 // looks, of 20 ms
	for look, still := 0, 0; ; look++ {
		stored, err := a.s.Messages(queue)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(stored, func(m sbemulator.Message) bool { return m.Locked }) {
			still = 0
		} else {
			still++
		}
		if still == quiet || look == most {
			return stored, nil
		}
		<-time.After(20 * time.Millisecond)
	}
}

func decode(m *sbemulator.Message) driver.Message {
	d := driver.Message{ID: m.MessageID, CorrelationID: m.CorrelationID, ContentType: m.ContentType, Body: m.Body}
	if m.SessionID != nil {
		d.SessionID = *m.SessionID
	}
	for name, v := range m.ApplicationProperties {
		switch name {
		case "qrt-id":
			d.ID = v.(string)
		case "qrt-sealed":
			d.Sealed = v.(bool)
		case "qrt-content-type":
			d.ContentType = v.(string)
		case "traceparent", "tracestate", "DeadLetterReason", "DeadLetterErrorDescription", "qrt-dead-queue", "qrt-dead-at", "qrt-count":
		default:
			if d.Attributes == nil {
				d.Attributes = map[string]string{}
			}
			d.Attributes[name] = v.(string)
		}
	}
	return d
}

func (a attacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	stored, err := a.settled(queue)
	if err != nil {
		return err
	}
	var waiting []driver.Message
	for _, m := range stored {
		if m.Locked || !m.ScheduledFor.IsZero() {
			continue
		}
		waiting = append(waiting, decode(&m))
		if err := a.s.Remove(queue, m.SequenceNumber); err != nil {
			return err
		}
	}
	for _, m := range f(waiting) {
		e := &sbemulator.Message{MessageID: m.ID, CorrelationID: m.CorrelationID, ContentType: m.ContentType, Body: m.Body, ApplicationProperties: map[string]any{}}
		if e.Body == nil {
			e.Body = []byte{}
		}
		if m.SessionID != "" {
			e.SessionID = &m.SessionID
		}
		for name, v := range m.Attributes {
			e.ApplicationProperties[name] = v
		}
		if m.Sealed {
			e.ApplicationProperties["qrt-sealed"] = true
		}
		if _, err := a.s.Insert(queue, e); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (a attacker) DeadLetters(_ context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	stored, err := a.s.Messages(queue + "/$DeadLetterQueue")
	if err != nil {
		return nil, nil, err
	}
	var out []driver.Message
	var why []driver.DeadLetter
	for _, m := range stored {
		out = append(out, decode(&m))
		d := driver.DeadLetter{Queue: queue}
		d.Reason, _ = m.ApplicationProperties["DeadLetterReason"].(string)
		d.Description, _ = m.ApplicationProperties["DeadLetterErrorDescription"].(string)
		if d.Reason == "MaxDeliveryCountExceeded" {
			d.Reason = "max_deliveries"
		}
		why = append(why, d)
	}
	return out, why, nil
}

// goroutines is the case that counts those of the whole process.
const goroutines = "goroutines"

func TestGoroutines(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		h := emulated(sessions)
		h.Only = func(name string) bool { return name == goroutines }
		drivertest.Conformance(drivertest.New(t), h)
	}
}

// beside runs a case beside others: each has an emulator of its own, and most of
// its time it waits.
func beside(t *testing.T, f func(*testing.T)) {
	t.Parallel()
	f(t)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, sessions := range map[string]bool{"queues": false, "sessions": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := emulated(sessions)
			h.Only = func(name string) bool {
				// The others would do the same once more.
				return name != goroutines && (!sessions || scale == 1 || strings.HasPrefix(name, "session") || strings.HasPrefix(name, "concurrent"))
			}
			drivertest.Conformance(drivertest.NewIn(t, beside), h)
		})
	}
}

func TestAttacks(t *testing.T) {
	t.Parallel()
	for name, sessions := range map[string]bool{"queues": false, "sessions": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drivertest.Attacks(drivertest.NewIn(t, beside), emulated(sessions))
		})
	}
}
