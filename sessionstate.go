package queue

import (
	"context"
	"log/slog"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/observe"
)

// State returns what SetState stored with the session, nil if there is
// nothing. A broker without session state answers errors.ErrUnsupported
// (Capabilities().SessionState).
//
// A sealed state is authentic for this queue and session. It need not be the latest: a
// broker can bring an old one back.
func (s *Session) State(ctx context.Context) ([]byte, error) {
	const op = "get session state"
	store, err := s.stateful(ctx)
	if err != nil {
		return nil, wrap(op, s.r.queue, err)
	}
	defer func() { <-s.stateCall }()
	stored, err := store.State(ctx)
	if err != nil {
		s.note(err)
		return nil, wrap(op, s.r.queue, err)
	}
	if len(stored) == 0 {
		return nil, nil
	}
	b, err := s.r.openState(ctx, s.ID(), stored)
	if err == nil {
		s.renewState(ctx, store, stored, b)
	}
	if code := ReasonOf(err); code != "" {
		s.r.obs.CryptoError(ctx, s.r.obs.Source, observe.CryptoError{Reason: code})
		s.r.log.LogAttrs(ctx, slog.LevelError, "Session state refused",
			slog.String("queue", s.r.queue), slog.String("session_id", s.ID()), slog.String("reason", code))
	}
	return b, wrap(op, s.r.queue, err)
}

// renewState seals a state anew that was read under a key which is no longer current, so
// that the key can be retired. If that fails the old state stays, and the next State
// tries again.
func (s *Session) renewState(ctx context.Context, store driver.StatefulSession, stored, state []byte) {
	if !s.r.cfg.Enabled {
		return
	}
	old, err := envelope.Parse(stored)
	if err != nil {
		return // it is not sealed
	}
	// What is sealed was opened with keys, and there is a sealer with them.
	id, err := s.r.sealer.Keys.CurrentKeyID(ctx)
	if err != nil || string(id) == old.KeyID || s.check() != nil {
		return
	}
	sealed, f := s.r.sealer.SealState(ctx, s.ID(), state)
	if f != nil {
		return
	}
	err = store.SetState(ctx, sealed)
	s.note(err)
}

// SetState stores a small state with the session, sealed if encryption is enabled; nil
// clears it. Brokers limit its size; Service Bus to that of a message.
func (s *Session) SetState(ctx context.Context, state []byte) error {
	const op = "set session state"
	store, err := s.stateful(ctx)
	if err != nil {
		return wrap(op, s.r.queue, err)
	}
	defer func() { <-s.stateCall }()
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

// stateful begins a call of State or SetState, which the caller ends by taking the token
// out of stateCall, unless it fails.
func (s *Session) stateful(ctx context.Context) (driver.StatefulSession, error) {
	if err := checkContext(ctx); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	store, ok := s.s.(driver.StatefulSession)
	switch {
	case !ok || s.r.caps.SessionState == driver.None:
		return nil, driver.Unsupported("session state")
	case s.id == "":
		return nil, driver.Unsupported("the state of a session that is one message without a SessionID")
	}
	select {
	case s.stateCall <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return store, nil
}

// sealState returns what is stored for a state.
func (r *Receiver) sealState(ctx context.Context, session string, state []byte) ([]byte, error) {
	if !r.cfg.Enabled {
		if envelope.IsSealed(state) {
			return nil, ErrMarkerCollision
		}
		return state, nil
	}
	if r.sealer == nil {
		return nil, driver.Unsupported("a sealed session state with a CryptoProvider and no Keys")
	}
	b, f := r.sealer.SealState(ctx, session, state)
	return b, publicError(f)
}

// openState returns the state that is stored.
func (r *Receiver) openState(ctx context.Context, session string, stored []byte) ([]byte, error) {
	if envelope.IsSealed(stored) {
		b, f := r.opener.OpenState(ctx, session, stored)
		return b, publicError(f)
	}
	if r.cfg.PlaintextPolicy == Reject {
		return nil, ErrUnencryptedMessage
	}
	r.log.LogAttrs(ctx, r.reportPlaintext(ctx), "Session state read WITHOUT encryption",
		slog.String("queue", r.queue), slog.String("session_id", session), slog.Bool("encrypted", false))
	return stored, nil
}
