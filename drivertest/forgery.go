package drivertest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// forbidden is the judge of deliveries in attacks that none may survive.
func (s *siege) forbidden(d *queue.Delivery) {
	s.fault("the forged message %q was delivered", d.ID)
}

// alteration changes the i-th captured message. binary says whether the broker
// carries bodies as bytes.
type alteration func(i int, m *driver.Message, binary bool) error

// altering is an attack that changes each of n stored messages.
func altering(f alteration) func(*siege) error {
	return func(s *siege) error { return s.alter(f, false) }
}

// alteringSessions is altering, on messages that belong to sessions.
func alteringSessions(f alteration) func(*siege) error {
	return func(s *siege) error { return s.alter(f, true) }
}

func (s *siege) alter(f alteration, sessions bool) error {
	name, err := s.newQueue(sessions)
	if err != nil {
		return err
	}
	if err := s.send(name, 0, s.n+s.bystanders(), sessions); err != nil {
		return err
	}
	if _, err := s.capture(name); err != nil {
		return err
	}
	r, err := s.receiver(name, receiving{policy: queue.Reject})
	if err != nil {
		return err
	}
	binary := r.Capabilities().BinaryBody
	err = s.assault(name, func(all []driver.Message) (out, forged []driver.Message, err error) {
		left := s.n
		for i, m := range all {
			if left > 0 && !s.spared(i) {
				left--
				c := *copyOf(&m)
				if err := f(i, &c, binary); err != nil {
					return nil, nil, err
				}
				if difference(&m, &c) == "" {
					return nil, nil, fmt.Errorf("message %q was not altered", m.ID)
				}
				forged = append(forged, c)
				m = c
			}
			out = append(out, m)
		}
		return out, forged, nil
	})
	if err != nil {
		return err
	}
	return s.harvest(r, s.bystanders(), s.forbidden)
}

// spared tells every sixth message, so that honest ones stand between the forged
// ones.
func (s *siege) spared(i int) bool { return i%6 == 5 }

// moveQueue takes messages to another queue that has the same keys.
func moveQueue(s *siege) error {
	from, err := s.newQueue(false)
	if err != nil {
		return err
	}
	to, err := s.newQueue(false)
	if err != nil {
		return err
	}
	if err := s.send(from, 0, s.n, false); err != nil {
		return err
	}
	if err := s.send(to, s.n, s.n+s.bystanders(), false); err != nil {
		return err
	}
	stolen, err := s.capture(from)
	if err != nil {
		return err
	}
	if err := s.env.Broker.Attacker.Rewrite(s.ctx, from, func([]driver.Message) []driver.Message { return nil }); err != nil {
		return err
	}
	r, err := s.receiver(to, receiving{policy: queue.Reject})
	if err != nil {
		return err
	}
	if err := s.add(to, stolen); err != nil {
		return err
	}
	return s.harvest(r, s.bystanders(), s.forbidden)
}

// add puts forged messages among those of a queue.
func (s *siege) add(name string, forged []driver.Message) error {
	return s.assault(name, func(all []driver.Message) ([]driver.Message, []driver.Message, error) {
		var out []driver.Message
		for i := range max(len(all), len(forged)) {
			if i < len(forged) {
				out = append(out, forged[i])
			}
			if i < len(all) {
				out = append(out, all[i])
			}
		}
		return out, forged, nil
	})
}

// swapKeyID names another key that the receiver has.
func swapKeyID(s *siege) error {
	return s.alter(func(_ int, m *driver.Message, _ bool) error {
		return header(m, func(h *envelope.Header) { h.KeyID = string(otherKeyID) })
	}, false)
}

// injectPlaintext is an attack that puts messages of the attacker's own making
// into a queue whose receiver has that policy.
func injectPlaintext(policy queue.PlaintextPolicy) func(*siege) error {
	return func(s *siege) error {
		name, err := s.newQueue(false)
		if err != nil {
			return err
		}
		if err := s.send(name, 0, s.bystanders(), false); err != nil {
			return err
		}
		r, err := s.receiver(name, receiving{policy: policy})
		if err != nil {
			return err
		}
		var forged []driver.Message
		for i := range s.n {
			forged = append(forged, driver.Message{
				ID:          fmt.Sprintf("injected-%05d", i),
				ContentType: "application/json",
				Attributes:  map[string]string{"event": "push"},
				Body:        fmt.Appendf(nil, `{"ref":"refs/heads/main","forced":true,"n":%d}`, i),
			})
		}
		if err := s.add(name, forged); err != nil {
			return err
		}
		accept := s.forbidden
		if policy != queue.Reject {
			accept = func(d *queue.Delivery) {
				if d.Encrypted || d.KeyID != "" || d.Origin != "" || !d.EncryptedAt.IsZero() {
					s.fault("the injected message %q is not marked as unencrypted", d.ID)
				}
				if want := s.attempts[d.ID]; !bytes.Equal(d.Body, want.Body) {
					s.fault("the injected message %q has another body", d.ID)
				}
			}
		}
		return s.harvest(r, s.bystanders(), accept)
	}
}

// replayInWindow stores copies of messages that were handled, while they are
// fresh.
func replayInWindow(s *siege) error { return s.replay(receiving{policy: queue.Reject}, 0) }

// replayAfterWindow does it when they are not, with nobody to remember them.
func replayAfterWindow(s *siege) error {
	window := s.env.Window
	if window == 0 {
		window = 10 * time.Second
	}
	return s.replay(receiving{policy: queue.Reject, untracked: true, maxAge: window}, window+window/4)
}

