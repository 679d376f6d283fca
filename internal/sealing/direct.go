package sealing

import (
	"context"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// This file seals and opens what is not the message of a queue, by direct use (qre1,
// Section 4.3). Each purpose has associated data of its own, which begins with its name.

// directCipher is the Cipher of direct use, which is not part of Crypto.
func directCipher(c Crypto) (*Cipher, error) {
	if c, ok := c.(*Cipher); ok {
		return c, nil
	}
	return nil, driver.Unsupported("sealing anything but messages with a CryptoProvider other than AESGCM")
}

// direct returns the header and the epoch of direct use under the current key.
func (s *QueueSealer) direct(ctx context.Context) (*envelope.Header, *epoch, *Failure) {
	c, err := directCipher(s.Crypto)
	if err != nil {
		return nil, nil, &Failure{Err: err}
	}
	id, f := s.CurrentKey(ctx)
	if f != nil {
		return nil, nil, f
	}
	e, err := c.epoch(ctx, id, s.Queue)
	if err != nil {
		return nil, nil, sealFailed(ctx, id, err)
	}
	if e.key.SenderID() != "" {
		return nil, nil, sealFailed(ctx, id, fmt.Errorf("%w: only messages are sealed with one", keys.ErrSenderKey))
	}
	return &envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: s.Queue, KeyID: string(id)}, e, nil
}

func (e *epoch) sealApp(ctx context.Context, h *envelope.Header, plaintext, data []byte) ([]byte, *Failure) {
	b, err := e.sealer.SealApp(nil, h, plaintext, data)
	if err != nil {
		return nil, sealFailed(ctx, keys.ID(h.KeyID), err)
	}
	return b, nil
}

// openApp opens what was sealed by direct use.
func (o *QueueOpener) openApp(ctx context.Context, stored, data []byte) ([]byte, *Failure) {
	e, err := envelope.Parse(stored)
	if err != nil {
		return nil, fail(ctx, "", err)
	}
	id := keys.ID(e.KeyID)
	if o.Crypto == nil {
		return nil, keyNotFound(id)
	}
	c, err := directCipher(o.Crypto)
	if err != nil {
		return nil, &Failure{Err: err}
	}
	if f := o.known(ctx, id); f != nil {
		return nil, f
	}
	if e.Sender != "" {
		// Made by a holder of a sender key, who may write messages and nothing else.
		return nil, fail(ctx, id, envelope.ErrAuthenticationFailed)
	}
	b, err := c.open(ctx, &e, data, ofApp)
	if err != nil {
		return nil, fail(ctx, id, err)
	}
	return b, nil
}
