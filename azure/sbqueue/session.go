package sbqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

const (
	// acceptPause is how long a session that is in other hands is left alone
	// before it is asked for again.
	acceptPause = 250 * time.Millisecond
	// acceptNext is how long the broker is asked to wait for the next session, at most,
	// and acceptNamed how long it has to answer for a named one, which it does at once.
	// Its silence after that says that the connection is dead.
	acceptNext  = 10 * time.Second
	acceptNamed = 3 * time.Second
	// acceptGrace is how much later its answer may be here.
	acceptGrace = 2 * time.Second
	// sessionCall bounds a request about a session, which the broker answers at once.
	sessionCall = 4 * time.Second
	// minAccept is what an attempt gets at least. One that ends while it
	// begins an AMQP session leaves that to be ended later, whether the broker
	// has heard of it or not; the broker may then close the connection, and
	// with it every session.
	minAccept = 1500 * time.Millisecond
)

// session is one session of a queue. It ends with its AMQP link. The SDK makes the
// link of a session anew, by the session's name, if it can: what was lost would
// look as if it were kept, while the broker delivers its messages again. So the
// session has a client that does not retry, nothing is called any more once a
// call has shown that the link is dead, and one call at a time is made of those
// that attach again by themselves, to see by the end of the lock whether they did.
type session struct {
	*source
	r  *azservicebus.SessionReceiver
	id string

	attachToken chan struct{} // one token, held by the call that could attach again
	toldUntil   time.Time     // the end of the lock as the SDK has it; only with the token

	lossCtx context.Context // ends when the session is lost, and with its connection
	leave   context.CancelFunc
	closing sync.Once // by Close or by loss

	mu    sync.Mutex // guards what follows
	until time.Time  // the end of the lock by this machine's clock
}

// newSession returns the session of r. It is lost when connected ends.
func newSession(q *queue, r *azservicebus.SessionReceiver, connected context.Context) *session {
	s := &session{source: newSource(q, ofMessages, 1), r: r, id: r.SessionID(), attachToken: make(chan struct{}, 1), toldUntil: r.LockedUntil()}
	s.until = q.lock.end(time.Now(), s.toldUntil)
	s.lossCtx, s.leave = context.WithCancel(connected)
	s.lose = s.drop
	l := q.newLink() // which comes connected
	s.link = l
	l.r = r
	l.made(r, connected)
	return s
}

