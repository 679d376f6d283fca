package sealing

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// Reseal seals opened, the message that m was, anew under key id, and puts it into back,
// whose metadata is that of m. The new envelope keeps the identity of the old one, so
// that the message is handled once however often it is resealed (qre1, Section 5.3).
// ttl above zero replaces its expiry; 0 keeps it.
//
// It needs the master key: a sender key seals for its own sender alone.
func (s *QueueSealer) Reseal(ctx context.Context, id keys.ID, opened *Opened, back *driver.Message, ttl time.Duration) *Failure {
	c, ok := s.Crypto.(*Cipher)
	if !ok {
		return &Failure{KeyID: id, Err: driver.Unsupported("sealing anew with a CryptoProvider other than AESGCM")}
	}
	now := time.Now()
	h := opened.Envelope.Reseal(now.UnixMilli())
	if ttl > 0 {
		h.ExpiresAt = ceilMilli(now.Add(ttl))
	}
	back.Attributes, back.Body = opened.Attributes, opened.Body
	key, err := c.sealingKey(ctx, id, h.Origin)
	if err != nil {
		return sealFailed(ctx, id, err)
	}
	key.Confirm()
	data, err := s.bind(&contextRoom{}, &h, back)
	if err != nil {
		return &Failure{KeyID: id, Err: driver.Errorf(driver.Invalid, "%w", err)}
	}
	// An epoch of its own: its time is that of the first sealing.
	sealer, err := envelope.NewSealer(key, string(id), h.Sender)
	if err != nil {
		return sealFailed(ctx, id, err)
	}
	padding := opened.Envelope.Padding()
	body, err := sealer.SealPadded(nil, &h, opened.Body, data, padding)
	if err != nil {
		return sealFailed(ctx, id, err)
	}
	back.Body, back.Sealed = body, true
	return nil
}
