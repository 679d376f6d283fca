package drivertest

import (
	"time"

	"github.com/queue-runtime/queue/driver"
)

// releaseCases hold a driver to driver.Release. A driver without
// Capabilities.ReleaseUncounted treats it as driver.Abandon, and has to keep the
// rest of the promise all the same.
var releaseCases = []conformanceCase{
	{"release_count", releaseCount},
	{"release_limit", releaseLimit},
	{"release_lock_expires", releaseLockExpires},
	{"release_delay", releaseDelay},
	{"release_stale", releaseStale},
	{"release_order", releaseOrder},
	{"release_session", releaseSession},
	{"release_session_delay", releaseSessionDelay},
	{"release_dead_letter", releaseDeadLetter},
}

// wantCount checks the count of a delivery before which so many deliveries were
// released and so many counted.
func (e *env) wantCount(q driver.Queue, d *driver.Delivery, released, counted int) {
	e.Helper()
	switch exact := counted + 1; {
	case q.Capabilities().ReleaseUncounted && d.Count != exact:
		e.Errorf("Count is %d after %d released and %d counted deliveries, want %d: a released delivery does not count", d.Count, released, counted, exact)
	case d.Count < exact+released && !q.Capabilities().ReleaseUncounted:
		e.Errorf("Count is %d at delivery %d: without ReleaseUncounted a released delivery counts", d.Count, exact+released)
	}
}

// releaseCount checks that a released message comes back at once, to any receiver, as
// the same message, and the delivery is not counted. One that is abandoned after it is.
func releaseCount(e *env) {
	name, q := e.named(QueueSpec{})
	other := e.another(name)
	e.send(q, message("released"))
	first := e.one(q)
	e.wantCount(q, first, 0, 0)
	e.must(q, driver.Release, first)
	second := e.one(other)
	e.wantCount(q, second, 1, 0)
	if second.BrokerID != first.BrokerID {
		e.Errorf("BrokerID was %q and is %q after a release", first.BrokerID, second.BrokerID)
	}
	e.must(other, driver.Release, second)
	third := e.one(q)
	e.wantCount(q, third, 2, 0)
	e.must(q, driver.Abandon, third)
	fourth := e.one(q)
	e.wantCount(q, fourth, 2, 1)
	e.want(e.settle(q, driver.Settlement{Delivery: third, Kind: driver.Release}), driver.ErrSettled, "Settle (released) of a delivery that is settled (abandoned)")
	e.must(q, driver.Complete, fourth)
	e.none(q, "the message is completed")
}

// releaseLimit checks that releasing never brings a message to MaxDeliveries, and does
// not change the count of its other deliveries.
func releaseLimit(e *env) {
	const limit = 3
	q, ok := e.limited(QueueSpec{MaxDeliveries: limit})
	if !ok || !q.Capabilities().ReleaseUncounted {
		return
	}
	e.send(q, rich("drained"))
	for range limit - 1 {
		for range 2 * limit {
			e.must(q, driver.Release, e.one(q))
		}
		e.must(q, driver.Abandon, e.one(q))
	}
	last := e.one(q)
	e.wantCount(q, last, 2*limit*(limit-1), limit-1)
	e.must(q, driver.Abandon, last)
	e.none(q, "the message has had its deliveries")
	e.brokerDeadLetters(q, "drained", e.slack())
}

// releaseLockExpires checks that a lock that runs out counts, also of a message that
// was released before. Otherwise a message that ends its process would be delivered for
// ever.
func releaseLockExpires(e *env) {
	const limit = 2
	q, ok := e.limited(QueueSpec{MaxDeliveries: limit, ShortLock: true})
	if !ok || q.Capabilities().Lock == 0 || !q.Capabilities().ReleaseUncounted {
		return
	}
	lock := q.Capabilities().Lock
	e.send(q, rich("fatal"))
	e.must(q, driver.Release, e.one(q))
	for n := range limit {
		e.wantCount(q, e.gatherWithin(q, 1, lock+e.slack())[0], 1, n)
	}
	e.pass(lock + lock/4)
	e.none(q, "the message has had its deliveries: a lock that runs out counts")
	e.brokerDeadLetters(q, "fatal", lock+e.slack())
}

// releaseDelay checks that at least the delay passes before a released message comes
// back. A driver that cannot delay refuses, and the message stays under its lock.
func releaseDelay(e *env) {
	const delay = 2 * time.Second
	q := e.queue()
	e.send(q, message("put-off"))
	first := e.one(q)
	begin := time.Now()
	err := e.settle(q, driver.Settlement{Delivery: first, Kind: driver.Release, Delay: delay})
	if q.Capabilities().AbandonDelay == driver.None {
		e.wantUnsupported(err, "Release with a delay")
		e.none(q, "the lock stays as it is when Release with a delay is refused")
		e.must(q, driver.Complete, first)
		return
	}
	if err != nil {
		e.Fatalf("Release with a delay: %v", err)
	}
	second := e.gatherWithin(q, 1, delay+e.slack())[0]
	if took := time.Since(begin); took < delay-delay/20 {
		e.Errorf("a message that was released with a delay of %s came back after %s", delay, took)
	}
	if q.Capabilities().AbandonDelay != driver.Copy {
		e.wantCount(q, second, 1, 0)
	}
	e.must(q, driver.Complete, second)
	e.none(q, "the message is completed: a release with a delay must not leave a second one")
}