// AcceptSession takes a session's lock. The broker waits for the next session by
// itself; for a named one that is held it is asked again.
func (q *queue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	if !q.settings.Sessions {
		return nil, driver.Unsupported("sessions: this queue has none")
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if q.source.over.Err() != nil {
		return nil, errClosed()
	}
	deadline := time.Now().Add(wait)
	// away is why the broker could not be reached, here or by another call.
	away := errAway
	for held := false; ; {
		if ok, err := q.b.dials.wait(ctx, q.source.over, time.Until(deadline)); err != nil {
			return nil, err
		} else if !ok {
			return nil, away
		}
		began := time.Now()
		r, connected, err := q.acceptTurn(ctx, id, deadline)
		if err == nil {
			q.b.dials.reached()
			s := newSession(q, r, connected)
			q.mu.Lock()
			defer q.mu.Unlock()
			if q.source.over.Err() != nil {
				q.b.discard(connected, r)
				return nil, errClosed()
			}
			q.sessions[s] = struct{}{}
			q.b.sessions.hold(s)
			return s, nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case q.source.over.Err() != nil:
			return nil, errClosed()
		}
		kind := driver.KindOf(classify(ctx, err))
		left := time.Until(deadline)
		nothing := kind == driver.Unavailable && isTimeout(err)
		if kind == driver.SessionHeld || isTimeout(err) {
			q.b.dials.reached() // it has answered
		}
		switch {
		case id != "" && kind == driver.SessionHeld:
			held = true
			if left <= 0 {
				return nil, &driver.Error{Kind: driver.SessionHeld}
			}
		case nothing:
			switch {
			case left >= acceptPause && time.Since(began) >= acceptPause:
				continue // it has waited
			case left >= acceptPause:
			case id == "":
				return nil, &driver.Error{Kind: driver.NoSession}
			case held:
				return nil, &driver.Error{Kind: driver.SessionHeld}
			default:
				return nil, driver.Errorf(driver.Unavailable, "the broker did not answer")
			}
		case kind == driver.Unavailable:
			// The SDK gives the connection up when another call is cancelled at
			// the wrong moment.
			q.b.dials.failed(time.Now())
			if away = classify(ctx, err); left <= 0 {
				return nil, away
			}
			continue // after the pause of the limiter
		default:
			return nil, classify(ctx, err)
		}
		timer := time.NewTimer(min(acceptPause, max(left, 0)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-q.source.over.Done():
			timer.Stop()
			return nil, errClosed()
		}
	}
}

// earlyDeadline is a context whose Deadline is before its end. The SDK passes Deadline on to
// the broker: so the broker's answer that there is no session has the time to arrive. From
// shortly before that answer on, Deadline is the end: the SDK bounds what it then writes by
// that, and gives the connection up if it has no time left for a write.
type earlyDeadline struct {
	context.Context
	deadline time.Time
}

// deadlineMargin is more than the SDK takes off the deadline that it passes on (0.1 s).
const deadlineMargin = 200 * time.Millisecond

func (c earlyDeadline) Deadline() (time.Time, bool) {
	if time.Until(c.deadline) > deadlineMargin {
		return c.deadline, true
	}
	return c.Context.Deadline()
}

// accept makes one attempt, and returns with the session a context that ends with its
// connection. Its error is errSilent if the broker answered nothing in time.
func (q *queue) accept(ctx context.Context, id string, wait time.Duration) (*azservicebus.SessionReceiver, context.Context, error) {
	wait = min(wait, acceptNext)
	if id != "" {
		wait = min(wait, acceptNamed)
	}
	client, connected := q.b.sessions.client()
	began := time.Now()
	r, err := q.acceptOver(ctx, client, connected, id, wait)
	if ctx.Err() == nil { // else nothing is known of the connection
		q.b.sessions.note(began, err)
	}
	return r, connected, err
}

// acceptOver makes one attempt over the connection of client. The SDK waits for its mutexes
// whatever a context says: what it brings after that is given up again.
func (q *queue) acceptOver(ctx context.Context, client *azservicebus.Client, connected context.Context, id string, wait time.Duration) (*azservicebus.SessionReceiver, error) {
	if !q.b.begin(1) {
		return nil, errClosed()
	}
	caller := ctx
	limited, cancel := context.WithTimeout(ctx, wait+acceptGrace)
	defer cancel()
	unhook := context.AfterFunc(q.source.over, cancel)
	defer unhook()
	ctx = earlyDeadline{limited, time.Now().Add(wait)}
	if end, ok := caller.Deadline(); ok && end.Before(time.Now().Add(wait)) {
		ctx = limited
	}
	silent := func(err error) error {
		if errors.Is(err, context.DeadlineExceeded) && caller.Err() == nil {
			return errSilent
		}
		return err
	}
	type accepted struct {
		r   *azservicebus.SessionReceiver
		err error
	}
	came, late := make(chan accepted), make(chan struct{})
	defer close(late)
	go func() {
		defer q.b.calls.Done()
		var o accepted
		if id == "" {
			o.r, o.err = client.AcceptNextSessionForQueue(ctx, q.name, nil)
		} else {
			o.r, o.err = client.AcceptSessionForQueue(ctx, q.name, id, nil)
		}
		select {
		case came <- o:
		case <-late:
			if o.err == nil {
				q.b.discard(connected, o.r)
			}
		}
	}()
	select {
	case o := <-came:
		return o.r, silent(o.err)
	case <-limited.Done():
	}
	grace := time.NewTimer(callGrace)
	defer grace.Stop()
	select {
	case o := <-came:
		return o.r, silent(o.err)
	case <-grace.C:
		return nil, silent(limited.Err())
	}
}

// isTimeout reports the broker's own word that there is no session.
func isTimeout(err error) bool {
	var sb *azservicebus.Error
	return errors.As(err, &sb) && sb.Code == azservicebus.CodeTimeout
}

func (s *session) ID() string { return s.id }

func (s *session) LockedUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}

// drop gives a session up that is lost: nothing of it can be settled any more.
func (s *session) drop() {
	s.closing.Do(func() {
		s.leave()
		l := s.link
		l.down()
		s.q.forgetSession(s)
		l.retire() // if it was attached again, too
	})
}

// alive returns why the session is over, nil while it is held.
func (s *session) alive() error {
	switch {
	case s.over.Err() != nil:
		return errClosed()
	case s.lossCtx.Err() != nil:
		s.drop() // if it was lost with its connection
		return &driver.Error{Kind: driver.SessionLost}
	case !time.Now().Before(s.LockedUntil()):
		s.drop()
		return &driver.Error{Kind: driver.SessionLost}
	}
	return nil
}

// only makes a call that attaches the session again if its link is dead, and
// no other of the kind beside it: the SDK does not guard what it writes then.
func (s *session) only(ctx context.Context, call func(context.Context) error) error {
	if err := s.alive(); err != nil {
		return err
	}
	select {
	case s.attachToken <- struct{}{}:
		defer func() { <-s.attachToken }()
	case <-s.lossCtx.Done():
		return &driver.Error{Kind: driver.SessionLost}
	case <-s.over.Done():
		return errClosed()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := s.alive(); err != nil {
		return err
	}
	l := s.link
	if !l.take() {
		return &driver.Error{Kind: driver.SessionLost}
	}
	defer l.leave()
	err := call(ctx)
	if !s.r.LockedUntil().Equal(s.toldUntil) { // attached again
		s.drop()
		return &driver.Error{Kind: driver.SessionLost}
	}
	return err
}

// ask makes one call of the SDK over the session's links. If the connection was replaced for
// it, the session is lost.
func (s *session) ask(call func() error) error {
	began := time.Now()
	err := call()
	if s.q.b.sessions.note(began, err) {
		s.drop()
	}
	return err
}

// lost classifies an error of the session's link, and ends the session if the link is
// dead.
func (s *session) lost(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if s.lossCtx.Err() != nil {
		return &driver.Error{Kind: driver.SessionLost, Err: errors.New(text(err))}
	}
	dead := isDead(err)
	err = s.fault(ctx, err)
	switch driver.KindOf(err) {
	case driver.LockLost, driver.SessionHeld, driver.SessionLost:
		dead = true
	}
	if !dead || s.over.Err() != nil {
		return err
	}
	s.drop()
	return &driver.Error{Kind: driver.SessionLost, Err: err}
}

// Receive returns the session's messages.
func (s *session) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if err := s.alive(); err != nil {
		return nil, err
	}
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.lossCtx, cancel)()
	list, err := s.receive(waiting, max, wait)
	switch {
	case s.lossCtx.Err() != nil && ctx.Err() == nil:
		return nil, &driver.Error{Kind: driver.SessionLost}
	case err != nil:
		return nil, s.lost(ctx, err)
	}
	if len(list) > 0 && !s.same() {
		s.drop()
		return nil, &driver.Error{Kind: driver.SessionLost}
	}
	until := s.LockedUntil()
	for _, d := range list {
		d.LockedUntil = until
	}
	return list, nil
}

