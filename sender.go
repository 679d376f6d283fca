package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/internal/stream"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/sessionkey"
)

// SenderOptions configure a [Sender].
type SenderOptions struct {
	// Crypto replaces the Client's for this sender. Nil means the Client's.
	Crypto *CryptoConfig

	// Keys replace the Client's for this sender. Nil means the Client's.
	Keys keys.Provider

	// CryptoProvider replaces AESGCM over Keys. Nil means the Client's, unless Keys
	// are set.
	CryptoProvider CryptoProvider

	// SessionKey fills in the SessionID of messages that have none. Nil means none.
	SessionKey sessionkey.Strategy

	// Padding hides the length of bodies: envelope.Padme adds at most 12 %,
	// envelope.PadTo(n) pads to multiples of n bytes. The broker's limits hold for what
	// is padded. It needs AESGCM, and does nothing to messages that are not sealed. Zero
	// means no padding, which costs nothing.
	Padding envelope.Padding
}

// Sender sends to one queue. It is safe for concurrent use.
type Sender struct {
	*endpoint
	sessions sessionkey.Strategy
}

// Sender opens queue for sending. o may be nil. The Sender lives until its Close
// or the Client's.
func (c *Client) Sender(ctx context.Context, queue string, o *SenderOptions) (*Sender, error) {
	if o == nil {
		o = &SenderOptions{}
	}
	const op = "open sender"
	if o.SessionKey != nil {
		if err := sessionkey.Validate(o.SessionKey); err != nil {
			return nil, wrap(op, queue, invalidOption("SessionKey: %v", err))
		}
	}
	if err := o.Padding.Validate(); err != nil {
		return nil, wrap(op, queue, invalidOption("SenderOptions.Padding: %v", err))
	}
	e, err := c.open(ctx, endpointRequest{queue: queue, role: observe.Sender, keys: o.Keys, crypto: o.CryptoProvider, config: o.Crypto})
	if err != nil {
		return nil, wrap(op, queue, err)
	}
	if e.cfg.Enabled && e.sealer == nil {
		_ = e.close(ctx) // the configuration's error is the one that tells
		return nil, wrap(op, queue, invalidOption("a CryptoProvider seals under the current key of Keys: set Keys"))
	}
	if _, ok := e.opener.Crypto.(*sealing.Cipher); o.Padding != envelope.NoPadding && e.opener.Crypto != nil && !ok {
		_ = e.close(ctx) // the configuration's error is the one that tells
		return nil, wrap(op, queue, invalidOption("SenderOptions.Padding needs AESGCM: another CryptoProvider pads by itself"))
	}
	if err := e.checkSealing(ctx); err != nil {
		_ = e.close(ctx) // as above
		return nil, wrap(op, queue, err)
	}
	if e.sealer != nil {
		e.sealer.Padding = o.Padding
		e.sealer.Streams = stream.New(e.endEpochs)
	}
	return &Sender{endpoint: e, sessions: o.SessionKey}, nil
}

// checkSealing refuses a sender for which no key is current. It logs that the current key
// is expired, and that a sender has keys and seals nothing. A sender whose key provider
// does not answer opens: the provider may be back when a message is sent.
func (e *endpoint) checkSealing(ctx context.Context) error {
	switch {
	case e.cfg.Enabled:
		// Not through the sealer, which counts messages that could not be sealed.
		id, err := e.sealer.Keys.CurrentKeyID(ctx)
		switch {
		case errors.Is(err, keys.ErrNotFound):
			return fmt.Errorf("%w: no current key: %w", ErrEncryptionFailed, sealing.ProviderError(ctx, err))
		case err != nil:
			return nil
		}
		if k, err := e.sealer.Keys.GetKey(ctx, id); err == nil && k.Expired(time.Now()) {
			e.log.LogAttrs(ctx, slog.LevelError, "The current key is expired: nothing can be sent until a newer key is current",
				slog.String("queue", e.queue), slog.String("key_id", string(id)), slog.Time("expired", k.Expires()))
		}
	case e.sealer != nil:
		e.log.LogAttrs(ctx, slog.LevelWarn, "Sender has keys and sends plaintext: Crypto.Enabled is not set",
			slog.String("queue", e.queue), slog.Bool("encrypted", false))
	}
	return nil
}

// Capabilities are what the queue's broker can do.
func (s *Sender) Capabilities() driver.Capabilities { return s.caps }

// Close releases the sender. Other senders of the queue live on.
func (s *Sender) Close(ctx context.Context) error {
	return wrap("close", s.queue, s.close(ctx))
}

