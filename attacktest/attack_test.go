package attacktest_test

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

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// perform performs an attack on memqueue with a fault, in a bubble.
func perform(t *testing.T, name string, n int, fault func(*interceptor), change func(*attacktest.Env)) (o attacktest.Outcome, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		env := &attacktest.Env{Broker: harness(fault).Start(t)}
		if change != nil {
			change(env)
		}
		o, err = attacktest.Run(t.Context(), name, env, n)
	})
	return o, err
}

func sound(*interceptor) {}

// TestCases: on a sound driver each case passes, in the order of Names.
func TestCases(t *testing.T) {
	var names []string
	for _, c := range attacktest.Cases(harness(sound), 2) {
		names = append(names, c.Name)
		synctest.Test(t, func(t *testing.T) { c.Run(t) })
	}
	if !slices.Equal(names, attacktest.Names()) {
		t.Errorf("the cases are %v, want %v", names, attacktest.Names())
	}
}

// TestCasesFail: a case fails if the outcome is not that of the threat model, and
// is skipped if the broker has no queue for it.
func TestCasesFail(t *testing.T) {
	run := func(h drivertest.Harness) (r drivertest.Report) {
		synctest.Test(t, func(t *testing.T) { r = drivertest.Run(t.Context(), attacktest.Cases(h, 2)[0]) })
		return r
	}
	if r := run(harness(forgiving())); !r.Failed || !strings.Contains(strings.Join(r.Lines, "\n"), "was delivered") {
		t.Errorf("an attack that succeeds: %+v", r)
	}
	h := harness(sound)
	start := h.Start
	h.Start = func(t drivertest.T) *drivertest.Instance {
		i := start(t)
		i.NewQueue = func(context.Context, drivertest.QueueSpec) (string, error) { return "", errors.ErrUnsupported }
		return i
	}
	if r := run(h); r.Failed || !r.Skipped {
		t.Errorf("a broker without queues: %+v", r)
	}
}

// The names are those of the documentation, and each outcome adds up.
func TestAttackOutcomes(t *testing.T) {
	want := strings.Fields(`alter_body alter_header alter_message_id alter_session_id alter_correlation_id
		alter_content_type alter_attribute move_queue swap_key_id forge_version strip_marker inject_plaintext
		replay_in_window replay_after_window alter_sequence unpad forge_sender forge_session_state two_key_ciphertext flood_key_ids
		plaintext_allow plaintext_allow_with_alert unbound_attribute_added`)
	if got := attacktest.Names(); !slices.Equal(got, want) {
		t.Errorf("Names() = %v, want %v", got, want)
	}
	for _, name := range attacktest.Names() {
		for _, n := range []int{1, 50} {
			o, err := perform(t, name, n, sound, nil)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if len(o.Faults) > 0 || o.Attempts != n || o.Delivered+o.DeadLettered+o.Abandoned+o.Refused != n || o.Name != name {
				t.Errorf("%s, %d times: %+v", name, n, o)
			}
		}
	}
}

// TestBusyBroker: an attack outlasts a broker that answers late.
func TestBusyBroker(t *testing.T) {
	accepts := 0
	o, err := perform(t, "forge_session_state", 6, func(f *interceptor) {
		f.accept = func(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
			if accepts++; accepts%4 != 0 {
				return nil, driver.Errorf(driver.Unavailable, "the broker does not answer")
			}
			return f.Queue.AcceptSession(ctx, id, wait)
		}
	}, nil)
	if err != nil || len(o.Faults) > 0 || o.Refused != 6 {
		t.Errorf("%+v, %v", o, err)
	}
}

// forgiving is a driver that remembers what was sent and hands it out whatever
// is stored: with it every alteration goes unseen.
func forgiving() func(*interceptor) {
	sent := make(map[string]driver.Message)
	return func(f *interceptor) {
		f.send = func(ctx context.Context, m []*driver.Message) []driver.SendResult {
			for _, m := range m {
				c := *m
				c.Body, c.Attributes = bytes.Clone(m.Body), maps.Clone(m.Attributes)
				sent[m.ID] = c
			}
			return f.Queue.Send(ctx, m)
		}
		f.receive = f.receiveChanged(func(d *driver.Delivery) {
			if m, ok := sent[d.ID]; ok {
				d.Message = m
			}
		})
	}
}