// same reports whether the session is still the one that was accepted. A Receive
// that began on a link of which another call had just learnt that it is dead has
// attached again, and what it got is of another hold of the session.
func (s *session) same() bool {
	select {
	case s.attachToken <- struct{}{}: // the call that holds it has a deadline
		defer func() { <-s.attachToken }()
	case <-s.lossCtx.Done():
		return false
	}
	return s.r.LockedUntil().Equal(s.toldUntil)
}

// Settle settles one by one: messages go back in the order in which they are
// given back.
func (s *session) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.settleBy(ctx, all, 1, s)
}

func (s *session) settleOne(ctx context.Context, x *driver.Settlement) error {
	if r, ok := x.Delivery.Receipt.(*receipt); ok && s.over.Err() == nil && s.isSettled(r) {
		return &driver.Error{Kind: driver.Settled}
	}
	err := s.only(ctx, func(ctx context.Context) error { return s.source.settleOne(ctx, x) })
	if driver.KindOf(err) == driver.SessionLost {
		return &driver.Error{Kind: driver.LockLost, Err: err}
	}
	return err
}

func (s *session) isSettled(r *receipt) bool {
	s.source.mu.Lock()
	defer s.source.mu.Unlock()
	return r.settled && !r.unanswered
}

// Renew renews the session, which holds its messages.
func (s *session) Renew(ctx context.Context, all []*driver.Delivery) []driver.RenewResult {
	results := make([]driver.RenewResult, len(all))
	if len(all) == 0 {
		return results
	}
	until, err := s.RenewSession(ctx)
	for i, d := range all {
		x := &results[i]
		r, ok := d.Receipt.(*receipt)
		switch {
		case ok && s.isSettled(r):
			x.Err = &driver.Error{Kind: driver.Settled}
		case driver.KindOf(err) == driver.SessionLost:
			x.Err = &driver.Error{Kind: driver.LockLost, Err: err}
		case err != nil:
			x.Err = err
		default:
			d.LockedUntil, x.LockedUntil = until, until
		}
	}
	return results
}

