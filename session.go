package queue

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// Session is one session under this receiver's exclusive lock: nobody else
// receives its messages. It lives until its Close, until its lock runs out, or
// until the broker takes it away. It is safe for concurrent use.
type Session struct {
	r      *Receiver
	s      driver.Session
	ctx    context.Context
	cancel context.CancelCauseFunc

	mu    sync.Mutex // guards what follows; never held across a call
	timer *time.Timer
	until time.Time
	ended bool
	// blocked is the rejected message that nothing may overtake.
	blocked *RejectedError
	// held: the lock is left to run out, because that message must wait.
	held bool

	shutting sync.Once // for what the driver holds
	shutErr  error
}

// AcceptSession takes the lock of the session id, waiting up to
// ReceiverOptions.Wait while it is in other hands (then ErrSessionHeld). A broker
// that cannot take a session by its name answers errors.ErrUnsupported: see
// Capabilities().AcceptByID.
func (r *Receiver) AcceptSession(ctx context.Context, id string) (*Session, error) {
	if id == "" {
		return nil, wrap("accept session", r.queue, invalidOption("the session ID is empty; NextSession takes any"))
	}
	return r.acceptSession(ctx, id)
}

// NextSession takes the lock of a session that has messages and that nobody
// holds, waiting up to ReceiverOptions.Wait for one (then ErrNoSession).
func (r *Receiver) NextSession(ctx context.Context) (*Session, error) {
	return r.acceptSession(ctx, "")
}

func (r *Receiver) acceptSession(ctx context.Context, id string) (*Session, error) {
	const op = "accept session"
	if err := checkContext(ctx); err != nil {
		return nil, wrap(op, r.queue, err)
	}
	if r.client.closed.Load() {
		return nil, wrap(op, r.queue, driver.ErrClosed)
	}
	if r.caps.Sessions == driver.None {
		return nil, wrap(op, r.queue, driver.Unsupported("sessions"))
	}
	if id != "" && !r.caps.AcceptByID {
		return nil, wrap(op, r.queue, driver.Unsupported("accepting a session by its ID"))
	}
	ds, err := r.q.AcceptSession(ctx, id, r.options.Wait)
	if err != nil {
		return nil, wrap(op, r.queue, err)
	}
	s := &Session{r: r, s: ds, until: ds.LockedUntil()}
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	r.obs.Session(ctx, r.obs.Source, observe.Session{State: observe.SessionAccepted})
	if !r.client.adopt(s) { // closed meanwhile, and the broker's session with it
		s.end(errSessionClosed, observe.SessionClosed, 0)
		s.shutLate()
		return nil, wrap(op, r.queue, driver.ErrClosed)
	}
	s.watch(s.until)
	return s, nil
}

// errSessionClosed is the cause of the context of a session after Close, its own or
// the Client's.
var errSessionClosed = fmt.Errorf("session: %w", driver.ErrClosed)

// ID is the session's name.
func (s *Session) ID() string { return s.s.ID() }

// LockedUntil is when the session's lock ends unless it is renewed; zero where
// it has no end in time.
func (s *Session) LockedUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}

// Context ends with the session; context.Cause then wraps ErrSessionLost where
// it was lost and ErrClosed after Close, its own or the Client's. It carries the
// values of the context that accepted the session, and not its end.
func (s *Session) Context() context.Context { return s.ctx }

// watch sets the time at which the session counts as lost.
func (s *Session) watch(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.until = until
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if until.IsZero() {
		return
	}
	s.timer = time.AfterFunc(time.Until(until), func() {
		if s.end(fmt.Errorf("%w: its lock ran out at %s", ErrSessionLost, until.UTC().Format(time.RFC3339Nano)), observe.SessionLost, 0) {
			s.shutLate()
		}
	})
}

// end marks the session as over, once, and reports whether this call did. What
// the driver holds of it is then the caller's to shut, but where hold is above
// zero: it is kept for that time.
func (s *Session) end(cause error, state observe.SessionState, hold time.Duration) bool {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return false
	}
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if hold > 0 {
		s.held = true
		s.timer = time.AfterFunc(hold, s.shutLate)
	}
	s.mu.Unlock()
	s.r.client.disown(s)
	s.cancel(cause)
	s.r.obs.Session(s.ctx, s.r.obs.Source, observe.Session{State: state})
	return true
}

// shut gives back what the driver holds of the session, once.
func (s *Session) shut(ctx context.Context) error {
	s.shutting.Do(func() { s.shutErr = s.s.Close(ctx) })
	return s.shutErr
}

// shutLate is shut where nobody waits for it: what it fails to give back runs
// out.
func (s *Session) shutLate() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), settleTimeout)
	defer cancel()
	_ = s.shut(ctx)
}

// check returns why the session is over, nil while it lives.
func (s *Session) check() error {
	if s.ctx.Err() == nil {
		return nil
	}
	return context.Cause(s.ctx)
}

// note ends the session where err says that it is lost.
func (s *Session) note(err error) {
	if errors.Is(err, ErrSessionLost) {
		s.end(err, observe.SessionLost, 0)
	}
}

