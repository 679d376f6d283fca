package sealing

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/stream"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

// QueueSealer seals the messages of one queue. It is safe for concurrent use.
type QueueSealer struct {
	Queue   string
	Crypto  Crypto
	Keys    keys.Provider // says which key is current
	Padding envelope.Padding
	Streams *stream.Streams // numbers the messages; nil if the QueueSealer only seals anew
	Observe *observe.Scope

	used  atomic.Pointer[keys.ID]  // the key that was last told to the Observer
	names atomic.Pointer[[]string] // of the last message's attributes, in the order of a header; never changed
}

// CurrentKey is the ID of the key to seal with now.
func (s *QueueSealer) CurrentKey(ctx context.Context) (keys.ID, *Failure) {
	id, err := s.Keys.CurrentKeyID(ctx)
	if err == nil {
		return id, nil
	}
	f := sealFailed(ctx, "", fmt.Errorf("no current key: %w", ProviderError(ctx, err)))
	s.tell(ctx, f)
	return "", f
}

// Number is a message's place in a stream of its sender.
type Number struct {
	stream.Number
	key keys.ID // of the stream
}

// Begin begins, now, a call that sends: the numbers of its messages come from n, which is
// zero. With stream.Loose all are loose, otherwise those of messages that may come late or
// never by design.
func (s *QueueSealer) Begin(n *Numbers, kind stream.Kind, now time.Time) {
	n.kind = kind
	s.Streams.Begin(&n.call, stream.ReadAt(now))
}

// Numbers gives out the numbers of the messages of one call. It is safe for concurrent
// use.
type Numbers struct {
	call stream.Call
	kind stream.Kind
}

// Next gives out the number of a message that is sealed under key id.
func (n *Numbers) Next(id keys.ID, m *driver.Message) Number {
	kind := n.kind
	if !m.NotBefore.IsZero() || m.TTL > 0 {
		kind = stream.Loose // it may arrive late or never by design: not accounted for
	}
	return Number{n.call.Next(kind, string(id), m.SessionID), id}
}

// Seal replaces the body of m, now, by its envelope under the key of n, or under the key
// that has become current if that one is gone; n is then the message's next number of the
// call, in the stream of that key. It returns the key that it used. After a failure m still holds the
// plaintext, and n is the caller's to end.
func (s *QueueSealer) Seal(ctx context.Context, numbers *Numbers, n *Number, m *driver.Message, now time.Time) (keys.ID, *Failure) {
	var h envelope.Header
	s.fill(&h, m, now)
	room := roomFor(s.Crypto)
	defer room.done(s.Crypto)
	data, err := s.bind(room, &h, m)
	if err != nil {
		return n.key, &Failure{KeyID: n.key, Err: driver.Errorf(driver.Invalid, "%w", err)}
	}
	plaintext := len(m.Body)
	n.into(&h)
	key, err := s.encrypt(ctx, &h, m, data)
	if errors.Is(err, keys.ErrNotFound) || errors.Is(err, keys.ErrDestroyed) {
		// The key may have been retired since it was current.
		if now, e := s.Keys.CurrentKeyID(ctx); e == nil && now != n.key {
			n.Void()
			*n = numbers.Next(now, m)
			n.into(&h)
			key, err = s.encrypt(ctx, &h, m, data)
		}
	}
	if err != nil {
		f := sealFailed(ctx, n.key, err)
		s.tell(ctx, f)
		return n.key, f
	}
	id := n.key
	m.Sealed = true
	if s.Observe.Active() {
		s.Observe.Sealed(ctx, s.Observe.Source, observe.Sealed{Took: time.Since(now), KeyID: id, Bytes: plaintext})
		s.noteKey(ctx, key)
	}
	return id, nil
}

// into writes the number, and the key of its stream, into a header.
func (n *Number) into(h *envelope.Header) {
	h.KeyID = string(n.key)
	h.Stream, h.Sequence = n.Stream, n.Sequence
	h.Settled, h.Previous = n.Settled, n.Previous
	h.Void = nil
	for _, r := range n.Voids {
		h.Void = append(h.Void, envelope.Range(r))
	}
}

