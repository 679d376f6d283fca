package drivertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// conform runs the suite, each case in a bubble, and returns what it says.
func conform(t *testing.T, h drivertest.Harness) (said string, failed []string) {
	for _, c := range drivertest.Cases(h) {
		synctest.Test(t, func(t *testing.T) {
			r := drivertest.Run(t.Context(), c)
			if r.Failed {
				failed = append(failed, r.Name)
			}
			said += r.Name + ": " + strings.Join(r.Lines, "\n") + "\n"
			time.Sleep(24 * time.Hour) // until goroutines that a faulty driver left behind have ended
		})
	}
	return said, failed
}

// TestFaults: the suite finds each fault and names it.
func TestFaults(t *testing.T) {
	for _, f := range slices.Concat(faults, releaseFaults) {
		t.Run(f.name, func(t *testing.T) {
			said, failed := conform(t, faultyHarness(f.make))
			if len(failed) == 0 {
				t.Fatalf("a driver that %s passes the suite", f.name)
			}
			if !strings.Contains(said, f.want) {
				t.Errorf("the suite does not say %q of a driver that %s, but:\n%s", f.want, f.name, said)
			}
			t.Logf("found by %s", strings.Join(failed, ", "))
		})
	}
}

// TestSound: what the faulty drivers are made of passes.
func TestSound(t *testing.T) {
	said, failed := conform(t, faultyHarness(func(*faulty) {}))
	if len(failed) > 0 {
		t.Errorf("a sound driver fails the suite:\n%s", said)
	}
}

type fault struct {
	name string
	make func(f *faulty)
	want string
}

