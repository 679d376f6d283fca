package sealing

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// stateData is what a session's state is bound to. It belongs to the envelope's other
// domain (qre1, Section 4.3), so that a state can never be delivered as a message.
func stateData(queue, session string) []byte {
	b := []byte("queue-runtime/session-state/v1\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(len(queue))) //nolint:gosec // G115: at most 255
	b = append(b, queue...)
	return append(b, session...)
}

// stateCipher is the Cipher of states: QRE1's direct use is not part of Crypto.
func stateCipher(c Crypto) (*Cipher, error) {
	if c, ok := c.(*Cipher); ok {
		return c, nil
	}
	return nil, driver.Unsupported("a sealed session state with a CryptoProvider other than AESGCM")
}

// SealState seals the state of a session under the current key.
func (s *Sealer) SealState(ctx context.Context, session string, state []byte) ([]byte, *Failure) {
	c, err := stateCipher(s.Crypto)
	if err != nil {
		return nil, &Failure{Err: err}
	}
	id, f := s.CurrentKey(ctx)
	if f != nil {
		return nil, f
	}
	e, err := c.epoch(ctx, id, s.Queue)
	if err != nil {
		return nil, sealFailed(ctx, id, err)
	}
	if e.key.SenderID() != "" {
		return nil, sealFailed(ctx, id, fmt.Errorf("%w: a session's state is sealed with the master key", keys.ErrSenderKey))
	}
	h := envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: s.Queue}
	b, err := e.sealer.SealApp(nil, &h, state, stateData(s.Queue, session))
	if err != nil {
		return nil, sealFailed(ctx, id, err)
	}
	return b, nil
}

// OpenState opens the state of a session, which must be sealed.
func (o *Opener) OpenState(ctx context.Context, session string, stored []byte) ([]byte, *Failure) {
	e, err := envelope.Parse(stored)
	if err != nil {
		return nil, fail(ctx, "", err)
	}
	id := keys.ID(e.KeyID)
	if o.Crypto == nil {
		return nil, keyNotFound(id)
	}
	c, err := stateCipher(o.Crypto)
	if err != nil {
		return nil, &Failure{Err: err}
	}
	if f := o.known(ctx, id); f != nil {
		return nil, f
	}
	if e.Sender != "" {
		// Made by a holder of a sender key, who may write messages, not states.
		return nil, fail(ctx, id, envelope.ErrAuthenticationFailed)
	}
	b, err := c.open(ctx, &e, stateData(o.Queue, session), c.opener.OpenApp)
	if err != nil {
		return nil, fail(ctx, id, err)
	}
	return b, nil
}
