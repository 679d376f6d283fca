package attacktest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// The senders of the attacks on sender keys. The attacker has the key of the second.
const (
	honestSender = "router"
	stolenSender = "mailer"
)

// posing is a Deriver that derives with the stolen sender key for whatever sender is asked
// for: what a program with that key can do if it keeps to no rule.
type posing struct{ stolen *keys.Key }

// Derive implements envelope.Deriver.
func (p posing) Derive(_ string, info []byte) ([64]byte, error) {
	return p.stolen.Derive(stolenSender, info)
}

// stolenKey is the sender key that the attacker has: of the victim's own master key.
func (s *scenario) stolenKey() (*keys.Key, error) {
	master, err := s.keys.GetKey(s.ctx, keyID)
	if err != nil {
		return nil, err
	}
	return master.Sender(stolenSender)
}

// sealAsSender makes the victim's messages come from a client that has a sender key alone.
func (s *scenario) sealAsSender() error {
	master, err := s.keys.GetKey(s.ctx, keyID)
	if err != nil {
		return err
	}
	own, err := master.Sender(honestSender)
	if err != nil {
		return err
	}
	ring, err := keys.NewRing(own)
	if err != nil {
		return err
	}
	s.victim, err = s.client(&queue.Options{Keys: ring, Crypto: queue.CryptoConfig{Enabled: true}})
	return err
}

// forgeSender stores messages that a holder of one sender key made up in the name of
// another sender, and of a holder of the master key.
func forgeSender(s *scenario) error {
	name, err := s.newQueue()
	if err != nil {
		return err
	}
	if err := s.sealAsSender(); err != nil {
		return err
	}
	if err := s.send(name, 0, s.companions()); err != nil {
		return err
	}
	stolen, err := s.stolenKey()
	if err != nil {
		return err
	}
	defer stolen.Destroy()
	var forged []driver.Message
	for i := range s.n {
		m := driver.Message{ID: fmt.Sprintf("forged-%05d", i), ContentType: "application/json", Sealed: true}
		if m.Body, err = forgedBody(i, &m, name, stolen, s.payload(i)); err != nil {
			return err
		}
		forged = append(forged, m)
	}
	r, err := s.receiver(name, receiverSettings{policy: queue.Reject})
	if err != nil {
		return err
	}
	if err := s.add(name, forged); err != nil {
		return err
	}
	return s.receiveAll(r, s.companions(), s.forged)
}

// forgedBody is the i-th envelope that a stolen sender key seals in another's name.
func forgedBody(i int, m *driver.Message, origin string, stolen *keys.Key, plaintext []byte) ([]byte, error) {
	h := envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: origin, Sequence: uint64(i) + 1} //nolint:gosec // G115: not negative
	h.Stream[0] = byte(i)                                                                              //nolint:gosec // G115: any stream will do
	data, err := envelope.AppendContext(nil, &envelope.Context{MessageID: m.ID, ContentType: m.ContentType}, nil)
	if err != nil {
		return nil, err
	}
	var d envelope.Deriver = posing{stolen}
	sender := []string{honestSender, "", stolenSender}[i%3]
	if sender == stolenSender {
		d = stolen // sealed by the rules; the sender is changed afterwards
	}
	sealer, err := envelope.NewSealer(d, string(keyID), sender)
	if err != nil {
		return nil, err
	}
	m.Body, err = sealer.Seal(nil, &h, plaintext, data)
	if err == nil && sender == stolenSender {
		err = header(m, func(h *envelope.Header) { h.Sender = honestSender })
	}
	return m.Body, err
}

