package memqueue

import (
	"bytes"
	"context"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// sessionHandle is an accepted session.
type sessionHandle struct {
	queue  *handle
	id     string
	source *source
}

var _ driver.StatefulSession = (*sessionHandle)(nil)

func (h *handle) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s := h.source.store
	out := &sessionHandle{queue: h, source: newSource(s, &s.active)}
	out.source.lock = h.source.lock
	var alone *delivery // a message that is a session of its own

	in := func() *waiters {
		if id == "" {
			return &s.accepting
		}
		return &s.session(id).accepting
	}
	ok, err := s.await(ctx, in, wait, func(now time.Time) (bool, error) {
		if err := h.source.check(); err != nil {
			return false, err
		}
		if id == "" {
			if alone = s.takeSessionless(h.source, now); alone != nil {
				return true, nil
			}
		}
		ss := h.candidate(id)
		if ss == nil || !ss.free() {
			return false, nil
		}
		s.accept(ss, out.source, now)
		out.id = ss.id
		h.sessions[out] = struct{}{}
		return true, nil
	}, func() {
		if id != "" {
			s.refresh(s.session(id))
		}
	})
	switch {
	case err != nil:
		return nil, err
	case !ok && id != "":
		return nil, &driver.Error{Kind: driver.SessionHeld}
	case !ok:
		return nil, &driver.Error{Kind: driver.NoSession}
	case alone != nil:
		return driver.NewMessageSession(h, alone.own(), h.source.closing), nil
	}
	return out, nil
}

// candidate returns the session that AcceptSession may take, nil if there is
// none. It is called under the store's mu.
func (h *handle) candidate(id string) *session {
	s := h.source.store
	if id != "" {
		return s.session(id)
	}
	if t := s.turns.first(); t != nil {
		return t.value
	}
	return nil
}

func (h *sessionHandle) ID() string { return h.id }

func (h *sessionHandle) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return h.source.receive(ctx, max, wait)
}

func (h *sessionHandle) Settle(ctx context.Context, list []driver.Settlement) []error {
	return h.source.settle(ctx, list)
}

func (h *sessionHandle) Renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	return h.source.renew(ctx, list)
}

func (h *sessionHandle) LockedUntil() time.Time {
	s := h.source.store
	s.lock()
	defer s.unlock()
	return h.source.until
}

// do calls f, under the store's mu, while the session is held.
func (h *sessionHandle) do(ctx context.Context, f func(now time.Time)) error {
	s := h.source.store
	now := s.lock()
	defer s.unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := h.source.check(); err != nil {
		return err
	}
	f(now)
	return nil
}

func (h *sessionHandle) RenewSession(ctx context.Context) (until time.Time, err error) {
	err = h.do(ctx, func(now time.Time) {
		h.source.store.extend(h.source, now)
		until = h.source.until
	})
	return until, err
}

func (h *sessionHandle) State(ctx context.Context) (state []byte, err error) {
	err = h.do(ctx, func(time.Time) { state = bytes.Clone(h.source.session.state) })
	return state, err
}

func (h *sessionHandle) SetState(ctx context.Context, state []byte) error {
	return h.do(ctx, func(time.Time) { h.source.session.state = bytes.Clone(state) })
}

func (h *sessionHandle) Close(context.Context) error {
	s := h.source.store
	now := s.lock()
	defer s.unlock()
	h.source.close(now)
	delete(h.queue.sessions, h)
	return nil
}