func (s *siege) replay(how receiving, after time.Duration) error {
	name, err := s.newQueue(false)
	if err != nil {
		return err
	}
	if err := s.send(name, 0, s.n, false); err != nil {
		return err
	}
	copies, err := s.capture(name)
	if err != nil {
		return err
	}
	r, err := s.receiver(name, how)
	if err != nil {
		return err
	}
	if err := s.harvest(r, s.n, s.forbidden); err != nil { // the originals
		return err
	}
	if after > 0 {
		if err := s.pass(after); err != nil {
			return err
		}
	}
	if err := s.send(name, s.n, s.n+s.bystanders(), false); err != nil {
		return err
	}
	if err := s.add(name, copies); err != nil {
		return err
	}
	return s.harvest(r, s.bystanders(), s.forbidden)
}

// pass lets d pass.
func (s *siege) pass(d time.Duration) error {
	if s.env.Broker.Wait != nil {
		return s.env.Broker.Wait(s.ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// floodKeyIDs names keys that do not exist, each another, so that the receiver
// might ask its key provider for each.
func floodKeyIDs(s *siege) error {
	name, err := s.newQueue(false)
	if err != nil {
		return err
	}
	if err := s.send(name, 0, 1, false); err != nil {
		return err
	}
	captured, err := s.capture(name)
	if err != nil {
		return err
	}
	if len(captured) != 1 {
		return fmt.Errorf("the attacker finds %d messages, one was sent", len(captured))
	}
	if err := s.send(name, 1, s.bystanders(), false); err != nil {
		return err
	}
	r, err := s.receiver(name, receiving{policy: queue.Reject})
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: an attacker's guesses
	var forged []driver.Message
	for i := range s.n {
		m := *copyOf(&captured[0])
		m.ID = fmt.Sprintf("flood-%05d", i)
		if err := header(&m, func(h *envelope.Header) { h.KeyID = fmt.Sprintf("k%016x", random.Uint64()) }); err != nil {
			return err
		}
		forged = append(forged, m)
	}
	if err := s.add(name, forged); err != nil {
		return err
	}
	begin := time.Now()
	if err := s.harvest(r, s.bystanders(), s.forbidden); err != nil {
		return err
	}
	s.asked.mu.Lock()
	defer s.asked.mu.Unlock()
	// A bounded rate: honest messages ask for their one key each, a look for
	// unknown keys may come at once a few times, and then every few seconds.
	if most := s.bystanders() + 10 + int(time.Since(begin)/time.Second); s.asked.calls > most {
		s.fault("%d forged key IDs caused %d calls to the key provider, at most %d are bearable", s.n, s.asked.calls, most)
	}
	return nil
}

// unboundAttributeAdded adds an attribute that the sender did not bind: it must
// be told apart from his.
func unboundAttributeAdded(s *siege) error {
	name, err := s.newQueue(false)
	if err != nil {
		return err
	}
	if err := s.send(name, 0, s.n+s.bystanders(), false); err != nil {
		return err
	}
	r, err := s.receiver(name, receiving{policy: queue.Reject})
	if err != nil {
		return err
	}
	err = s.assault(name, func(all []driver.Message) (out, forged []driver.Message, err error) {
		left := s.n
		for i, m := range all {
			if left > 0 && !s.spared(i) {
				left--
				m = *copyOf(&m)
				m.Attributes[forgedAttribute] = "true"
				forged = append(forged, m)
			}
			out = append(out, m)
		}
		return out, forged, nil
	})
	if err != nil {
		return err
	}
	return s.harvest(r, s.bystanders(), func(d *queue.Delivery) {
		if fingerprintOf(&d.Message) != s.honest[d.ID] || !d.Encrypted {
			s.fault("message %q was delivered other than it was sent", d.ID)
		}
		if !maps.Equal(d.Unauthenticated, map[string]string{forgedAttribute: "true"}) {
			s.fault("the attribute that was added to message %q is not set apart", d.ID)
		}
	})
}

const forgedAttribute = "approved"

// twoKeyCiphertext stores messages whose ciphertext opens under two keys that
// share an ID: one is the victim's, the other lets somebody else read another
// text.
func twoKeyCiphertext(s *siege) error {
	name, err := s.newQueue(false)
	if err != nil {
		return err
	}
	const id keys.ID = "shared"
	theirs, err := keys.Generate(id, nil)
	if err != nil {
		return err
	}
	defer theirs.Destroy()
	own, err := keys.Generate(id, nil)
	if err != nil {
		return err
	}
	ring, err := keys.NewRing(own)
	if err != nil {
		return err
	}
	defer func() { _ = ring.Remove(id) }() // it is there
	mine, err := s.client(&queue.Options{Keys: ring, Crypto: queue.CryptoConfig{Enabled: true}})
	if err != nil {
		return err
	}
	s.sealing = mine
	if err := s.send(name, 0, s.bystanders(), false); err != nil {
		return err
	}
	var forged []driver.Message
	for i := range s.n {
		m := driver.Message{ID: fmt.Sprintf("two-key-%05d", i), ContentType: "application/json", Sealed: true}
		m.Body, err = salamander(&m, name, theirs, own, s.payload(i))
		if err != nil {
			return err
		}
		forged = append(forged, m)
	}
	r, err := s.receiver(name, receiving{policy: queue.Reject, keys: ring})
	if err != nil {
		return err
	}
	if err := s.add(name, forged); err != nil {
		return err
	}
	return s.harvest(r, s.bystanders(), s.forbidden)
}