// Send seals and sends one message. When it returns nil the broker has confirmed
// that it holds the message. It neither retains nor changes m.
//
// If the broker does not answer, Send sends the same bytes again, a few times within ctx,
// the last time after less than 10 s, if a repeat does no harm: receivers with a replay
// store know a sealed message by its number, and a broker with Capabilities().Dedup drops a
// repeated DedupID. An error that wraps ErrUnconfirmed says that the broker may hold the
// message all the same; sending it again makes a second message. It also wraps ctx.Err() if
// ctx ended while the broker was asked. After any other error the broker does not hold it.
func (s *Sender) Send(ctx context.Context, m *Message) (SendResult, error) {
	var one [1]*Message
	one[0] = m
	r, now, err := s.prepare(ctx, stream.Plain, one[:])
	if err != nil {
		return SendResult{Err: err}, err
	}
	o := &r[0]
	if o.result.Err == nil {
		s.sendRepeating(ctx, []*outgoing{o}, now.Add(repeatWindow))
	}
	o.conclude(s.queue)
	return o.result, o.result.Err
}

// BatchError says that some messages of a batch were not sent; the results say
// which. errors.Is and errors.As see the first cause.
type BatchError struct {
	Queue  string
	Failed int   // messages that were not sent
	Total  int   // messages of the batch
	Err    error // of the first that failed
}

func (e *BatchError) Error() string {
	return fmt.Sprintf("queue: send batch %q: %d of %d messages failed, the first: %v", e.Queue, e.Failed, e.Total, e.Err)
}

func (e *BatchError) Unwrap() error { return e.Err }

