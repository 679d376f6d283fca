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

// Session is one session under this receiver's exclusive lock: no other receiver gets its
// messages. It lives until its Close, until its lock runs out, or until the broker takes
// it away. It is safe for concurrent use.
type Session struct {
	r      *Receiver
	s      driver.Session
	id     string // the SessionID of its messages; "" if it is the session of one message without a SessionID
	ctx    context.Context
	cancel context.CancelCauseFunc
	// stateCall holds one token, for the call of State or SetState under way: State may
	// store what it read anew, which must not undo a SetState.
	stateCall chan struct{}

	mu     sync.Mutex // guards what follows; never held across a call
	state  sessionState
	timer  *time.Timer // while open: ends the session with its lock. While waiting: closes it
	until  time.Time   // when the lock ends; zero if it has no end in time
	renews bool        // it counts in Receiver.lockRenewals
	// inHand are its deliveries that are not settled, for Renew.
	inHand map[*Delivery]struct{}
	// blocked is the rejected message that nothing may overtake; nil if there is none.
	blocked *RejectedError
}

// sessionState is the state of a Session. become is the one place that changes it:
//
//	open ── closed or lost ──> over ──────────> released
//	  └──── a message waits ─> waiting ─ timer ────┘
type sessionState uint8

const (
	sessionOpen     sessionState = iota
	sessionWaiting               // over, but the driver keeps its lock, because a message must wait
	sessionOver                  // over; what the driver holds is still to be released
	sessionReleased              // what the driver held was released
)

// become moves the session to another state if the way there exists, and reports
// whether it did. It is called under mu.
func (s *Session) become(to sessionState) bool {
	switch {
	case s.state == sessionOpen && (to == sessionWaiting || to == sessionOver),
		(s.state == sessionWaiting || s.state == sessionOver) && to == sessionReleased:
		s.state = to
		return true
	}
	return false
}

// AcceptSession locks the session id. If another receiver holds it, AcceptSession
// waits up to ReceiverOptions.Wait and then fails with ErrSessionHeld. If the broker
// gives another session, it fails with ErrAuthenticationFailed. It fails with
// errors.ErrUnsupported on a broker that cannot lock a session by its name: see
// Capabilities().AcceptByID.
func (r *Receiver) AcceptSession(ctx context.Context, id string) (*Session, error) {
	if id == "" {
		return nil, wrap("accept session", r.queue, invalidOption("the session ID is empty; NextSession takes any"))
	}
	return r.acceptSession(ctx, id)
}

// NextSession locks a session that has messages and that no receiver holds. It waits
// up to ReceiverOptions.Wait for one, and then fails with ErrNoSession. A message without a
// SessionID is a session of its own: see [Session.ID]. It fails with ErrSessionLost, and a
// RetryAfter if that repeats itself, if the session's lock has ended on arrival.
func (r *Receiver) NextSession(ctx context.Context) (*Session, error) {
	return r.acceptSession(ctx, "")
}

func (r *Receiver) acceptSession(ctx context.Context, id string) (*Session, error) {
	const op = "accept session"
	r.accountant.start(time.Now())
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
	if got := ds.ID(); id != "" && got != id {
		// Its state and messages would be taken for those of the session asked for.
		closeUnused(ctx, ds)
		return nil, wrap(op, r.queue, fmt.Errorf("%w: the broker gave session %q instead of %q", ErrAuthenticationFailed, clip(got), id))
	}
	if err := r.arrivals.judgeSession(ds.LockedUntil(), time.Now()); err != nil {
		closeUnused(ctx, ds)
		return nil, wrap(op, r.queue, err)
	}
	s := &Session{r: r, s: ds, stateCall: make(chan struct{}, 1), until: ds.LockedUntil(), id: ds.ID()}
	if u, ok := ds.(driver.UnnamedSession); ok && u.Unnamed() {
		s.id = "" // its name would be the broker's word
	}
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	r.obs.Session(ctx, r.obs.Source, observe.Session{State: observe.SessionAccepted})
	if !r.client.adopt(s) { // closed meanwhile, and the broker's session with it
		s.end(observe.SessionClosed, errSessionClosed)
		s.releaseLate()
		return nil, wrap(op, r.queue, driver.ErrClosed)
	}
	s.extend(s.until)
	return s, nil
}

// closeUnused gives a session back that no caller gets.
func closeUnused(ctx context.Context, s driver.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	_ = s.Close(ctx) // if it fails the lock runs out
}

// errSessionClosed is the cause of the context of a session after Close, its own or
// the Client's.
var errSessionClosed = fmt.Errorf("session: %w", driver.ErrClosed)

// ID is the session's name: the SessionID of its messages. It is empty for a message
// without one, which is a session of its own on every broker that accepts such messages
// beside sessions. That session has no state, and ends with its message.
func (s *Session) ID() string { return s.id }

