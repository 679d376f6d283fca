package sealing

import (
	"context"
	"encoding/binary"
)

// stateData is what a session's state is bound to. It belongs to the envelope's other
// domain (qre1, Section 4.3), so that a state can never be delivered as a message.
func stateData(queue, session string) []byte {
	b := []byte("queue-runtime/session-state/v1\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(len(queue))) //nolint:gosec // G115: at most 255
	b = append(b, queue...)
	return append(b, session...)
}

// SealState seals the state of a session under the current key.
func (s *QueueSealer) SealState(ctx context.Context, session string, state []byte) ([]byte, *Failure) {
	h, e, f := s.direct(ctx)
	if f != nil {
		return nil, f
	}
	e.key.Confirm()
	return e.sealApp(ctx, h, state, stateData(s.Queue, session))
}

// OpenState opens the state of a session, which must be sealed.
func (o *QueueOpener) OpenState(ctx context.Context, session string, stored []byte) ([]byte, *Failure) {
	return o.openApp(ctx, stored, stateData(o.Queue, session))
}
