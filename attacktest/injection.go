package attacktest

import (
	"bytes"
	"fmt"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// forged records the delivery of a forged message in attacks of which none may be
// delivered.
func (s *scenario) forged(d *queue.Delivery) {
	s.fault("the forged message %q was delivered", d.ID)
}

// moveQueue moves messages to another queue with the same keys.
func moveQueue(s *scenario) error {
	from, err := s.newQueue()
	if err != nil {
		return err
	}
	to, err := s.newQueue()
	if err != nil {
		return err
	}
	if err := s.send(from, 0, s.n); err != nil {
		return err
	}
	if err := s.send(to, s.n, s.n+s.companions()); err != nil {
		return err
	}
	stolen, err := s.capture(from)
	if err != nil {
		return err
	}
	if err := s.env.Broker.Attacker.Rewrite(s.ctx, from, func([]driver.Message) []driver.Message { return nil }); err != nil {
		return err
	}
	r, err := s.receiver(to, receiverSettings{policy: queue.Reject})
	if err != nil {
		return err
	}
	if err := s.add(to, stolen); err != nil {
		return err
	}
	return s.receiveAll(r, s.companions(), s.forged)
}

// add interleaves forged messages with those of a queue.
func (s *scenario) add(name string, forged []driver.Message) error {
	return s.rewrite(name, func(all []driver.Message) ([]driver.Message, []driver.Message, error) {
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

// injectPlaintext is an attack that adds unsealed messages to a queue whose
// receiver has the given policy.
func injectPlaintext(policy queue.PlaintextPolicy) func(*scenario) error {
	return func(s *scenario) error {
		name, err := s.newQueue()
		if err != nil {
			return err
		}
		if err := s.send(name, 0, s.companions()); err != nil {
			return err
		}
		r, err := s.receiver(name, receiverSettings{policy: policy})
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
		accept := s.forged
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
		return s.receiveAll(r, s.companions(), accept)
	}
}

// twoKeyCiphertext stores messages whose ciphertext opens under two keys with the
// same ID: the victim's, and one with which another reader would see another text.
func twoKeyCiphertext(s *scenario) error {
	name, err := s.newQueue()
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
	s.victim = mine
	if err := s.send(name, 0, s.companions()); err != nil {
		return err
	}
	var forged []driver.Message
	for i := range s.n {
		m := driver.Message{ID: fmt.Sprintf("two-key-%05d", i), ContentType: "application/json", Sealed: true}
		m.Body, err = twoKeyBody(&m, name, theirs, own, s.payload(i))
		if err != nil {
			return err
		}
		forged = append(forged, m)
	}
	r, err := s.receiver(name, receiverSettings{policy: queue.Reject, keys: ring})
	if err != nil {
		return err
	}
	if err := s.add(name, forged); err != nil {
		return err
	}
	return s.receiveAll(r, s.companions(), s.forged)
}