// SendBatch sends messages in as few calls to the broker as its limits allow, by
// count and by sealed size. Each message succeeds or fails on its own: there is
// one result per message, in order, and an error (a *BatchError) when any
// failed. If a message of a session fails, the later ones of that session are not sent
// (ErrNotSent), so that sending the failed ones again keeps the order. On a broker
// without Capabilities().OrderedBatch that takes a call for each message of a session;
// messages of several sessions share calls. An error of the call as a whole, such as no
// current key, comes without results: nothing was sent.
func (s *Sender) SendBatch(ctx context.Context, m []*Message) ([]SendResult, error) {
	r, now, err := s.prepare(ctx, stream.Plain, m)
	if err != nil {
		return nil, err
	}
	s.dispatch(ctx, r, func(ctx context.Context, call []*outgoing) { s.sendRepeating(ctx, call, now.Add(repeatWindow)) })
	out := make([]SendResult, len(r))
	var failed BatchError
	for i := range r {
		r[i].conclude(s.queue)
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

// outgoing is one message that is being sent.
type outgoing struct {
	// m is &message, nil unless that was prepared: sealed, if that is called for.
	m       *driver.Message
	message driver.Message
	alone   [1]*driver.Message // room for a call that sends nothing else
	number  sealing.Number     // of a sealed message; zero otherwise
	session string
	size    int // in bytes, of the whole message; 0 if the broker bounds none
	// carries says that m has a trace context of its own, which is not the one of
	// the call that sends it.
	carries bool
	// answered says that nothing more is tried; for the Batcher.
	answered bool
	state    sendState
	result   SendResult
}

// sendState is what is known of a message at the broker.
type sendState uint8

const (
	absent  sendState = iota // no try was made, or each was refused
	unknown                  // a try was not answered: the broker may hold the message
	present                  // the broker has confirmed that it holds it
)

// tried notes the outcome of a try. That a later one is refused says nothing about one
// that was not answered.
func (o *outgoing) tried(err error) {
	o.result.Err = err
	switch {
	case err == nil:
		o.state = present
	case unanswered(err):
		o.state = unknown
	}
}

// conclude ends the message's number by what became of the message. It is called once
// nothing more is tried.
func (o *outgoing) conclude(queue string) {
	switch o.state {
	case present:
		o.number.Confirm()
	case unknown:
		o.number.Unknown()
		o.result.Err = unconfirmed(queue, o.result.Err)
	default:
		o.number.Void()
	}
}

// prepare validates, numbers, seals and measures each message; the error is of the call
// as a whole. Failures of one message are in its result. now is when it began, after the key
// provider has answered.
func (s *Sender) prepare(ctx context.Context, kind stream.Kind, m []*Message) (out []outgoing, now time.Time, err error) {
	if err := checkContext(ctx); err != nil {
		return nil, now, wrap("send", s.queue, err)
	}
	if s.client.closed.Load() {
		return nil, now, wrap("send", s.queue, driver.ErrClosed)
	}
	var key keys.ID
	if s.cfg.Enabled {
		var f *sealing.Failure
		if key, f = s.sealer.CurrentKey(ctx); f != nil {
			return nil, now, wrap("send", s.queue, publicError(f))
		}
	}
	now = time.Now()
	out = make([]outgoing, len(m))
	c := common{key: key, trace: s.obs.TraceOf(ctx)}
	if len(m) == 1 {
		s.begin(&c, kind, now)
		s.start(&c, m[0], &out[0])
		s.finish(ctx, &c, &out[0], now)
	} else {
		shared := c // by goroutines: one that is alone needs no memory for it
		s.begin(&shared, kind, now)
		s.prepareAll(ctx, &shared, m, out)
	}
	return out, now, nil
}

// common is what the messages of one call have in common.
type common struct {
	key     keys.ID         // to seal under
	numbers sealing.Numbers // of sealed messages
	trace   map[string]string
}

// prepareAll prepares a batch, in several goroutines if that pays.
func (s *Sender) prepareAll(ctx context.Context, c *common, m []*Message, out []outgoing) {
	bytes := 0
	for i, m := range m {
		s.start(c, m, &out[i])
		if out[i].m != nil {
			bytes += len(m.Body)
		}
	}
	parallel(len(out), bytes, func(i int) { s.finish(ctx, c, &out[i], time.Time{}) })
}

// begin begins to number messages if they are sealed.
func (s *Sender) begin(c *common, kind stream.Kind, now time.Time) {
	if s.cfg.Enabled {
		s.sealer.Begin(&c.numbers, kind, now)
	}
}

// start validates one message, and numbers it if it is to be sealed.
func (s *Sender) start(c *common, m *Message, out *outgoing) {
	out.result.Err = wrap("send", s.queue, s.draft(m, out))
	if out.result.Err == nil && s.cfg.Enabled {
		out.number = c.numbers.Next(c.key, out.m)
	}
}

// draft validates one message and builds the driver's message, not sealed yet.
func (s *Sender) draft(m *Message, out *outgoing) error {
	if err := m.validate(); err != nil {
		if m != nil {
			out.session = m.SessionID
		}
		return err
	}
	out.result.MessageID = m.ID
	if m.ID == "" {
		out.result.MessageID = newID()
	}
	d := &out.message
	m.into(d, out.result.MessageID)
	if d.SessionID == "" {
		var err error
		if d.SessionID, err = s.sessionID(m); err != nil {
			return err
		}
	}
	out.session = d.SessionID
	if s.caps.SessionOnly && d.SessionID == "" {
		return driver.Errorf(driver.Invalid, "this queue needs a SessionID on every message")
	}
	if limit := s.caps.MaxBody; limit > 0 && len(m.Body) > limit {
		return driver.NewTooLarge("body", len(m.Body), limit)
	}
	out.m = d
	return nil
}

// finish seals a drafted message, measures it, and gives it a trace context. It does nothing
// to one that has failed. now is the time of sealing; zero means that the clock is read,
// because sealing the messages before may have taken a while.
func (s *Sender) finish(ctx context.Context, c *common, out *outgoing, now time.Time) {
	if out.m == nil {
		return
	}
	err := s.protect(ctx, &c.numbers, out, now)
	if err == nil {
		err = s.measure(out)
	}
	if err != nil {
		out.m, out.message = nil, driver.Message{} // it may hold the plaintext
		out.result.Err = wrap("send", s.queue, err)
		return
	}
	s.carry(out, c.trace)
}

// measure refuses what is too large for the broker.
func (s *Sender) measure(out *outgoing) error {
	limit := s.caps.MaxBatchBytes
	if limit == 0 {
		return nil // no size is asked for
	}
	if out.size = s.q.Size(out.m); out.size > limit {
		return driver.NewTooLarge("message", out.size, limit)
	}
	return nil
}

// protect seals the message if encryption is enabled, and otherwise refuses what a
// receiver would take for sealed.
func (s *Sender) protect(ctx context.Context, numbers *sealing.Numbers, out *outgoing, now time.Time) error {
	if !s.cfg.Enabled {
		if sealing.LooksSealed(out.m.Body, !s.caps.BinaryBody) {
			return fmt.Errorf("%w: it starts with the marker of a sealed message, so a receiver could not tell; enable encryption", ErrMarkerCollision)
		}
		return nil
	}
	if now.IsZero() {
		now = time.Now()
	}
	id, f := s.sealer.Seal(ctx, numbers, &out.number, out.m, now)
	if f != nil {
		return publicError(f)
	}
	out.result.Encrypted, out.result.KeyID = true, id
	if limit := s.caps.MaxBody; limit > 0 && len(out.m.Body) > limit {
		return driver.NewTooLarge("sealed body", len(out.m.Body), limit)
	}
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