// forgeSessionState stores states of sessions that a holder of a sender key made up, or
// moved from another session, with the broker's help.
func forgeSessionState(s *scenario) (err error) {
	name, err := s.newQueue()
	if err != nil {
		return err
	}
	s.queue = name
	r, err := s.receiver(name, receiverSettings{policy: queue.Reject})
	if err != nil {
		return err
	}
	if c := r.Capabilities(); c.SessionState == driver.None || !c.AcceptByID {
		return driver.Unsupported("session state")
	}
	for i := range s.companions() {
		if err := s.inSession(r, honestSession(i), func(x *queue.Session) error { return x.SetState(s.ctx, s.payload(i)) }); err != nil {
			return err
		}
	}
	if err := s.storeStates(name); err != nil {
		return err
	}
	for i := range s.n {
		id := forgedSession(i)
		if err := s.inSession(r, id, func(x *queue.Session) error { return s.judgeState(x, id) }); err != nil {
			return err
		}
	}
	for i := range s.companions() {
		if err := s.inSession(r, honestSession(i), func(x *queue.Session) error {
			if b, err := x.State(s.ctx); err != nil || string(b) != string(s.payload(i)) {
				s.fault("the honest state of session %q was lost: %v", x.ID(), err)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func honestSession(i int) string { return fmt.Sprintf("honest-%05d", i) }

func forgedSession(i int) string { return fmt.Sprintf("forged-%05d", i) }

// inSession calls f with a session of the victim's.
func (s *scenario) inSession(r *queue.Receiver, id string, f func(*queue.Session) error) error {
	x, err := persist(s.ctx, func() (*queue.Session, error) { return r.AcceptSession(s.ctx, id) })
	if err != nil {
		return err
	}
	return errors.Join(f(x), x.Close(s.ctx))
}

// maxAttempts is how many attempts a broker has that is too busy to answer in time.
const maxAttempts = 10

// persist accepts a session of a broker that may be too busy to answer in time.
func persist[T any](ctx context.Context, accept func() (T, error)) (T, error) {
	for n := 1; ; n++ {
		x, err := accept()
		if n >= maxAttempts || !errors.Is(err, queue.ErrUnavailable) || !backoff.Sleep(ctx, time.Second) {
			return x, err
		}
	}
}

// judgeState reads a forged state as the application does.
func (s *scenario) judgeState(x *queue.Session, id string) error {
	b, err := x.State(s.ctx)
	switch {
	case err == nil:
		s.became[id] = delivered
		s.fault("the forged state of session %q was read: %d bytes", id, len(b))
	case errors.Is(err, queue.ErrAuthenticationFailed):
		s.became[id] = refused
	default:
		return err
	}
	return nil
}

// storeStates is the attacker's part of forgeSessionState: it needs no key but the stolen
// one, and the broker.
func (s *scenario) storeStates(name string) (err error) {
	stolen, err := s.stolenKey()
	if err != nil {
		return err
	}
	defer stolen.Destroy()
	broker, err := s.env.Broker.Connect(s.ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, broker.Close(context.WithoutCancel(s.ctx))) }()
	q, err := broker.Open(s.ctx, name, nil)
	if err != nil {
		return err
	}
	moved, err := s.state(q, honestSession(0), nil)
	if err != nil {
		return err
	}
	for i := range s.n {
		id := forgedSession(i)
		b := moved
		if i%3 < 2 {
			if b, err = forgedState(i, name, id, stolen); err != nil {
				return err
			}
		}
		if _, err := s.state(q, id, b); err != nil {
			return err
		}
		s.attempts[id] = driver.Message{ID: id, Body: b}
	}
	return nil
}

// forgedState is the i-th state that a stolen sender key seals: as its own sender, or as a
// holder of the master key.
func forgedState(i int, name, session string, stolen *keys.Key) ([]byte, error) {
	var d envelope.Deriver = stolen
	sender := stolenSender
	if i%3 == 1 {
		d, sender = posing{stolen}, ""
	}
	sealer, err := envelope.NewSealer(d, string(keyID), sender)
	if err != nil {
		return nil, err
	}
	data := []byte("queue-runtime/session-state/v1\x00")                    // what package queue binds a state to
	data = binary.BigEndian.AppendUint32(data, uint32(len(name)))           //nolint:gosec // G115: at most 255
	h := envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: name} // direct use (qre1, Section 4.3)
	return sealer.SealApp(nil, &h, fmt.Appendf(nil, "forged progress %d", i), append(append(data, name...), session...))
}

// state replaces the stored state of a session unless b is nil, and returns what is stored.
func (s *scenario) state(q driver.Queue, session string, b []byte) (_ []byte, err error) {
	x, err := persist(s.ctx, func() (driver.Session, error) { return q.AcceptSession(s.ctx, session, 10*time.Second) })
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.Close(s.ctx)) }()
	store, ok := x.(driver.StatefulSession)
	if !ok {
		return nil, driver.Unsupported("session state")
	}
	if b != nil {
		if err := store.SetState(s.ctx, b); err != nil {
			return nil, err
		}
	}
	return store.State(s.ctx)
}