// RenewSession extends the lock. The SDK would attach the session again if the
// management link is dead, and then renew what it got: the end of the lock would
// not show it. So the session's state is asked for first, by the same link, which
// does not change the end.
func (s *session) RenewSession(ctx context.Context) (time.Time, error) {
	bounded, cancel := context.WithTimeout(ctx, sessionCall)
	defer cancel()
	err := s.q.b.one(ctx, func() error {
		return s.only(bounded, func(ctx context.Context) error {
			err := s.ask(func() error {
				_, err := s.r.GetSessionState(ctx, nil)
				return err
			})
			if err != nil || !s.r.LockedUntil().Equal(s.toldUntil) {
				return s.lost(ctx, err)
			}
			asked := time.Now()
			if err := s.ask(func() error { return s.r.RenewSessionLock(ctx, nil) }); err != nil {
				return s.lost(ctx, err)
			}
			s.toldUntil = s.r.LockedUntil()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.until = s.q.lock.end(asked, s.toldUntil)
			return nil
		})
	})
	if err != nil {
		return time.Time{}, err
	}
	return s.LockedUntil(), nil
}

// State and SetState are the broker's session state.
func (s *session) State(ctx context.Context) ([]byte, error) {
	var state []byte
	bounded, cancel := context.WithTimeout(ctx, sessionCall)
	defer cancel()
	err := s.q.b.one(ctx, func() error {
		return s.only(bounded, func(ctx context.Context) error {
			err := s.ask(func() error {
				b, err := s.r.GetSessionState(ctx, nil)
				if err == nil && len(b) > 0 {
					state = b
				}
				return err
			})
			return s.lost(ctx, err)
		})
	})
	if err != nil {
		return nil, err // the call may not have ended
	}
	return state, nil
}

func (s *session) SetState(ctx context.Context, state []byte) error {
	bounded, cancel := context.WithTimeout(ctx, sessionCall)
	defer cancel()
	err := s.q.b.one(ctx, func() error {
		return s.only(bounded, func(ctx context.Context) error {
			return s.lost(ctx, s.ask(func() error { return s.r.SetSessionState(ctx, state, nil) }))
		})
	})
	return err
}

// Close gives back what is held and gives the session up.
func (s *session) Close(ctx context.Context) (err error) {
	_ = s.alive() // if it is lost, that ends it
	s.closing.Do(func() {
		err = classify(ctx, s.q.b.closeAll(ctx, []closer{closing(s.close)}, closeQueue))
		s.leave()
		s.q.forgetSession(s)
	})
	s.shut()
	switch driver.KindOf(err) {
	case driver.SessionLost, driver.LockLost, driver.Closed, driver.Unavailable:
		return nil // it is given up in any case
	}
	return err
}

func (q *queue) forgetSession(s *session) {
	q.mu.Lock()
	delete(q.sessions, s)
	q.mu.Unlock()
	q.b.sessions.release(s)
}