// fill sets in h, which is zero, what m and the time determine.
func (s *QueueSealer) fill(h *envelope.Header, m *driver.Message, now time.Time) {
	h.EncryptedAt, h.Origin = now.UnixMilli(), s.Queue
	from := now
	if !m.NotBefore.IsZero() {
		h.NotBefore = ceilMilli(m.NotBefore)
		if m.NotBefore.After(from) {
			from = m.NotBefore
		}
	}
	if m.TTL > 0 {
		h.ExpiresAt = ceilMilli(from.Add(m.TTL))
	}
}

// bind names m's attributes in h and returns the data that the envelope authenticates, in
// room.
func (s *QueueSealer) bind(room *contextRoom, h *envelope.Header, m *driver.Message) (data []byte, err error) {
	if h.Bound, err = s.boundNames(m.Attributes); err != nil {
		return nil, err
	}
	return room.encode(m, h.Bound)
}

// boundNames is envelope.BoundNames. Most senders give all messages the same names: then
// they are collected and sorted once.
func (s *QueueSealer) boundNames(attributes map[string]string) ([]string, error) {
	if len(attributes) == 0 {
		return nil, nil
	}
	if last := s.names.Load(); last != nil && areNames(*last, attributes) {
		return *last, nil
	}
	names, err := envelope.BoundNames(attributes)
	if err == nil {
		s.names.Store(&names)
	}
	return names, err
}

// areNames reports whether names, which are distinct, are names of attributes.
func areNames(names []string, attributes map[string]string) bool {
	if len(names) != len(attributes) {
		return false
	}
	for _, name := range names {
		if _, ok := attributes[name]; !ok {
			return false
		}
	}
	return true
}

// encrypt replaces the body of m by its envelope under the key that h names. The key is
// nil if Crypto keeps its keys to itself.
func (s *QueueSealer) encrypt(ctx context.Context, h *envelope.Header, m *driver.Message, data []byte) (*keys.Key, error) {
	if c, ok := s.Crypto.(*Cipher); ok {
		e, err := c.epoch(ctx, keys.ID(h.KeyID), h.Origin)
		if err != nil {
			return nil, err
		}
		e.key.Confirm()
		h.Sender = e.sealer.Sender()
		b, err := e.sealer.SealPadded(nil, h, m.Body, data, s.Padding)
		if err == nil {
			m.Body = b
		}
		return e.key, err
	}
	e, err := s.Crypto.Encrypt(ctx, keys.ID(h.KeyID), *h, m.Body, data)
	if err != nil {
		return nil, err
	}
	b := e.Bytes()
	if !envelope.IsSealed(b) {
		return nil, errors.New("the CryptoProvider returned no envelope")
	}
	m.Body = b
	return nil, nil //nolint:nilnil // the provider's keys are its own
}

// noteKey tells the Observer of a key that the QueueSealer has taken up.
func (s *QueueSealer) noteKey(ctx context.Context, key *keys.Key) {
	if key == nil {
		return
	}
	id := key.ID()
	if last := s.used.Load(); last != nil && *last == id {
		return
	}
	s.used.Store(&id)
	s.Observe.KeyUsed(ctx, s.Observe.Source, observe.KeyUsed{KeyID: id, Created: key.Created(), Expires: key.Expires()})
}

func (s *QueueSealer) tell(ctx context.Context, f *Failure) {
	if f.Reason != "" {
		s.Observe.CryptoError(ctx, s.Observe.Source, observe.CryptoError{Reason: f.Reason, KeyID: f.KeyID})
	}
}

// ceilMilli rounds up, so that a message is never due early nor expired early.
func ceilMilli(t time.Time) int64 {
	return t.Add(time.Millisecond - 1).UnixMilli()
}

// LooksSealed reports whether a body that is not sealed would be taken for a sealed one.
// On a text transport that is also the marker in base64, which receivers go by if the
// transport's own mark is gone.
func LooksSealed(body []byte, text bool) bool {
	return envelope.IsSealed(body) || text && envelope.IsSealedText(body)
}
