package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// State returns what SetState stored with the session, nil where there is
// nothing. A broker without session state answers errors.ErrUnsupported
// (Capabilities().SessionState).
//
// A sealed state is authentic for this queue and session. Whether it is the
// latest cannot be told: a broker can bring an old one back.
func (s *Session) State(ctx context.Context) ([]byte, error) {
	const op = "get session state"
	store, err := s.stateful(ctx)
	if err != nil {
		return nil, wrap(op, s.r.queue, err)
	}
	stored, err := store.State(ctx)
	if err != nil {
		s.note(err)
		return nil, wrap(op, s.r.queue, err)
	}
	if len(stored) == 0 {
		return nil, nil
	}
	b, err := s.r.openState(ctx, s.ID(), stored)
	if code := ErrorType(err); code != "" {
		s.r.event(ctx, Event{Kind: EventCryptoError, ErrorType: code})
		s.r.log.LogAttrs(ctx, slog.LevelError, "Session state refused",
			slog.String("queue", s.r.queue), slog.String("session_id", s.ID()), slog.String("error_type", code))
	}
	return b, wrap(op, s.r.queue, err)
}

// SetState stores a small state with the session, sealed where encryption is
// enabled; nil clears it. Brokers have limits of their own (Service Bus: that of
// a message).
func (s *Session) SetState(ctx context.Context, state []byte) error {
	const op = "set session state"
	store, err := s.stateful(ctx)
	if err != nil {
		return wrap(op, s.r.queue, err)
	}
	if len(state) > 0 {
		if !s.r.cfg.Enabled {
			s.r.log.LogAttrs(ctx, slog.LevelWarn, "Session state stored WITHOUT encryption",
				slog.String("queue", s.r.queue), slog.String("session_id", s.ID()), slog.Bool("encrypted", false))
		}
		if state, err = s.r.sealState(ctx, s.ID(), state); err != nil {
			return wrap(op, s.r.queue, err)
		}
	}
	err = store.SetState(ctx, state)
	s.note(err)
	return wrap(op, s.r.queue, err)
}

func (s *Session) stateful(ctx context.Context) (driver.StatefulSession, error) {
	if err := checkContext(ctx); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	store, ok := s.s.(driver.StatefulSession)
	if !ok || s.r.caps.SessionState == driver.None {
		return nil, driver.Unsupported("session state")
	}
	return store, nil
}

// stateData is what a session's state is bound to. It is of the envelope's other
// domain, so that a state can never be delivered as a message.
func (r *Receiver) stateData(session string) []byte {
	b := []byte("queue-runtime/session-state/v1\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.queue))) //nolint:gosec // G115: at most 255
	b = append(b, r.queue...)
	return append(b, session...)
}

// stateCrypto is the CryptoProvider of states: QRE1's direct use is not part of
// the interface.
func (r *Receiver) stateCrypto() (*AESGCM, error) {
	if a, ok := r.crypto.(*AESGCM); ok {
		return a, nil
	}
	return nil, driver.Unsupported("a sealed session state with a CryptoProvider other than AESGCM")
}

func (r *Receiver) sealState(ctx context.Context, session string, state []byte) ([]byte, error) {
	if !r.cfg.Enabled {
		if envelope.IsSealed(state) {
			return nil, ErrMarkerCollision
		}
		return state, nil
	}
	a, err := r.stateCrypto()
	if err != nil {
		return nil, err
	}
	current := a.keys
	if r.keys != nil {
		current = r.keys
	}
	id, err := current.CurrentKeyID(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: no current key: %w", ErrEncryptionFailed, providerError(ctx, err))
	}
	key, err := getKey(ctx, a.keys, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEncryptionFailed, err)
	}
	return a.sealApp(key, &envelope.Header{EncryptedAt: time.Now().UnixMilli(), Origin: r.queue}, state, r.stateData(session))
}

func (r *Receiver) openState(ctx context.Context, session string, stored []byte) ([]byte, error) {
	if !envelope.IsSealed(stored) {
		if r.cfg.PlaintextPolicy == Reject {
			return nil, ErrUnencryptedMessage
		}
		level := slog.LevelWarn
		if r.cfg.PlaintextPolicy == AllowWithAlert {
			level = slog.LevelError
			r.event(ctx, Event{Kind: EventCryptoError, ErrorType: codePlaintextAllowed})
		}
		r.log.LogAttrs(ctx, level, "Session state read WITHOUT encryption",
			slog.String("queue", r.queue), slog.String("session_id", session), slog.Bool("encrypted", false))
		return stored, nil
	}
	m, err := envelope.Parse(stored)
	if err != nil {
		return nil, err
	}
	id := keys.ID(m.KeyID)
	if r.crypto == nil {
		return nil, &KeyNotFoundError{KeyID: id}
	}
	a, err := r.stateCrypto()
	if err != nil {
		return nil, err
	}
	if err := r.checkKey(ctx, id); err != nil {
		return nil, err
	}
	key, err := getKey(ctx, a.keys, id)
	if err != nil {
		return nil, err
	}
	b, err := a.opener.OpenApp(nil, &m, key, r.stateData(session))
	if errors.Is(err, keys.ErrDestroyed) {
		return nil, &KeyNotFoundError{KeyID: id}
	}
	return b, err
}
