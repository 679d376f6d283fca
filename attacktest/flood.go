package attacktest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// floodKeyIDs stores messages that each name another key that does not exist. The
// receiver must not ask its key provider for each.
func floodKeyIDs(s *scenario) error {
	name, err := s.newQueue()
	if err != nil {
		return err
	}
	if err := s.send(name, 0, 1); err != nil {
		return err
	}
	captured, err := s.capture(name)
	if err != nil {
		return err
	}
	if len(captured) != 1 {
		return fmt.Errorf("the attacker finds %d messages, one was sent", len(captured))
	}
	if err := s.send(name, 1, s.companions()); err != nil {
		return err
	}
	r, err := s.receiver(name, receiverSettings{policy: queue.Reject})
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: an attacker's guesses
	var forged []driver.Message
	for i := range s.n {
		m := captured[0].Clone()
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
	if err := s.receiveAll(r, s.companions(), s.forged); err != nil {
		return err
	}
	s.provider.mu.Lock()
	defer s.provider.mu.Unlock()
	// Each honest message may ask for its key once. Calls for unknown keys may
	// come in a burst of ten, and then once a second.
	if limit := s.companions() + 10 + int(time.Since(begin)/time.Second); s.provider.calls > limit {
		s.fault("%d forged key IDs caused %d calls to the key provider, at most %d are bearable", s.n, s.provider.calls, limit)
	}
	return nil
}