// releaseStale checks that a receipt whose lock is over releases nothing, and takes
// nothing off the count of the delivery that another receiver holds.
func releaseStale(e *env) {
	name, q, lock, ok := e.shortLock()
	if !ok {
		return
	}
	other := e.another(name)
	e.send(q, message("stale"))
	stale := e.one(q)
	e.pass(time.Until(stale.LockedUntil) + lock/4)
	e.want(e.settle(q, driver.Settlement{Delivery: stale, Kind: driver.Release}), driver.ErrLockLost, "Settle (released) of a delivery whose lock is over")
	held := e.gatherWithin(other, 1, lock+e.slack())[0]
	e.want(e.settle(q, driver.Settlement{Delivery: stale, Kind: driver.Release}), driver.ErrLockLost, "Settle (released) of a delivery whose message another receiver holds")
	e.none(q, "the message is held by another connection, a stale receipt (released) must not release it")
	e.must(other, driver.Abandon, held)
	again := e.one(other)
	e.wantCount(q, again, 0, 2)
	e.must(other, driver.Complete, again)
}

// releaseOrder checks that outside of a session a released message of a session is
// delivered before the later ones of that session.
func releaseOrder(e *env) {
	_, q, ok := e.plain(QueueSpec{})
	if !ok {
		return
	}
	e.send(q, run("a", 3)...)
	e.must(q, driver.Release, e.expect(q, "a-000", "it is the first of its session"))
	again := e.expect(q, "a-000", "it was released and comes before the later ones")
	e.none(q, "an earlier message of the session is held")
	e.must(q, driver.Complete, again)
	for _, id := range []string{"a-001", "a-002"} {
		e.must(q, driver.Complete, e.expect(q, id, "the one before it is completed"))
	}
}

// releaseSession checks that what the holder of a session releases keeps its place, for
// that holder and for the next.
func releaseSession(e *env) {
	_, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	e.send(q, run("a", 2)...)
	s := e.accept(q, "a")
	e.must(s, driver.Release, e.expect(s, "a-000", "it is the first of its session"))
	again := e.expect(s, "a-000", "it was released and comes before the later ones")
	e.wantCount(q, again, 1, 0)
	e.must(s, driver.Release, again)
	e.close(s)
	s = e.accept(q, "a")
	third := e.expect(s, "a-000", "it was released and comes before the later ones")
	e.wantCount(q, third, 2, 0)
	e.must(s, driver.Complete, third)
	e.must(s, driver.Complete, e.expect(s, "a-001", "the one before it is completed"))
	e.close(s)
}

// releaseSessionDelay checks that a message that is released with a delay blocks its
// session.
func releaseSessionDelay(e *env) {
	_, q, ok := e.plain(QueueSpec{})
	if !ok || q.Capabilities().AbandonDelay == driver.None {
		return
	}
	e.send(q, run("a", 2)...)
	first := e.expect(q, "a-000", "it is the first of its session")
	if err := e.settle(q, driver.Settlement{Delivery: first, Kind: driver.Release, Delay: soon}); err != nil {
		e.Fatalf("Release with a delay: %v", err)
	}
	e.none(q, "an earlier message of the session waits for redelivery")
	again := e.gatherWithin(q, 1, soon+e.slack())[0]
	if again.ID != "a-000" {
		e.Fatalf("received %q, want %q: it was released with a delay and comes before the later ones", again.ID, "a-000")
	}
	e.wantCount(q, again, 1, 0)
	e.must(q, driver.Complete, again)
	e.must(q, driver.Complete, e.expect(q, "a-001", "the one before it is completed"))
}

// releaseDeadLetter checks that a dead letter is released like any other message.
func releaseDeadLetter(e *env) {
	q := e.queue()
	if q.Capabilities().DeadLetter == driver.None {
		return
	}
	e.send(q, rich("dead"))
	e.must(q, driver.MoveToDeadLetter, e.one(q))
	dead := e.deadLetters(q)
	e.must(dead, driver.Release, e.one(dead))
	again := e.one(dead)
	e.wantCount(dead, again, 1, 0)
	if again.DeadLetter == nil || again.DeadLetter.Reason != testReason {
		e.Errorf("a dead letter that was released has lost its reason: %+v", again.DeadLetter)
	}
	e.must(dead, driver.Complete, again)
	e.none(dead, "the dead letter is completed")
}
