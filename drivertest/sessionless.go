package drivertest

import (
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// sessionlessCases are about messages without a SessionID on a queue that has sessions.
var sessionlessCases = []conformanceCase{
	{"session_without_id", sessionWithoutID},
	{"session_without_id_waits", sessionWithoutIDWaits},
	{"session_without_id_given_back", sessionWithoutIDGivenBack},
	{"session_without_id_renew", sessionWithoutIDRenew},
	{"session_without_id_ends", sessionWithoutIDEnds},
}

// mixed is acceptable for queues that take messages without a SessionID, too.
func (e *env) mixed(s QueueSpec) (name string, q driver.Queue, ok bool) {
	e.Helper()
	name, q, ok = e.acceptable(s)
	return name, q, ok && !q.Capabilities().SessionOnly
}

// unnamed takes the next session, which must be that of a message without a SessionID.
func (e *env) unnamed(q driver.Queue) driver.Session {
	e.Helper()
	s := e.accept(q, "")
	if u, ok := s.(driver.UnnamedSession); !ok || !u.Unnamed() {
		e.Fatalf("AcceptSession returned the session %q and not one that says it is unnamed: the only message has no SessionID", s.ID())
	}
	return s
}

// sessionWithoutID checks that each message without a SessionID is a session of its own,
// beside others and beside sessions, and that neither keep the others from being accepted.
func sessionWithoutID(e *env) {
	_, q, ok := e.mixed(QueueSpec{})
	if !ok {
		return
	}
	const n = 3
	for i := range n {
		e.send(q, message(fmt.Sprintf("alone-%d", i)), inSession("a", i))
	}
	named := 0
	held := make(map[string]driver.Session)
	for range n + 1 {
		s := e.accept(q, "")
		d := e.one(s)
		u, ok := s.(driver.UnnamedSession)
		switch unnamed := ok && u.Unnamed(); {
		case unnamed != (d.SessionID == ""):
			e.Fatalf("message %q has the SessionID %q and came in a session that says Unnamed %t", d.ID, d.SessionID, unnamed)
		case d.SessionID != "":
			named++
			e.must(s, driver.Complete, d)
			for i := 1; i < n; i++ {
				e.must(s, driver.Complete, e.expect(s, fmt.Sprintf("a-%03d", i), "the one before it is completed"))
			}
			e.close(s)
			continue
		case held[d.ID] != nil:
			e.Fatalf("message %q came in two sessions at once", d.ID)
		}
		held[d.ID] = s
		e.none(s, "a session without a name has one message")
		e.must(s, driver.Complete, d)
	}
	if named != 1 || len(held) != n {
		e.Errorf("of %d messages without a SessionID and one session, %d and %d came", n, len(held), named)
	}
	for _, s := range held {
		e.close(s)
	}
}

// sessionWithoutIDWaits checks that a waiting AcceptSession gets a message without a
// SessionID as soon as it is sent.
func sessionWithoutIDWaits(e *env) {
	name, q, ok := e.mixed(QueueSpec{})
	if !ok {
		return
	}
	c := acceptLater(e.ctx, q, "", 4*e.slack())
	e.pass(e.quiet())
	e.send(e.another(name), message("late"))
	r := <-c
	if r.err != nil {
		e.Fatalf("a waiting AcceptSession, after a message without a SessionID was sent: %v", r.err)
	}
	if r.took > e.quiet()+e.slack() {
		e.Errorf("a waiting AcceptSession returned %s after the message was sent", r.took-e.quiet())
	}
	e.must(r.s, driver.Complete, e.expect(r.s, "late", "it is the only one"))
	e.close(r.s)
}

// sessionWithoutIDGivenBack checks that closing such a session gives its message back at
// once, also if it was not received, and that an abandoned one comes again in another.
func sessionWithoutIDGivenBack(e *env) {
	name, q, ok := e.mixed(QueueSpec{})
	if !ok {
		return
	}
	other := e.another(name)
	e.send(q, message("alone"))
	s := e.unnamed(q)
	e.close(s) // before it was received
	e.close(s)
	s = e.unnamed(other)
	d := e.expect(s, "alone", "the session that had it was closed")
	if q.Capabilities().ReleaseUncounted && d.Count != 1 {
		e.Errorf("Count is %d at the first delivery: a session that was closed before it received the message counts", d.Count)
	}
	e.close(s) // before it was settled
	s = e.unnamed(q)
	d = e.expect(s, "alone", "the session that had it was closed")
	e.must(s, driver.Abandon, d)
	e.close(s)
	s = e.unnamed(other)
	d = e.expect(s, "alone", "it was abandoned")
	if d.Count < 3 {
		e.Errorf("Count is %d, want at least 3: it was received three times", d.Count)
	}
	e.must(s, driver.Complete, d)
	e.close(s)
	_, err := q.AcceptSession(e.ctx, "", 0)
	e.want(err, driver.ErrNoSession, "AcceptSession after the only message was completed")
}

// sessionWithoutIDRenew checks that the lock of such a session is that of its message:
// while it is renewed no other holder gets the message, and after its end one does.
func sessionWithoutIDRenew(e *env) {
	name, q, ok := e.mixed(QueueSpec{ShortLock: true})
	lock := time.Duration(0)
	if ok {
		lock = q.Capabilities().Lock
	}
	if lock == 0 {
		return
	}
	other := e.another(name)
	e.send(q, message("alone"))
	s := e.unnamed(q)
	d := e.expect(s, "alone", "it is the only one")
	for _, renew := range []func() (time.Time, error){
		func() (time.Time, error) { return s.RenewSession(e.ctx) },
		func() (time.Time, error) { return e.renew(s, d) },
	} {
		e.holdLong(s, other, lock, renew)
	}
	next := e.acceptWithin(other, "", lock+e.slack())
	again := e.expect(next, "alone", "its lock was over")
	if again.Count < 2 {
		e.Errorf("Count is %d at the second delivery", again.Count)
	}
	_, err := s.Receive(e.ctx, 1, 0)
	e.want(err, driver.ErrSessionLost, "Receive of a session whose lock is over")
	_, err = s.RenewSession(e.ctx)
	e.want(err, driver.ErrSessionLost, "RenewSession of a session whose lock is over")
	e.want(e.settle(s, driver.Settlement{Delivery: d, Kind: driver.Complete}), driver.ErrLockLost, "Settle (complete) in a session whose lock is over")
	e.close(s)
	e.must(next, driver.Complete, again)
	if _, err := next.RenewSession(e.ctx); err != nil {
		e.Errorf("RenewSession after the only message was completed: %v, want nil: there is nothing to lose", err)
	}
	e.close(next)
}

// sessionWithoutIDEnds checks that such a session ends with its queue, and that its
// message comes again.
func sessionWithoutIDEnds(e *env) {
	name, other, ok := e.mixed(QueueSpec{ShortLock: true})
	if !ok {
		return
	}
	q := e.another(name)
	e.send(q, message("alone"))
	s := e.unnamed(q)
	if err := q.Close(e.ctx); err != nil {
		e.Fatalf("Close: %v", err)
	}
	_, err := s.Receive(e.ctx, 1, 0)
	e.want(err, driver.ErrClosed, "Receive of a session whose queue was closed")
	next := e.acceptWithin(other, "", other.Capabilities().Lock+e.slack())
	e.must(next, driver.Complete, e.expect(next, "alone", "the queue that had it was closed"))
	e.close(next)
}