// LockedUntil is when the session's lock ends unless it is renewed; zero if
// it has no end in time.
func (s *Session) LockedUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}

// Context ends with the session; context.Cause then wraps ErrSessionLost if
// it was lost and ErrClosed after Close, its own or the Client's. It carries the
// values of the context that accepted the session, and not its end.
func (s *Session) Context() context.Context { return s.ctx }

// extend sets the time at which the session counts as lost.
func (s *Session) extend(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != sessionOpen {
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
		if s.end(observe.SessionLost, fmt.Errorf("%w: its lock ran out at %s", ErrSessionLost, until.UTC().Format(time.RFC3339Nano))) {
			s.releaseLate()
		}
	})
}

// end ends the session, and reports whether this call did. The caller then releases what
// the driver holds of it.
func (s *Session) end(why observe.SessionState, cause error) bool {
	return s.finish(why, cause, 0)
}

// hold ends the session and keeps its lock for d, because a message of it must wait.
func (s *Session) hold(cause error, d time.Duration) {
	s.finish(observe.SessionBlocked, cause, max(d, time.Nanosecond))
}

// finish ends the session; hold above zero keeps its lock for that long.
func (s *Session) finish(why observe.SessionState, cause error, hold time.Duration) bool {
	to := sessionOver
	if hold > 0 {
		to = sessionWaiting
	}
	s.mu.Lock()
	if !s.become(to) {
		s.mu.Unlock()
		return false
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	if hold > 0 {
		s.holdUntil(time.Now().Add(hold), holdRenewal)
	}
	s.mu.Unlock()
	s.r.client.disown(s)
	s.cancel(cause)
	s.r.obs.Session(s.ctx, s.r.obs.Source, observe.Session{State: why})
	return true
}

// How a session that waits renews its lock: at half of what is left of it, which leaves time
// for further attempts at a quarter of the rest each. What is left may be next to nothing, by a
// broker's word: minHoldWait is between two requests.
const (
	holdRenewal = 2
	holdRetry   = 4
	minHoldWait = 100 * time.Millisecond
)

// maxLockRenewals bounds the sessions of a Receiver that wait for a message and whose lock is
// renewed. A sender without a key can have as many as it likes wait for one, and each costs a
// link and its renewals.
const maxLockRenewals = 1024

// holdUntil keeps the lock of a session that waits until end. It renews the lock after that
// part of what is left of it, if it ends before and not too many are renewed so. It is called
// under mu.
func (s *Session) holdUntil(end time.Time, part time.Duration) {
	now := time.Now()
	switch {
	case s.until.IsZero() || !s.until.Before(end) || !now.Before(s.until):
		s.timer = time.AfterFunc(end.Sub(now), s.releaseLate)
		return
	case !s.renews && s.r.lockRenewals.Add(1) > maxLockRenewals:
		s.r.lockRenewals.Add(-1)
		s.timer = time.AfterFunc(s.until.Sub(now), s.releaseLate)
		return
	}
	s.renews = true
	s.timer = time.AfterFunc(max(s.until.Sub(now)/part, minHoldWait), func() { s.renewUntil(end) })
}

// renewUntil renews the lock of a session that waits until end, and gives the session back if
// the lock is over.
func (s *Session) renewUntil(end time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), settleTimeout)
	defer cancel()
	until, err := s.s.RenewSession(ctx)
	s.mu.Lock()
	waits := s.state == sessionWaiting
	over := errors.Is(err, ErrSessionLost) || errors.Is(err, ErrClosed) || !time.Now().Before(s.until)
	switch {
	case waits && err == nil:
		s.until = until
		s.holdUntil(end, holdRenewal)
	case waits && !over:
		s.holdUntil(end, holdRetry)
	}
	s.mu.Unlock()
	if waits && err != nil && over {
		s.releaseLate()
	}
}

// release gives back what the driver holds of a session that is over, once.
func (s *Session) release(ctx context.Context) error {
	s.mu.Lock()
	ok := s.become(sessionReleased)
	if ok && s.renews {
		s.r.lockRenewals.Add(-1)
	}
	s.mu.Unlock()
	if !ok {
		return nil
	}
	return s.s.Close(ctx)
}

// releaseLate is release without a caller that waits. What it cannot give back is locked
// until the lock runs out.
func (s *Session) releaseLate() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), settleTimeout)
	defer cancel()
	_ = s.release(ctx)
}

// check returns why the session is over, nil while it lives.
func (s *Session) check() error {
	if s.ctx.Err() == nil {
		return nil
	}
	return context.Cause(s.ctx)
}

// note ends the session if err says that it is lost.
func (s *Session) note(err error) {
	if errors.Is(err, ErrSessionLost) {
		s.end(observe.SessionLost, err)
	}
}

