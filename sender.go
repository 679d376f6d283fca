package queue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/sessionkey"
)

// SenderOptions configure a [Sender].
type SenderOptions struct {
	// Crypto replaces the Client's for this sender. Nil: the Client's.
	Crypto *CryptoConfig

	// Keys replace the Client's for this sender. Nil: the Client's.
	Keys keys.Provider

	// CryptoProvider replaces AESGCM over Keys. Nil: the Client's, unless Keys
	// are set.
	CryptoProvider CryptoProvider

	// SessionKey fills in the SessionID of messages that have none. Nil: none.
	SessionKey sessionkey.Strategy
}

// Sender sends to one queue. It is safe for concurrent use.
type Sender struct {
	*endpoint
	sessions sessionkey.Strategy
	used     atomic.Pointer[keys.ID] // the key that was last reported
}

// Sender opens queue for sending. o may be nil. The Sender lives until its Close
// or the Client's.
func (c *Client) Sender(ctx context.Context, queue string, o *SenderOptions) (*Sender, error) {
	if o == nil {
		o = &SenderOptions{}
	}
	e, err := c.open(ctx, "sender", queue, o.Keys, o.CryptoProvider, o.Crypto, nil)
	if err != nil {
		return nil, wrap("open sender", queue, err)
	}
	if e.cfg.Enabled && e.keys == nil {
		_ = e.q.Close(ctx) // the configuration's error is the one that tells
		return nil, wrap("open sender", queue, invalidOption("a CryptoProvider seals under the current key of Keys: set Keys"))
	}
	if o.SessionKey != nil {
		if err := sessionkey.Validate(o.SessionKey); err != nil {
			_ = e.q.Close(ctx) // the configuration's error is the one that tells
			return nil, wrap("open sender", queue, invalidOption("SessionKey: %v", err))
		}
	}
	return &Sender{endpoint: e, sessions: o.SessionKey}, nil
}

// Capabilities are what the queue's broker can do.
func (s *Sender) Capabilities() driver.Capabilities { return s.capabilities() }

// Close releases the sender. Other senders of the queue live on.
func (s *Sender) Close(ctx context.Context) error {
	if ctx == nil {
		return wrap("close", s.queue, errNilContext)
	}
	return wrap("close", s.queue, s.q.Close(ctx))
}

// Send seals and sends one message. When it returns nil the broker has confirmed
// that it holds the message; after an error it may hold it all the same, and
// sending again with the same ID makes a second copy. It neither retains nor
// changes m.
func (s *Sender) Send(ctx context.Context, m *Message) (SendResult, error) {
	var one [1]*Message
	one[0] = m
	r, err := s.prepare(ctx, one[:])
	if err != nil {
		return SendResult{Err: err}, err
	}
	s.dispatch(ctx, r)
	return r[0].result, r[0].result.Err
}

// BatchError says that some messages of a batch were not sent; the results say
// which. errors.Is and errors.As see the first cause.
type BatchError struct {
	Queue  string
	Failed int
	Total  int
	Err    error // of the first that failed
}

func (e *BatchError) Error() string {
	return fmt.Sprintf("queue: send batch %q: %d of %d messages failed, the first: %v", e.Queue, e.Failed, e.Total, e.Err)
}

func (e *BatchError) Unwrap() error { return e.Err }

// SendBatch sends messages in as few calls to the broker as its limits allow, by
// count and by sealed size. Each message succeeds or fails on its own: there is
// one result per message, in order, and an error (a *BatchError) when any
// failed. Where a message of a session fails, the later ones of that session
// that were not yet on their way are not sent (ErrNotSent), so that sending the
// failed ones again keeps the order. An error of the call as a whole, such as no
// current key, comes without results: nothing was sent.
func (s *Sender) SendBatch(ctx context.Context, m []*Message) ([]SendResult, error) {
	r, err := s.prepare(ctx, m)
	if err != nil {
		return nil, err
	}
	s.dispatch(ctx, r)
	out := make([]SendResult, len(r))
	var failed BatchError
	for i := range r {
		out[i] = r[i].result
		if e := out[i].Err; e != nil {
			if failed.Failed == 0 {
				failed.Err = e
			}
			failed.Failed++
		}
	}
	if failed.Failed == 0 {
		return out, nil
	}
	failed.Queue, failed.Total = s.queue, len(m)
	return out, &failed
}

