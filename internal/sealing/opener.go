package sealing

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

// QueueOpener opens the messages of one queue. It is safe for concurrent use.
type QueueOpener struct {
	Queue   string
	Origins []string     // queues beside Queue that a message may have been sealed for
	Senders []string     // who may send; nil means every sender
	Crypto  Crypto       // nil means there are no keys, and no sealed message opens
	Valid   *keys.Cached // bounds what messages that are not authentic ask of the keys; nil means every key ID reaches Crypto
	Observe *observe.Scope
}

// Opened is a message that opened, or that is not sealed.
type Opened struct {
	// Sealed says that the body is an envelope, and that it could be parsed.
	Sealed bool
	// Envelope is what it says in the clear, but for Bound: the names of Attributes.
	// Authentic once the message has opened.
	Envelope envelope.EncryptedMessage
	Body     []byte // the plaintext; of a message that is not sealed, the body
	// Attributes are those that the sender bound, Added those that it did not. Of a
	// message that is not sealed all are Attributes. If none was added, Attributes is the
	// map that was delivered.
	Attributes map[string]string
	Added      map[string]string
}

// KeyID is the key that the message names; empty if it is not sealed. It is authentic
// once the message has opened.
func (o *Opened) KeyID() keys.ID { return keys.ID(o.Envelope.KeyID) }

// The times of the envelope; the zero Time if it has none.

// EncryptedAt is when the message was sealed.
func (o *Opened) EncryptedAt() time.Time { return timeOf(o.Envelope.EncryptedAt) }

// NotBefore is when the message may be delivered first.
func (o *Opened) NotBefore() time.Time { return timeOf(o.Envelope.NotBefore) }

// ExpiresAt is when the message may be delivered last.
func (o *Opened) ExpiresAt() time.Time { return timeOf(o.Envelope.ExpiresAt) }

// ResealedAt is when an operator sealed the message anew last.
func (o *Opened) ResealedAt() time.Time { return timeOf(o.Envelope.ResealedAt) }

// TTL is the time between the sealing, or NotBefore if that is later, and ExpiresAt; 0
// if the message does not expire.
func (o *Opened) TTL() time.Duration {
	e := &o.Envelope
	if e.ExpiresAt == 0 {
		return 0
	}
	return timeOf(e.ExpiresAt).Sub(time.UnixMilli(max(e.EncryptedAt, e.NotBefore)))
}

// timeOf is a time of an envelope's header; 0 is the zero Time (qre1, Section 2.5).
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Open opens m into out. After a failure out holds no more than the Envelope, none of it
// authentic.
func (o *QueueOpener) Open(ctx context.Context, m *driver.Delivery, out *Opened) *Failure {
	*out = Opened{}
	if m.Undecodable {
		return fail(ctx, "", fmt.Errorf("%w: the transport's encoding is broken", envelope.ErrInvalidEnvelope))
	}
	if !envelope.IsSealed(m.Body) {
		if m.Sealed {
			return fail(ctx, "", fmt.Errorf("%w: the transport says sealed and the marker is missing", envelope.ErrInvalidEnvelope))
		}
		if m.DuplicateName {
			return fail(ctx, "", fmt.Errorf("%w: the name of an attribute arrived twice", envelope.ErrInvalidEnvelope))
		}
		out.Body, out.Attributes = m.Body, m.Attributes
		return nil
	}
	room, e := roomFor(o.Crypto), &out.Envelope
	defer func() {
		e.Bound = nil
		room.done(o.Crypto)
	}()
	e.Bound = room.names
	err := envelope.ParseInto(e, m.Body)
	room.names = e.Bound
	if err != nil {
		return fail(ctx, "", err)
	}
	out.Sealed = true
	if o.Senders != nil && !slices.Contains(o.Senders, e.Sender) {
		return &Failure{Reason: driver.ReasonSender, KeyID: keys.ID(e.KeyID), Err: ErrSender}
	}
	if f := o.known(ctx, keys.ID(e.KeyID)); f != nil {
		return f
	}
	begin := o.Observe.Now()
	body, f := o.decrypt(ctx, e, m, room)
	if o.Observe.Active() {
		event := observe.Opened{Took: time.Since(begin), KeyID: keys.ID(e.KeyID), Bytes: len(body)}
		if f != nil {
			event.Err = f.Err
		}
		o.Observe.Opened(ctx, o.Observe.Source, event)
	}
	if f != nil {
		return f
	}
	if e.Origin != o.Queue && !slices.Contains(o.Origins, e.Origin) {
		return fail(ctx, keys.ID(e.KeyID), envelope.ErrAuthenticationFailed)
	}
	out.Body = body
	out.Attributes, out.Added = split(m.Attributes, e.Bound)
	return nil
}

// known checks that the key may be asked for.
func (o *QueueOpener) known(ctx context.Context, id keys.ID) *Failure {
	if o.Crypto == nil {
		return keyNotFound(id)
	}
	if o.Valid == nil {
		return nil
	}
	if c, ok := o.Crypto.(*Cipher); ok && c.keys == keys.Provider(o.Valid) {
		return nil // GetKey of a Cached checks it
	}
	if err := o.Valid.Check(ctx, id); err != nil {
		return fail(ctx, id, err)
	}
	return nil
}

func (o *QueueOpener) decrypt(ctx context.Context, e *envelope.EncryptedMessage, m *driver.Delivery, room *contextRoom) ([]byte, *Failure) {
	// The key comes before the context (qre1, Section 6.1): a message whose key is not
	// there yet waits for it, whatever else is wrong with it.
	c, own := o.Crypto.(*Cipher)
	var key *keys.Key
	var err error
	if own {
		if key, err = c.openingKey(ctx, e); err != nil {
			return nil, fail(ctx, keys.ID(e.KeyID), err)
		}
	}
	if m.DuplicateName { // it cannot be told which value was bound
		return nil, fail(ctx, keys.ID(e.KeyID), envelope.ErrAuthenticationFailed)
	}
	data, err := room.encode(&m.Message, e.Bound)
	if err != nil {
		// A bound attribute is missing, or a field cannot have been sealed so.
		return nil, fail(ctx, keys.ID(e.KeyID), envelope.ErrAuthenticationFailed)
	}
	var body []byte
	if own {
		body, err = c.openUnder(key, e, data, ofQueue)
	} else {
		body, err = o.Crypto.Decrypt(ctx, *e, data)
	}
	if err != nil {
		return nil, fail(ctx, keys.ID(e.KeyID), err)
	}
	return body, nil
}

// split parts the attributes that the sender bound from those that were added.
func split(all map[string]string, bound []string) (authentic, added map[string]string) {
	switch len(all) {
	case 0:
		return nil, nil
	case len(bound):
		return all, nil // each bound name is there: the envelope opened
	}
	authentic = make(map[string]string, len(bound))
	for _, name := range bound {
		authentic[name] = all[name]
	}
	added = make(map[string]string, len(all)-len(bound))
	for name, value := range all {
		if _, ok := authentic[name]; !ok {
			added[name] = value
		}
	}
	return authentic, added
}
