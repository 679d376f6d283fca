package drivertest_test

import (
	"bytes"
	"context"
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

// siege performs an attack on memqueue with a fault, in a bubble.
func siege(t *testing.T, name string, n int, fault func(*faulty), change func(*drivertest.AttackEnv)) (o drivertest.Outcome, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		env := &drivertest.AttackEnv{Broker: faultyHarness(fault).Start(drivertest.New(t))}
		if change != nil {
			change(env)
		}
		o, err = drivertest.RunAttack(t.Context(), name, env, n)
	})
	return o, err
}

func sound(*faulty) {}

// The names are those of the documentation, and each outcome adds up.
func TestAttackOutcomes(t *testing.T) {
	want := strings.Fields(`alter_body alter_header alter_message_id alter_session_id alter_correlation_id
		alter_content_type alter_attribute move_queue swap_key_id forge_version strip_marker inject_plaintext
		replay_in_window replay_after_window two_key_ciphertext flood_key_ids
		plaintext_allow plaintext_allow_with_alert unbound_attribute_added`)
	if got := drivertest.AttackNames(); !slices.Equal(got, want) {
		t.Errorf("AttackNames() = %v, want %v", got, want)
	}
	for _, name := range drivertest.AttackNames() {
		for _, n := range []int{1, 50} {
			o, err := siege(t, name, n, sound, nil)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if len(o.Faults) > 0 || o.Attempts != n || o.Delivered+o.DeadLettered+o.Abandoned != n || o.Name != name {
				t.Errorf("%s, %d times: %+v", name, n, o)
			}
		}
	}
}

// forgiving is a driver that remembers what was sent and hands it out whatever
// is stored: with it every alteration goes unseen.
func forgiving() func(*faulty) {
	sent := make(map[string]driver.Message)
	return func(f *faulty) {
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
	deletes := faultNamed(t, "deletes on dead-letter")
	loses := 0
	for name, c := range map[string]struct {
		attack string
		fault  func(*faulty)
		want   string
	}{
		"delivers what was altered": {"alter_body", forgiving(), `the forged message "message-00000" was delivered`},
		"counts what was delivered": {"alter_attribute", forgiving(), `message "message-00000" was delivered, it must be dead-lettered`},
		"misses the error":          {"alter_header", forgiving(), `the error type is "", it must be "authentication_failed"`},
		"hides what was added":      {"unbound_attribute_added", forgiving(), "is not set apart"},
		"deletes dead letters":      {"alter_body", deletes, "10 messages were dead-lettered and 0 are dead letters"},
		"alters honest messages": {"alter_body", func(f *faulty) {
			f.receive = f.receiveChanged(func(d *driver.Delivery) { d.Body[len(d.Body)-1] ^= 1 })
		}, `the honest message "message-00005" was rejected: authentication_failed`},
		"gives no reason": {"replay_in_window", faultNamed(t, "dead-letters without a reason"), `has the reason "", it must be "nonce_reused"`},
		"loses honest messages": {"move_queue", func(f *faulty) {
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
		"deletes instead of abandoning": {"forge_version", func(f *faulty) {
			f.settle = func(ctx context.Context, s []driver.Settlement) []error {
				for i := range s {
					s[i].Kind = driver.Complete
				}
				return f.Queue.Settle(ctx, s)
			}
		}, `was abandoned and is gone`},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := siege(t, c.attack, 10, c.fault, nil)
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

// lame is an attacker who does not do what he says.
type lame struct {
	drivertest.Attacker
	read    func([]driver.Message) []driver.Message
	rewrite func(f func([]driver.Message) []driver.Message) func([]driver.Message) []driver.Message
}

func (l *lame) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	all, err := l.Attacker.Read(ctx, queue)
	if l.read != nil {
		all = l.read(all)
	}
	return all, err
}

func (l *lame) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	if l.rewrite != nil {
		f = l.rewrite(f)
	}
	return l.Attacker.Rewrite(ctx, queue, f)
}

// TestAttackers: an attack that did not happen is an error, and not a success of
// the defence.
func TestAttackers(t *testing.T) {
	with := func(l *lame) func(*drivertest.AttackEnv) {
		return func(env *drivertest.AttackEnv) {
			l.Attacker = env.Broker.Attacker
			env.Broker.Attacker = l
		}
	}
	_, err := siege(t, "alter_content_type", 5, sound, with(&lame{rewrite: func(f func([]driver.Message) []driver.Message) func([]driver.Message) []driver.Message {
		return func(all []driver.Message) []driver.Message {
			f(all)
			return all // as they were
		}
	}}))
	if err == nil || !strings.Contains(err.Error(), "reads another: ContentType is") {
		t.Errorf("an attacker who altered nothing: %v", err)
	}
	_, err = siege(t, "inject_plaintext", 5, sound, with(&lame{rewrite: func(f func([]driver.Message) []driver.Message) func([]driver.Message) []driver.Message {
		return func(all []driver.Message) []driver.Message { return f(all)[1:] }
	}}))
	if err == nil || !strings.Contains(err.Error(), "and does not find it") {
		t.Errorf("an attacker who stored too few: %v", err)
	}
	payload := func(i int) []byte { return fmt.Appendf(nil, "payload %d of twenty bytes or more", i) }
	o, err := siege(t, "alter_body", 5, sound, func(env *drivertest.AttackEnv) {
		env.Payload = payload
		with(&lame{read: func(all []driver.Message) []driver.Message {
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
	env := func() *drivertest.AttackEnv {
		return &drivertest.AttackEnv{Broker: faultyHarness(sound).Start(drivertest.New(t))}
	}
	blind := env()
	blind.Broker.Attacker = nil
	for name, c := range map[string]struct {
		attack string
		env    *drivertest.AttackEnv
		n      int
	}{
		"unknown":     {"bribe_the_cleaner", env(), 1},
		"no attempts": {"alter_body", env(), 0},
		"no broker":   {"alter_body", nil, 1},
		"no attacker": {"alter_body", blind, 1},
	} {
		if _, err := drivertest.RunAttack(t.Context(), c.attack, c.env, c.n); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