// outgoing is one message on its way out.
type outgoing struct {
	// m is nil unless it was prepared: sealed, where that is called for.
	m       *driver.Message
	session string
	size    int
	// carries says that m has a trace context of its own, which is not that of
	// the call that sends it.
	carries bool
	result  SendResult
}

// prepare validates, seals and measures each message; the error is of the call
// as a whole. Failures of one message are in its result.
func (s *Sender) prepare(ctx context.Context, m []*Message) ([]outgoing, error) {
	if err := checkContext(ctx); err != nil {
		return nil, wrap("send", s.queue, err)
	}
	if s.client.closed.Load() {
		return nil, wrap("send", s.queue, driver.ErrClosed)
	}
	var id keys.ID
	if s.cfg.Enabled {
		var err error
		if id, err = s.keys.CurrentKeyID(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			s.event(ctx, Event{Kind: EventCryptoError, ErrorType: codeSealing})
			return nil, wrap("send", s.queue, fmt.Errorf("%w: no current key: %w", ErrEncryptionFailed, providerError(ctx, err)))
		}
	}
	trace := s.inject(ctx)
	out := make([]outgoing, len(m))
	bytes := 0
	for _, m := range m {
		if m != nil {
			bytes += len(m.Body)
		}
	}
	parallel(len(m), bytes, func(i int) {
		out[i].result.Err = wrap("send", s.queue, s.prepareOne(ctx, m[i], id, trace, &out[i]))
	})
	return out, nil
}

func (s *Sender) prepareOne(ctx context.Context, m *Message, id keys.ID, trace map[string]string, out *outgoing) error {
	if err := m.validate(); err != nil {
		return err
	}
	mid := m.ID
	if mid == "" {
		mid = newID()
	}
	d := m.driverMessage(mid)
	d.Trace = trace
	out.result.MessageID = mid
	if d.SessionID == "" {
		session, err := s.sessionID(m)
		if err != nil {
			return err
		}
		d.SessionID = session
	}
	out.session = d.SessionID
	if s.caps.SessionOnly && d.SessionID == "" {
		return driver.Errorf(driver.Invalid, "this queue needs a SessionID on every message")
	}
	if max := s.caps.MaxBody; max > 0 && len(m.Body) > max {
		return driver.NewTooLarge("body", len(m.Body), max)
	}
	if s.cfg.Enabled {
		id, err := s.seal(ctx, id, d)
		if err != nil {
			if errors.Is(err, ErrEncryptionFailed) {
				s.event(ctx, Event{Kind: EventCryptoError, ErrorType: codeSealing, KeyID: id})
			}
			return err
		}
		out.result.Encrypted, out.result.KeyID = true, id
		if max := s.caps.MaxBody; max > 0 && len(d.Body) > max {
			return driver.NewTooLarge("sealed body", len(d.Body), max)
		}
	} else if envelope.IsSealed(d.Body) || !s.caps.BinaryBody && looksSealedAsText(d.Body) {
		return fmt.Errorf("%w: it starts with the marker of a sealed message, so a receiver could not tell; enable encryption", ErrMarkerCollision)
	}
	out.size = s.q.Size(d)
	if max := s.caps.MaxBatchBytes; max > 0 && out.size > max && d.Trace != nil {
		d.Trace = nil // a message does not fail for its trace
		out.size = s.q.Size(d)
	}
	if max := s.caps.MaxBatchBytes; max > 0 && out.size > max {
		return driver.NewTooLarge("message", out.size, max)
	}
	out.m = d
	return nil
}

