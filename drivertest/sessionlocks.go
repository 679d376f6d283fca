package drivertest

import (
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var sessionLockCases = []conformanceCase{
	{"session_lock_excludes", sessionLockExcludes},
	{"session_lock_expires", sessionLockExpires},
	{"session_lock_renew", sessionLockRenew},
	{"session_lock_renew_delivery", sessionLockRenewDelivery},
	{"session_close_releases", sessionCloseReleases},
	{"session_closed", sessionClosed},
	{"session_ends_with_broker", sessionEndsWithBroker},
	{"session_ends_with_queue", sessionEndsWithQueue},
	{"session_abandon_delay", sessionAbandonDelay},
}

// unavailable checks that no receiver gets session "a", or a message of it, in any
// way. It must be the only session of its queue.
func (e *env) unavailable(q driver.Queue, why string) {
	e.Helper()
	const id = "a"
	if s, err := q.AcceptSession(e.ctx, "", 0); err == nil {
		e.Fatalf("AcceptSession returned the session %q: %s", s.ID(), why)
	} else {
		e.want(err, driver.ErrNoSession, "AcceptSession while the only session is held")
	}
	if q.Capabilities().AcceptByID {
		if _, err := q.AcceptSession(e.ctx, id, 0); err == nil {
			e.Fatalf("AcceptSession(%q) returned the session: %s", id, why)
		} else {
			e.want(err, driver.ErrSessionHeld, "AcceptSession of a session in other hands")
		}
	}
	if !q.Capabilities().SessionOnly {
		if got := e.receive(q, 10, 0); len(got) > 0 {
			e.Fatalf("Receive outside of the session delivered %s: %s", ids(got), why)
		}
	}
}

// sessionLockExcludes checks that, while a session is held, with or without one of its
// messages, no other receiver gets anything of it.
func sessionLockExcludes(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	other := e.another(name)
	e.send(q, run("a", 3)...)
	s := e.accept(q, "a")
	e.unavailable(other, "another connection holds the session")
	d := e.one(s)
	e.unavailable(other, "another connection holds the session and a message of it")
	e.unavailable(q, "the session is held, though by the same connection")
	if q.Capabilities().SessionGaps {
		e.must(s, driver.Complete, d)
		e.send(other, inSession("a", 3))
		for i := 1; i < 4; i++ {
			d := e.expect(s, fmt.Sprintf("a-%03d", i), "it is the next of its session")
			e.unavailable(other, "another connection holds a message of the session")
			e.must(s, driver.Complete, d)
		}
		e.close(s)
		return
	}
	e.must(s, driver.Abandon, d)
	e.unavailable(other, "another connection holds the session and has abandoned a message")
	e.must(s, driver.Complete, e.expect(s, "a-000", "it was abandoned and comes before the later ones"))
	e.unavailable(other, "another connection holds the session and has completed a message")
	e.send(other, inSession("a", 3))
	e.unavailable(other, "another connection holds the session, to which a message came")
	for i := 1; i < 4; i++ {
		e.must(s, driver.Complete, e.expect(s, fmt.Sprintf("a-%03d", i), "it is the next of its session"))
	}
	e.close(s)
}

// shortSession opens a queue whose session locks run out. ok is false if they
// do not, or there are no sessions.
func (e *env) shortSession() (name string, q driver.Queue, lock time.Duration, ok bool) {
	e.Helper()
	name, q, ok = e.acceptable(QueueSpec{ShortLock: true})
	if !ok {
		return "", nil, 0, false
	}
	lock = q.Capabilities().Lock
	return name, q, lock, lock > 0
}

// sessionLockExpires checks that when its lock runs out a session passes on, from the
// first unsettled message on, and its old holder can do nothing more.
func sessionLockExpires(e *env) {
	name, q, lock, ok := e.shortSession()
	if !ok {
		return
	}
	other := e.another(name)
	e.send(q, run("a", 4)...)
	s := e.accept(q, "a")
	if until := time.Until(s.LockedUntil()); until <= 0 || until > lock+time.Second {
		e.Errorf("LockedUntil of a session is %s from now, Capabilities.Lock is %s", until, lock)
	}
	e.must(s, driver.Complete, e.expect(s, "a-000", "it is the first of its session"))
	stale := e.expect(s, "a-001", "it is the next of its session")
	end := s.LockedUntil()

	next := e.acceptWithin(other, "a", lock+e.slack())
	if early := time.Until(end); early > lock/10 {
		e.Errorf("the session was given to another %s before its lock's end", early)
	}
	d := e.expect(next, "a-001", "the one before it is completed, and it is not")
	if d.Count < 2 {
		e.Errorf("Count is %d at the second delivery", d.Count)
	}
	_, err := s.Receive(e.ctx, 1, 0)
	e.want(err, driver.ErrSessionLost, "Receive of a session whose lock is over")
	_, err = s.RenewSession(e.ctx)
	e.want(err, driver.ErrSessionLost, "RenewSession of a session whose lock is over")
	e.want(e.settle(s, driver.Settlement{Delivery: stale, Kind: driver.Complete}), driver.ErrLockLost, "Settle (complete) in a session whose lock is over")
	e.want(e.settle(s, driver.Settlement{Delivery: stale, Kind: driver.Abandon}), driver.ErrLockLost, "Settle (abandon) in a session whose lock is over")
	_, err = e.renew(s, stale)
	e.want(err, driver.ErrLockLost, "Renew in a session whose lock is over")
	if err := s.Close(e.ctx); err != nil {
		e.Errorf("Close of a session whose lock is over: %v", err)
	}
	if _, err := next.RenewSession(e.ctx); err != nil {
		e.Errorf("RenewSession of the new holder, after the old one tried everything: %v", err)
	}
	e.must(next, driver.Complete, d)
	for i := 2; i < 4; i++ {
		e.must(next, driver.Complete, e.expect(next, fmt.Sprintf("a-%03d", i), "it is the next of its session"))
	}
	e.close(next)
}

// holdLong keeps a session for three lock times by renew, while other has no
// chance.
func (e *env) holdLong(s driver.Session, other driver.Queue, lock time.Duration, renew func() (time.Time, error)) {
	e.Helper()
	last := s.LockedUntil()
	for range 9 {
		e.pass(lock / 3)
		end, err := renew()
		e.classified("RenewSession", err)
		if err != nil {
			e.Fatalf("renewing a session within its lock: %v", err)
		}
		if !end.After(last) || !s.LockedUntil().Equal(end) {
			e.Errorf("renewing a session returned %s and its LockedUntil is %s, the lock ended at %s before", end, s.LockedUntil(), last)
		}
		last = end
		if got, err := other.AcceptSession(e.ctx, "", 0); err == nil {
			e.Fatalf("session %q was given to another while its lock was renewed", got.ID())
		}
	}
}

// sessionLockRenew checks that renewing keeps a session and what was received of it.
func sessionLockRenew(e *env) {
	name, q, lock, ok := e.shortSession()
	if !ok {
		return
	}
	other := e.another(name) // before the lock begins: to connect may take a while
	e.send(q, run("a", 2)...)
	s := e.accept(q, "a")
	d := e.one(s)
	e.holdLong(s, other, lock, func() (time.Time, error) { return s.RenewSession(e.ctx) })
	e.must(s, driver.Complete, d)
	e.must(s, driver.Complete, e.expect(s, "a-001", "the one before it is completed"))
	e.close(s)
}

// sessionLockRenewDelivery checks that renewing a delivery renews its session.
func sessionLockRenewDelivery(e *env) {
	name, q, lock, ok := e.shortSession()
	if !ok {
		return
	}
	other := e.another(name) // before the lock begins: to connect may take a while
	e.send(q, run("a", 2)...)
	s := e.accept(q, "a")
	d := e.one(s)
	e.holdLong(s, other, lock, func() (time.Time, error) { return e.renew(s, d) })
	e.must(s, driver.Complete, d)
	e.must(s, driver.Complete, e.expect(s, "a-001", "the one before it is completed"))
	e.close(s)
}

// sessionCloseReleases checks that closing a session gives it up at once, with what was
// not settled, in order.
func sessionCloseReleases(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	other := e.another(name)
	e.send(q, run("a", 4)...)
	s := e.accept(q, "a")
	e.must(s, driver.Complete, e.expect(s, "a-000", "it is the first of its session"))
	e.expect(s, "a-001", "it is the next of its session")
	e.close(s)
	next := e.accept(other, "a")
	for i := 1; i < 4; i++ {
		d := e.expect(next, fmt.Sprintf("a-%03d", i), "it is the first of its session that is not settled")
		if i == 1 && d.Count < 2 {
			e.Errorf("Count is %d at the second delivery", d.Count)
		}
		e.must(next, driver.Complete, d)
	}
	e.close(next)
}

// sessionClosed checks that calls on a closed session fail and disturb no other
// receiver.
func sessionClosed(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	e.send(q, run("a", 2)...)
	s := e.accept(q, "a")
	stale := e.one(s)
	e.close(s)
	next := e.accept(e.another(name), "a")
	d := e.expect(next, "a-000", "it was released when its holder closed the session")
	if err := s.Close(e.ctx); err != nil {
		e.Errorf("a second Close of a session: %v", err)
	}
	gone := func(err error, what string) {
		e.Helper()
		if !errors.Is(err, driver.ErrClosed) && !errors.Is(err, driver.ErrSessionLost) && !errors.Is(err, driver.ErrLockLost) {
			e.Errorf("%s: the error is %v, want %v", what, show(err), driver.ErrClosed)
		}
	}
	_, err := s.Receive(e.ctx, 1, 0)
	gone(err, "Receive of a closed session")
	_, err = s.RenewSession(e.ctx)
	gone(err, "RenewSession of a closed session")
	gone(e.settle(s, driver.Settlement{Delivery: stale, Kind: driver.Complete}), "Settle in a closed session")
	e.must(next, driver.Complete, d)
	e.must(next, driver.Complete, e.expect(next, "a-001", "it is the next of its session"))
	e.close(next)
}

// sessionEndsWithBroker checks that a session passes on when its holder goes away.
func sessionEndsWithBroker(e *env) {
	e.sessionEnds(func(p driver.Broker, _ driver.Queue) error { return p.Close(e.ctx) })
}

// sessionEndsWithQueue checks that a session passes on, too, when the queue that it
// came from is closed.
func sessionEndsWithQueue(e *env) {
	e.sessionEnds(func(_ driver.Broker, q driver.Queue) error { return q.Close(e.ctx) })
}

func (e *env) sessionEnds(end func(driver.Broker, driver.Queue) error) {
	e.Helper()
	name, other, ok := e.acceptable(QueueSpec{ShortLock: true})
	if !ok {
		return
	}
	p := e.connect()
	q := e.open(p, name)
	e.send(q, run("a", 3)...)
	s := e.accept(q, "a")
	e.must(s, driver.Complete, e.expect(s, "a-000", "it is the first of its session"))
	e.expect(s, "a-001", "it is the next of its session")
	if err := end(p, q); err != nil {
		e.Fatalf("Close: %v", err)
	}
	next := e.acceptWithin(other, "a", other.Capabilities().Lock+e.slack())
	for i := 1; i < 3; i++ {
		e.must(next, driver.Complete, e.expect(next, fmt.Sprintf("a-%03d", i), "it is the first of its session that is not settled"))
	}
	e.close(next)
}

// sessionAbandonDelay checks that in a session an abandon with a delay holds the later
// messages up.
func sessionAbandonDelay(e *env) {
	_, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	e.send(q, run("a", 2)...)
	s := e.accept(q, "a")
	first := e.expect(s, "a-000", "it is the first of its session")
	begin := time.Now()
	err := e.settle(s, driver.Settlement{Delivery: first, Kind: driver.Abandon, Delay: soon})
	if q.Capabilities().AbandonDelay == driver.None {
		e.wantUnsupported(err, "Abandon with a delay in a session")
		e.must(s, driver.Complete, first)
		e.must(s, driver.Complete, e.one(s))
		e.close(s)
		return
	}
	if err != nil {
		e.Fatalf("Abandon with a delay: %v", err)
	}
	for deadline := time.Now().Add(soon + e.slack()); ; {
		got := e.receive(s, 10, e.quiet())
		if len(got) == 0 && time.Now().Before(deadline) {
			continue
		}
		if len(got) == 0 {
			e.Fatalf("a message that was abandoned with a delay did not come back within %s", soon+e.slack())
		}
		if got[0].ID != "a-000" {
			e.Fatalf("received %q before %q, which waits for redelivery", got[0].ID, "a-000")
		}
		if took := time.Since(begin); took < soon-soon/20 {
			e.Errorf("a message that was abandoned with a delay of %s came back after %s", soon, took)
		}
		e.must(s, driver.Complete, got...)
		if len(got) == 1 {
			e.must(s, driver.Complete, e.expect(s, "a-001", "the one before it is completed"))
		}
		break
	}
	e.close(s)
}