// TestAttackFaults: the suite finds it when the library does not hold what the
// threat model says.
func TestAttackFaults(t *testing.T) {
	deletes := func(f *interceptor) {
		f.settle = f.settleChanged(func(s *driver.Settlement) {
			if s.Kind == driver.MoveToDeadLetter {
				s.Kind = driver.Complete
			}
		})
	}
	loses := 0
	for name, c := range map[string]struct {
		attack string
		fault  func(*interceptor)
		want   string
	}{
		"delivers what was altered": {"alter_body", forgiving(), `the forged message "message-00000" was delivered`},
		"counts what was delivered": {"alter_attribute", forgiving(), `message "message-00000" was delivered, it must be dead-lettered`},
		"misses the error":          {"alter_header", forgiving(), `the error type is "", it must be "authentication_failed"`},
		"hides what was added":      {"unbound_attribute_added", forgiving(), "is not set apart"},
		"deletes dead letters":      {"alter_body", deletes, "10 messages were dead-lettered and 0 are dead letters"},
		"alters honest messages": {"alter_body", func(f *interceptor) {
			f.receive = f.receiveChanged(func(d *driver.Delivery) { d.Body[len(d.Body)-1] ^= 1 })
		}, `the honest message "message-00005" was rejected: authentication_failed`},
		"gives no reason": {"replay_in_window", func(f *interceptor) {
			f.settle = f.settleChanged(func(s *driver.Settlement) { s.Reason = "" })
		}, `has the reason "", it must be "nonce_reused"`},
		"loses honest messages": {"move_queue", func(f *interceptor) {
			f.receive = func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
				got, err := f.Queue.Receive(ctx, max, wait)
				return slices.DeleteFunc(got, func(d *driver.Delivery) bool {
					if d.ID == "message-00011" {
						loses++
						return true
					}
					return false
				}), err
			}
		}, "1 of 3 honest messages were lost"},
		"deletes instead of abandoning": {"flood_key_ids", func(f *interceptor) {
			f.settle = f.settleChanged(func(s *driver.Settlement) { s.Kind = driver.Complete })
		}, `was abandoned and is gone`},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := perform(t, c.attack, 10, c.fault, nil)
			if err != nil {
				t.Fatal(err)
			}
			if said := strings.Join(o.Faults, "\n"); !strings.Contains(said, c.want) {
				t.Errorf("the faults do not say %q, but:\n%s", c.want, said)
			}
		})
	}
	if loses == 0 {
		t.Error("no honest message was lost")
	}
}

// ineffective is an attacker that does not store or read what it should.
type ineffective struct {
	drivertest.Attacker
	read    func([]driver.Message) []driver.Message
	rewrite func(f func([]driver.Message) []driver.Message) func([]driver.Message) []driver.Message
}

func (l *ineffective) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	all, err := l.Attacker.Read(ctx, queue)
	if l.read != nil {
		all = l.read(all)
	}
	return all, err
}

func (l *ineffective) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	if l.rewrite != nil {
		f = l.rewrite(f)
	}
	return l.Attacker.Rewrite(ctx, queue, f)
}

// TestAttackers: an attack that did not happen is an error, and not a success of
// the defence.
func TestAttackers(t *testing.T) {
	with := func(l *ineffective) func(*attacktest.Env) {
		return func(env *attacktest.Env) {
			l.Attacker = env.Broker.Attacker
			env.Broker.Attacker = l
		}
	}
	_, err := perform(t, "alter_content_type", 5, sound, with(&ineffective{rewrite: func(f func([]driver.Message) []driver.Message) func([]driver.Message) []driver.Message {
		return func(all []driver.Message) []driver.Message {
			f(all)
			return all // as they were
		}
	}}))
	if err == nil || !strings.Contains(err.Error(), "reads another: ContentType is") {
		t.Errorf("an attacker that altered nothing: %v", err)
	}
	_, err = perform(t, "inject_plaintext", 5, sound, with(&ineffective{rewrite: func(f func([]driver.Message) []driver.Message) func([]driver.Message) []driver.Message {
		return func(all []driver.Message) []driver.Message { return f(all)[1:] }
	}}))
	if err == nil || !strings.Contains(err.Error(), "and does not find it") {
		t.Errorf("an attacker that stored too few: %v", err)
	}
	payload := func(i int) []byte { return fmt.Appendf(nil, "payload %d of twenty bytes or more", i) }
	o, err := perform(t, "alter_body", 5, sound, func(env *attacktest.Env) {
		env.Payload = payload
		with(&ineffective{read: func(all []driver.Message) []driver.Message {
			for i := range all {
				if all[i].ID == "message-00003" {
					all[i].Body = append(all[i].Body, payload(3)...)
				}
			}
			return all
		}})(env)
	})
	const want = `the payload of message "message-00003" can be read at the broker`
	if err == nil && !slices.Contains(o.Faults, want) || err != nil && !strings.Contains(err.Error(), "reads another") {
		t.Errorf("a broker that can read a payload: %v, %v", o.Faults, err)
	}
}

func TestAttackArguments(t *testing.T) {
	env := func() *attacktest.Env {
		return &attacktest.Env{Broker: harness(sound).Start(t)}
	}
	blind := env()
	blind.Broker.Attacker = nil
	for name, c := range map[string]struct {
		attack string
		env    *attacktest.Env
		n      int
	}{
		"unknown":     {"bribe_the_cleaner", env(), 1},
		"no attempts": {"alter_body", env(), 0},
		"no broker":   {"alter_body", nil, 1},
		"no attacker": {"alter_body", blind, 1},
	} {
		if _, err := attacktest.Run(t.Context(), c.attack, c.env, c.n); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