// The faults, and what the suite must say of each.
var faults = []fault{
	{"deletes on dead-letter", func(f *faulty) {
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			for i := range s {
				if s[i].Kind == driver.MoveToDeadLetter {
					s[i].Kind = driver.Complete
				}
			}
			return f.Queue.Settle(ctx, s)
		}
	}, "neither in the queue nor in the dead-letter queue: it was deleted"},

	{"dead-letters without a reason", func(f *faulty) {
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			for i := range s {
				s[i].Reason = ""
			}
			return f.Queue.Settle(ctx, s)
		}
	}, "the reason of a dead letter is"},

	{"loses attributes", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			return f.sendChanged(ctx, m, func(m *driver.Message) { delete(m.Attributes, "a") })
		}
	}, `attribute "a" was lost`},

	{"renames attributes", func(f *faulty) {
		f.receive = f.receiveChanged(func(d *driver.Delivery) {
			for k, v := range maps.Clone(d.Attributes) {
				delete(d.Attributes, k)
				d.Attributes[strings.ToLower(k)] = v
			}
		})
	}, `attribute "Action" was lost; attribute "action" was added`},

	{"loses the correlation", func(f *faulty) {
		f.receive = f.receiveChanged(func(d *driver.Delivery) { d.CorrelationID = "" })
	}, "CorrelationID was lost"},

	{"makes an ID of its own", func(f *faulty) {
		f.receive = f.receiveChanged(func(d *driver.Delivery) { d.ID = d.BrokerID })
	}, "that was never sent"},

	{"carries text only", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			return f.sendChanged(ctx, m, func(m *driver.Message) { m.Body = []byte(strings.ToValidUTF8(string(m.Body), "?")) })
		}
	}, `message "body-every-byte" was changed on its way: the body has`},

	{"trims bodies", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			return f.sendChanged(ctx, m, func(m *driver.Message) { m.Body = bytes.TrimSpace(m.Body) })
		}
	}, `message "body-text-breaks" was changed on its way: the body has`},

	{"sends later", func(f *faulty) {
		var late []*driver.Message
		f.send = func(_ context.Context, m []*driver.Message) []driver.SendResult {
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			late = append(late, m...)
			return make([]driver.SendResult, len(m))
		}
		f.receive = func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
			f.world.mu.Lock()
			for _, m := range late {
				f.Queue.Send(ctx, []*driver.Message{m})
			}
			late = nil
			f.world.mu.Unlock()
			return f.Queue.Receive(ctx, max, wait)
		}
	}, `message "own-1" was changed on its way`},

	{"swallows batch failures", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			r := f.Queue.Send(ctx, m)
			for i := range r {
				r[i].Err = nil
			}
			return r
		}
	}, "the failure of one message of a batch was swallowed"},

	{"fails a batch as a whole", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			for _, m := range m {
				if _, bad := m.Attributes[""]; bad {
					out := make([]driver.SendResult, 3)
					for i := range out {
						out[i].Err = driver.Errorf(driver.Invalid, "one of the batch is invalid")
					}
					return out
				}
			}
			return f.Queue.Send(ctx, m)
		}
	}, "failed along with another of its batch"},

	{"returns one result a batch", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			r := f.Queue.Send(ctx, m)
			return r[:min(1, len(r))]
		}
	}, "there must be one per message"},

	{"de-duplicates by content", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			out := make([]driver.SendResult, len(m))
			for i, m := range m {
				f.world.mu.Lock()
				seen := f.world.bodies[string(m.Body)]
				f.world.bodies[string(m.Body)] = true
				f.world.mu.Unlock()
				if !seen {
					out[i] = f.Queue.Send(ctx, []*driver.Message{m})[0]
				}
			}
			return out
		}
	}, "1 of 5 messages came"},

	{"knows no limit", func(f *faulty) {
		f.caps = func(c driver.Capabilities) driver.Capabilities {
			c.MaxBody = 1000
			return c
		}
	}, "Send of a body one byte over MaxBody: the error is nil"},

	{"does not tell size and limit", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			r := f.Queue.Send(ctx, m)
			for i := range r {
				if errors.Is(r[i].Err, driver.ErrTooLarge) {
					r[i].Err = driver.Errorf(driver.TooLarge, "too large")
				}
			}
			return r
		}
	}, "the error does not wrap a *driver.TooLargeError"},

	{"does not classify errors", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			r := f.Queue.Send(ctx, m)
			for i := range r {
				if r[i].Err != nil {
					r[i].Err = errors.New("it went wrong")
				}
			}
			return r
		}
	}, "the error is not classified as a *driver.Error"},

	{"receives more than asked for", func(f *faulty) {
		f.receive = func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
			return f.Queue.Receive(ctx, max+1, wait)
		}
	}, "messages returned 2"},

	{"loses a message on cancel", func(f *faulty) {
		f.receive = func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
			type result struct {
				d   []*driver.Delivery
				err error
			}
			c := make(chan result, 1)
			go func() {
				d, err := f.Queue.Receive(context.WithoutCancel(ctx), max, wait)
				c <- result{d, err}
			}()
			select {
			case r := <-c:
				return r.d, r.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}, "a cancelled Receive lost them"},

	{"returns messages along with an error", func(f *faulty) {
		f.receive = func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
			d, err := f.Queue.Receive(context.WithoutCancel(ctx), max, wait)
			return d, errors.Join(err, ctx.Err())
		}
	}, "returned both an error and"},

	{"polls once a minute", func(f *faulty) {
		f.receive = func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
			for end := time.Now().Add(wait); ; {
				d, err := f.Queue.Receive(ctx, max, 0)
				if len(d) > 0 || err != nil || !time.Now().Before(end) {
					return d, err
				}
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(min(time.Minute, time.Until(end))):
				}
			}
		}
	}, "after the message was sent"},

	{"settles stale receipts", func(f *faulty) {
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			errs := f.Queue.Settle(ctx, s)
			for i := range errs {
				if errors.Is(errs[i], driver.ErrLockLost) {
					errs[i] = nil
				}
			}
			return errs
		}
	}, "a stale receipt was settled (completed)"},

	{"releases another's message by a stale receipt", byStaleReceipt(driver.Abandon), "a stale receipt (abandoned) must not release it"},

	{"settles twice", func(f *faulty) {
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			errs := f.Queue.Settle(ctx, s)
			for i := range errs {
				if errors.Is(errs[i], driver.ErrSettled) {
					errs[i] = nil
				}
			}
			return errs
		}
	}, "Settle (completed) of a delivery that is settled (completed): the error is nil"},

	{"renews nothing", func(f *faulty) {
		f.renew = func(_ context.Context, d []*driver.Delivery) []driver.RenewResult {
			results := make([]driver.RenewResult, len(d))
			for i := range d {
				results[i].LockedUntil = time.Now().Add(f.Queue.Capabilities().Lock)
				d[i].LockedUntil = results[i].LockedUntil
			}
			return results
		}
	}, "a message was delivered to another connection while its lock was renewed"},

	{"holds on to what it holds", func(f *faulty) {
		f.close = func(context.Context) error { return nil }
	}, "Send to a closed queue: the error is nil"},

	{"never counts", func(f *faulty) {
		f.receive = f.receiveChanged(func(d *driver.Delivery) { d.Count = 1 })
	}, "Count is 1 at the second delivery"},

	{"numbers deliveries, not messages", func(f *faulty) {
		f.receive = f.receiveChanged(func(d *driver.Delivery) { d.BrokerID += fmt.Sprint("/", d.Count) })
	}, "at the redelivery"},

	{"ignores the delay of an abandon", func(f *faulty) {
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			for i := range s {
				s[i].Delay = 0
			}
			return f.Queue.Settle(ctx, s)
		}
	}, "a message that was abandoned with a delay of 2s came back after 0s"},

	{"claims less than it does", func(f *faulty) {
		f.caps = func(c driver.Capabilities) driver.Capabilities {
			c.AbandonDelay, c.Schedule, c.Peek, c.AcceptByID, c.SessionState = driver.None, driver.None, driver.None, false, driver.None
			return c
		}
	}, "because the Capabilities do not claim it"},

	{"ignores NotBefore", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			return f.sendChanged(ctx, m, func(m *driver.Message) { m.NotBefore = time.Time{} })
		}
	}, "the other is not due yet"},

	{"ignores the TTL", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			return f.sendChanged(ctx, m, func(m *driver.Message) { m.TTL = 0 })
		}
	}, `message "ttl-short" was delivered after its TTL`},

	{"ignores MaxDeliveries", func(f *faulty) {
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			for i := range s {
				if n := f.Queue.Capabilities().MaxDeliveries; s[i].Kind == driver.Abandon && n > 0 && s[i].Delivery.Count >= n {
					f.Queue.Send(ctx, []*driver.Message{&s[i].Delivery.Message})
					s[i].Kind = driver.Complete
				}
			}
			return f.Queue.Settle(ctx, s)
		}
	}, "the message has had its deliveries"},

	{"dead-letters too early", func(f *faulty) {
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			for i := range s {
				if n := f.Queue.Capabilities().MaxDeliveries; s[i].Kind == driver.Abandon && n > 0 && s[i].Delivery.Count >= n-1 {
					s[i].Kind, s[i].Reason = driver.MoveToDeadLetter, "max_deliveries"
				}
			}
			return f.Queue.Settle(ctx, s)
		}
	}, "0 of 1 messages came within 5s"},

	{"claims a MaxDeliveries that is not there", func(f *faulty) {
		f.caps = func(c driver.Capabilities) driver.Capabilities {
			if c.MaxDeliveries == 3 {
				c.MaxDeliveries = 30
			}
			return c
		}
	}, "Capabilities.MaxDeliveries is 30 on a queue with 3"},

	{"peeks by receiving", func(f *faulty) {
		f.peek = func(ctx context.Context, _ string, max int) ([]*driver.Delivery, string, error) {
			all, err := f.Queue.Receive(ctx, max, 0)
			for _, d := range all {
				f.Queue.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.Abandon}})
				d.LockedUntil = time.Time{}
				d.Count--
			}
			return all, "", err
		}
	}, "Peek did not show message"},

	{"peeks without counts", func(f *faulty) {
		f.peek = func(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
			all, next, err := f.Queue.Peek(ctx, cursor, max)
			for _, d := range all {
				d.Count = 0
			}
			return all, next, err
		}
	}, "a peeked message that was abandoned once has a Count of 0"},

	{"ignores the session lock", func(f *faulty) {
		f.accept = func(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
			s, err := f.Queue.AcceptSession(ctx, id, wait)
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			if errors.Is(err, driver.ErrSessionHeld) && f.world.sessions[id] != nil {
				return f.world.sessions[id], nil
			}
			if err == nil {
				f.world.sessions[s.ID()] = s
			}
			return s, err
		}
	}, `AcceptSession("a") returned the session: another connection holds the session`},

	{"knows no sessions", func(f *faulty) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			return f.sendChanged(ctx, m, func(m *driver.Message) {
				if m.SessionID != "" && m.Attributes == nil {
					m.Attributes = map[string]string{"qrt-session": m.SessionID}
					m.SessionID = ""
				}
			})
		}
		f.receive = f.receiveChanged(func(d *driver.Delivery) {
			if s := d.Attributes["qrt-session"]; s != "" {
				d.SessionID, d.Attributes = s, nil
			}
		})
	}, "an earlier message of the session is held"},

	{"takes and drops another session's message", func(f *faulty) {
		f.accept = func(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
			s, err := f.Queue.AcceptSession(ctx, id, wait)
			if err != nil {
				return nil, err
			}
			return named(s, func(s driver.StatefulSession) driver.Session { return &pilferer{s, f, s.ID()} }), nil
		}
	}, "were taken, and dropped, by another session"},

	{"gives a message back behind the others", func(f *faulty) {
		f.accept = func(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
			s, err := f.Queue.AcceptSession(ctx, id, wait)
			if err != nil {
				return nil, err
			}
			return named(s, func(s driver.StatefulSession) driver.Session { return &hasty{s, f, driver.Abandon} }), nil
		}
	}, "it was abandoned and comes before the later ones"},

	{"brings no message without a SessionID in a session", func(f *faulty) {
		f.accept = func(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
			s, err := f.Queue.AcceptSession(ctx, id, wait)
			if _, ok := s.(driver.UnnamedSession); ok {
				_ = s.Close(ctx)
				return nil, &driver.Error{Kind: driver.NoSession}
			}
			return s, err
		}
	}, `AcceptSession(""): no session`},

	{"does not say that a session has no name", func(f *faulty) {
		f.accept = func(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
			s, err := f.Queue.AcceptSession(ctx, id, wait)
			if _, ok := s.(driver.UnnamedSession); ok {
				s = struct{ driver.Session }{s}
			}
			return s, err
		}
	}, "not one that says it is unnamed"},

	{"leaks a goroutine", func(f *faulty) {
		go func() { time.Sleep(time.Hour) }()
	}, "goroutines are left after Broker.Close"},
}