// Receive returns up to max of the session's messages in order, and (nil, nil)
// when none came within Wait. Handle them in order, and when one is abandoned
// abandon those after it too: [Session.All] does that.
//
// When a message is rejected for a reason that time can cure, nothing behind it
// may overtake it: what was before it is returned, and the next Receive releases
// the session. Its error wraps ErrSessionLost and the *RejectedError. On a broker
// without a delay on abandon, the session comes free when its lock runs out.
func (s *Session) Receive(ctx context.Context, max int) ([]*Delivery, error) {
	good, _, err := s.receive(ctx, max, s.r.options.Wait)
	return good, wrap("receive", s.r.queue, err)
}

// Fetch is Receive for callers that need to know what was rejected, with a wait of
// their own; 0 asks once without waiting.
func (s *Session) Fetch(ctx context.Context, max int, wait time.Duration) (Batch, error) {
	good, rejected, err := s.receive(ctx, max, wait)
	return Batch{Deliveries: good, Rejected: rejected}, wrap("receive", s.r.queue, err)
}

// ReceiveOne is Receive for one message, as Receiver.ReceiveOne.
func (s *Session) ReceiveOne(ctx context.Context) (*Delivery, error) {
	good, rejected, err := s.receive(ctx, 1, s.r.options.Wait)
	return only(s.r.queue, good, rejected, err)
}

func (s *Session) receive(ctx context.Context, max int, wait time.Duration) ([]*Delivery, []*RejectedError, error) {
	if err := checkContext(ctx); err != nil {
		return nil, nil, err
	}
	if err := s.check(); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	blocked := s.blocked
	s.mu.Unlock()
	if blocked != nil {
		return nil, nil, s.giveUp(ctx, blocked)
	}
	// A wait ends with the session.
	rctx, stop := context.WithCancel(ctx)
	defer stop()
	unhook := context.AfterFunc(s.ctx, stop)
	defer unhook()
	good, rejected, blocked, err := s.r.receive(rctx, s.s, max, wait, true)
	if err != nil {
		s.note(err)
		if lost := s.check(); lost != nil && ctx.Err() == nil {
			err = lost
		}
		return nil, rejected, err
	}
	if blocked != nil {
		if len(good) == 0 {
			return nil, rejected, s.giveUp(ctx, blocked)
		}
		s.mu.Lock()
		s.blocked = blocked
		s.mu.Unlock()
	}
	return good, rejected, nil
}

// giveUp releases the session because of a message that must wait.
func (s *Session) giveUp(ctx context.Context, why *RejectedError) error {
	err := fmt.Errorf("%w: released: %w", ErrSessionLost, why)
	var hold time.Duration
	if why.Delay > 0 && s.r.caps.AbandonDelay == driver.None {
		// The broker has no delay, and would hand the message to the next receiver
		// at once, until its deliveries are used up: the lock is the delay.
		hold = why.Delay
		if until := s.LockedUntil(); !until.IsZero() {
			hold = time.Until(until)
		}
	}
	if !s.end(err, observe.SessionBlocked, hold) || hold > 0 {
		return err
	}
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	_ = s.shut(cctx) // where it fails the lock runs out
	return err
}

// All returns the session's messages one by one, in order, until the session or
// ctx ends, or for Wait none came. A delivery that the loop leaves unsettled or
// abandons ends it, so that nothing overtakes.
func (s *Session) All(ctx context.Context) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		for {
			d, err := s.ReceiveOne(ctx)
			var rejected *RejectedError
			switch {
			case errors.Is(err, ErrNoMessage):
				return
			case errors.Is(err, ErrReceivingPaused), errors.Is(err, ErrKeyProvider) && !errors.Is(err, ErrSessionLost),
				errors.Is(err, ErrReplayStore) && !errors.Is(err, ErrSessionLost):
				continue // ReceiveOne has waited
			case errors.As(err, &rejected) && !errors.Is(err, ErrSessionLost):
				continue // dead-lettered; the next may come
			case err != nil:
				yield(nil, err)
				return
			}
			if !yield(d, nil) {
				return
			}
			if !d.finished() {
				return
			}
		}
	}
}

// Renew extends the session's lock, and with it those of its messages.
// ErrSessionLost: it is over.
func (s *Session) Renew(ctx context.Context) error {
	const op = "renew session"
	if err := checkContext(ctx); err != nil {
		return wrap(op, s.r.queue, err)
	}
	if err := s.check(); err != nil {
		return wrap(op, s.r.queue, err)
	}
	until, err := s.s.RenewSession(ctx)
	if err == nil {
		s.watch(until)
	}
	s.note(err)
	s.r.obs.Renewed(ctx, s.r.obs.Source, observe.Renewed{Err: err})
	return wrap(op, s.r.queue, err)
}

// Close releases the session and, at once, every message of it that is not
// settled. A second Close returns nil.
func (s *Session) Close(ctx context.Context) error {
	if ctx == nil {
		return wrap("close session", s.r.queue, errNilContext)
	}
	if s.end(errSessionClosed, observe.SessionClosed, 0) {
		return wrap("close session", s.r.queue, s.shut(ctx))
	}
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if !held {
		_ = s.shut(ctx) // of a lost session: only to let go of it
	}
	return nil
}