// sessionID asks the strategy for the session of a message that has none.
func (s *Sender) sessionID(m *Message) (string, error) {
	if s.sessions == nil {
		return "", nil
	}
	id, err := s.sessions.SessionID(&sessionkey.Message{Body: m.Body, ContentType: m.ContentType, Attributes: m.Attributes})
	if err == nil {
		err = sessionkey.Check(id)
	}
	if err != nil {
		return "", driver.Errorf(driver.Invalid, "session key: %w", err)
	}
	return id, nil
}

// looksSealedAsText recognises the marker in base64, which text transports take
// for a sealed body where their own mark is gone.
func looksSealedAsText(body []byte) bool {
	return envelope.IsSealedText(body)
}

// seal replaces d's body by its envelope, and returns the key that it used: id, or
// the one that has become current.
func (s *Sender) seal(ctx context.Context, id keys.ID, d *driver.Message) (keys.ID, error) {
	begin := time.Now()
	bound, err := envelope.BoundNames(d.Attributes)
	if err != nil {
		return id, driver.Errorf(driver.Invalid, "%w", err)
	}
	h := envelope.Header{
		EncryptedAt: begin.UnixMilli(),
		Sequence:    1,
		KeyID:       string(id),
		Origin:      s.queue,
		Bound:       bound,
	}
	_, _ = rand.Read(h.Stream[:]) // one message a stream: internal/stream is not used yet
	from := begin
	if !d.NotBefore.IsZero() {
		h.NotBefore = ceilMilli(d.NotBefore)
		if d.NotBefore.After(from) {
			from = d.NotBefore
		}
	}
	if d.TTL > 0 {
		h.ExpiresAt = ceilMilli(from.Add(d.TTL))
	}
	ctxData, err := envelope.AppendContext(nil, &envelope.Context{
		MessageID:     d.ID,
		SessionID:     d.SessionID,
		ContentType:   d.ContentType,
		CorrelationID: d.CorrelationID,
		Attributes:    d.Attributes,
	}, bound)
	if err != nil {
		return id, driver.Errorf(driver.Invalid, "%w", err)
	}
	plain := d.Body
	key, err := s.encrypt(ctx, id, &h, d, ctxData)
	if errors.Is(err, keys.ErrNotFound) || errors.Is(err, keys.ErrDestroyed) {
		// The key may have been retired since it was current.
		if now, e := s.keys.CurrentKeyID(ctx); e == nil && now != id {
			id, h.KeyID = now, string(now)
			key, err = s.encrypt(ctx, id, &h, d, ctxData)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return id, ctx.Err()
		}
		if errors.Is(err, ErrEncryptionFailed) {
			return id, err
		}
		return id, fmt.Errorf("%w: %w", ErrEncryptionFailed, err)
	}
	d.Sealed = true
	if s.o != nil {
		s.event(ctx, Event{Kind: EventSealed, Duration: time.Since(begin), KeyID: id, Bytes: len(plain)})
		if last := s.used.Load(); key != nil && (last == nil || *last != id) {
			s.used.Store(&id)
			s.event(ctx, Event{Kind: EventKeyUsed, KeyID: id, Created: key.Created(), Expires: key.Expires()})
		}
	}
	return id, nil
}

// encrypt replaces d's body by its envelope under key id.
func (s *Sender) encrypt(ctx context.Context, id keys.ID, h *envelope.Header, d *driver.Message, ctxData []byte) (*keys.Key, error) {
	if a, ok := s.crypto.(*AESGCM); ok {
		dst := make([]byte, 0, envelope.SealedSize(h, len(d.Body)))
		b, key, err := a.appendSealed(ctx, dst, id, h, d.Body, ctxData)
		if err == nil {
			d.Body = b
		}
		return key, err
	}
	m, err := s.crypto.Encrypt(ctx, id, *h, d.Body, ctxData)
	if err != nil {
		return nil, err
	}
	b := m.Bytes()
	if !envelope.IsSealed(b) {
		return nil, errors.New("the CryptoProvider returned no envelope")
	}
	d.Body = b
	return nil, nil //nolint:nilnil // the provider's keys are its own
}

// ceilMilli rounds up, so that a message is never due early nor expired early.
func ceilMilli(t time.Time) int64 {
	return t.Add(time.Millisecond - 1).UnixMilli()
}
