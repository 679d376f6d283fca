package queue

import (
	"context"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/stream"
	"github.com/queue-runtime/queue/keys"
)

// Prepared is a message that is ready for the broker and was not sent, for an outbox: it
// stores the message in the transaction of the application, and sends it later, from this
// process or another. It is the caller's.
type Prepared struct {
	// Queue is the name of the queue that the message is for. A sealed message opens in
	// no other queue.
	Queue string

	// KeyID is the key that the message is sealed under; empty if it is not sealed. The
	// key must not be retired before the message was sent and handled.
	KeyID keys.ID

	// Message is what a driver sends; an outbox stores all its fields. It shares
	// nothing with the Message that it was made of. Body and everything that is bound
	// to it must reach the broker as they are; a driver may keep the bytes of a
	// sealed Body. TTL, if set, counts for the broker from the send; receivers go by
	// the expiry within the envelope.
	Message driver.Message
}

// Prepare makes m ready and sends nothing. The caller hands Prepared.Message to a driver,
// as often as it takes: receivers with a replay store handle its copies once.
//
// The age of the message counts from Prepare, so that the time in an outbox is part of
// CryptoConfig.MaxMessageAge of the receivers. The queue's limits are checked now. The
// message belongs to no sequence of the Sender: receivers do not miss it if it is never
// sent, and a transaction that is rolled back needs no clean-up.
//
// Prepare fails as Send does before the broker is asked. It neither retains nor changes m.
func (s *Sender) Prepare(ctx context.Context, m *Message) (*Prepared, error) {
	var one [1]*Message
	one[0] = m
	out, _, err := s.prepare(ctx, stream.Loose, one[:])
	if err != nil {
		return nil, err
	}
	o := &out[0]
	if o.result.Err != nil {
		o.conclude(s.queue)
		return nil, o.result.Err
	}
	return &Prepared{Queue: s.queue, KeyID: o.result.KeyID, Message: o.m.Clone()}, nil
}