// strand ends the session if a message that no caller has could not be given back, which err
// says: it stays locked, and those behind it would overtake it. Nil is the queue itself, which
// has no order.
func (s *Session) strand(err error) {
	if s != nil && err != nil {
		s.end(observe.SessionLost, fmt.Errorf("%w: a message could not be given back: %w", ErrSessionLost, err))
	}
}

// Receive returns up to max of the session's messages in order. It fails with ErrNoMessage if
// none came within Wait, or if all that came were rejected and none of them must wait. Handle
// them in order, and if you abandon one, abandon the later ones, too: [Session.All] does that.
//
// When a message is rejected for a reason that time can cure, nothing behind it
// may overtake it: what was before it is returned, and the next Receive releases
// the session. Its error wraps ErrSessionLost and the *RejectedError. On a broker
// without a delay on abandon, the session comes free when the message has waited, or when
// its lock runs out if another receiver may be able to handle it, or if 1,024 sessions of the
// Receiver wait already.
func (s *Session) Receive(ctx context.Context, max int) ([]*Delivery, error) {
	b, err := s.Fetch(ctx, max, s.r.options.Wait)
	return b.deliveries(s.r.queue, err)
}

// ReceiveOne is Receive for one message, as Receiver.ReceiveOne.
func (s *Session) ReceiveOne(ctx context.Context) (*Delivery, error) {
	b, err := s.Fetch(ctx, 1, s.r.options.Wait)
	return b.one(err)
}

// Fetch is Receive for callers that need to know what was rejected, with a wait of
// their own; 0 asks once without waiting. If all messages were rejected and none of them must
// wait, it returns them and no error. It fails with ErrNoMessage if none came.
func (s *Session) Fetch(ctx context.Context, max int, wait time.Duration) (Batch, error) {
	b, err := s.fetch(ctx, max, wait)
	return b, wrap("receive", s.r.queue, b.orNone(err))
}

func (s *Session) fetch(ctx context.Context, limit int, wait time.Duration) (Batch, error) {
	if err := checkContext(ctx); err != nil {
		return Batch{}, err
	}
	if err := s.check(); err != nil {
		return Batch{}, err
	}
	s.mu.Lock()
	blocked := s.blocked
	s.mu.Unlock()
	if blocked != nil {
		return Batch{}, s.giveUp(ctx, blocked)
	}
	// A wait ends with the session.
	rctx, stop := context.WithCancel(ctx)
	defer stop()
	unhook := context.AfterFunc(s.ctx, stop)
	defer unhook()
	b, err := s.r.fetch(rctx, fetchRequest{source: s.s, session: s, limit: limit, wait: wait})
	s.take(b.Deliveries)
	if b.Blocked != nil { // also if ctx ended meanwhile: the next call must not pass over it
		s.mu.Lock()
		s.blocked = b.Blocked
		s.mu.Unlock()
	}
	if err != nil {
		s.note(err)
		if lost := s.check(); lost != nil && ctx.Err() == nil {
			err = lost
		}
		return b, err
	}
	if b.Blocked != nil && len(b.Deliveries) == 0 {
		return b, s.giveUp(ctx, b.Blocked)
	}
	return b, nil
}

// giveUp releases the session because of a message that must wait.
func (s *Session) giveUp(ctx context.Context, why *RejectedError) error {
	err := fmt.Errorf("%w: released: %w", ErrSessionLost, why)
	if why.Delay > 0 && s.r.caps.AbandonDelay == driver.None {
		// The broker has no delay, and would hand the message to the next receiver at
		// once, until its deliveries are used up: the lock is the delay.
		delay := min(why.Delay, maxLease)
		if until := s.LockedUntil(); !until.IsZero() && !why.renewsSession {
			delay = min(time.Until(until), maxLease)
		}
		s.hold(err, delay)
		return err
	}
	if s.end(observe.SessionBlocked, err) {
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		_ = s.release(cctx) // if it fails the lock runs out
	}
	return err
}

// All returns the session's messages one by one, in order, until the session or ctx ends,
// or until none came for Wait: while a receiver holds a session with nothing in it, no other
// gets what comes next, and the receiver works on no other session. It ends, so that no
// message overtakes another, if the loop abandons a delivery or leaves it unsettled.
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

// Close releases the session and, at once, every message of it that is not
// settled: to settle or renew one after that fails with ErrClosed. A second Close returns
// nil. A session that Receive gave up for a message that waits is left to come free as Receive
// says.
func (s *Session) Close(ctx context.Context) error {
	if ctx == nil {
		return wrap("close session", s.r.queue, errNilContext)
	}
	if s.end(observe.SessionClosed, errSessionClosed) {
		return wrap("close session", s.r.queue, s.release(ctx))
	}
	s.mu.Lock()
	state := s.state
	s.mu.Unlock()
	if state == sessionOver {
		_ = s.release(ctx) // of a lost session, only to let go of it
	}
	return nil
}
