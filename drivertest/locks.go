package drivertest

import (
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var lockCases = []conformanceCase{
	{"lock_excludes", lockExcludes},
	{"lock_expires", lockExpires},
	{"lock_stale_settle", lockStaleSettle},
	{"lock_renew", lockRenew},
	{"lock_renew_stale", lockRenewStale},
	{"lock_ends_with_queue", lockEndsWithQueue},
	{"lock_ends_with_broker", lockEndsWithBroker},
	{"lock_option", lockOption},
}

// shortLock opens a queue whose locks run out. ok is false if locks have no
// end in time.
func (e *env) shortLock() (name string, q driver.Queue, lock time.Duration, ok bool) {
	e.Helper()
	name, q = e.named(QueueSpec{ShortLock: true})
	lock = q.Capabilities().Lock
	if lock == 0 {
		e.Logf("locks of this broker have no end in time")
		return name, q, 0, false
	}
	return name, q, lock, true
}

// lockExcludes checks that a held message is delivered to no other receiver.
func lockExcludes(e *env) {
	name, q := e.named(QueueSpec{})
	other := e.another(name)
	e.send(q, message("held"))
	d := e.one(q)
	e.none(q, "the message is held")
	e.none(other, "the message is held by another connection")
	e.must(q, driver.Complete, d)
	e.none(other, "the message is completed")
}

// lockExpires checks that when its lock runs out a message comes back, counted, and not
// before.
func lockExpires(e *env) {
	name, q, lock, ok := e.shortLock()
	if !ok {
		return
	}
	other := e.another(name)
	e.send(q, message("expires"))
	first := e.one(q)
	second := e.gatherWithin(other, 1, lock+e.slack())[0]
	if early := time.Until(first.LockedUntil); early > lock/10 {
		e.Errorf("the message was delivered again %s before its lock's end", early)
	}
	if second.Count < 2 {
		e.Errorf("Count is %d at the second delivery", second.Count)
	}
	if second.BrokerID != first.BrokerID {
		e.Errorf("BrokerID was %q and is %q at the redelivery", first.BrokerID, second.BrokerID)
	}
	e.must(other, driver.Complete, second)
}

// lockStaleSettle checks that settling a delivery whose lock is over gives LockLost
// and touches nothing: neither a message that waits nor one that is held.
func lockStaleSettle(e *env) {
	name, q, lock, ok := e.shortLock()
	if !ok {
		return
	}
	other := e.another(name)
	kinds := []driver.SettleKind{driver.Complete, driver.Abandon}
	if q.Capabilities().DeadLetter != driver.None {
		kinds = append(kinds, driver.MoveToDeadLetter)
	}
	for _, kind := range kinds {
		e.send(q, message("stale-"+kind.String()))
		stale := e.one(q)
		e.pass(time.Until(stale.LockedUntil) + lock/4)
		// No receiver has it now.
		err := e.settle(q, driver.Settlement{Delivery: stale, Kind: kind, Reason: testReason, Description: testDescription})
		e.want(err, driver.ErrLockLost, fmt.Sprintf("Settle (%s) of a delivery whose lock is over", kind))
		if err == nil {
			e.Fatalf("a stale receipt was settled (%s)", kind)
		}
		// Now another receiver does.
		held := e.gatherWithin(other, 1, lock+e.slack())[0]
		err = e.settle(q, driver.Settlement{Delivery: stale, Kind: kind, Reason: testReason, Description: testDescription})
		e.want(err, driver.ErrLockLost, fmt.Sprintf("Settle (%s) of a delivery whose message another receiver holds", kind))
		e.none(q, fmt.Sprintf("the message is held by another connection, a stale receipt (%s) must not release it", kind))
		if err := e.settle(other, driver.Settlement{Delivery: held, Kind: driver.Complete}); err != nil {
			e.Errorf("the holder of a message could not complete it after a stale receipt was used (%s): %v", kind, err)
		}
	}
	e.none(q, "all messages were completed by their holders")
	if q.Capabilities().DeadLetter != driver.None {
		e.none(e.deadLetters(q), "a stale receipt must not dead-letter a message")
	}
}

// lockRenew checks that renewing keeps a message for several lock times.
func lockRenew(e *env) {
	name, q, lock, ok := e.shortLock()
	if !ok {
		return
	}
	other := e.another(name)
	e.send(q, message("renewed"))
	d := e.one(q)
	last := d.LockedUntil
	for range 9 { // three lock times
		e.pass(lock / 3)
		end, err := e.renew(q, d)
		if err != nil {
			e.Fatalf("Renew within the lock: %v", err)
		}
		if !end.After(last) {
			e.Errorf("Renew returned %s, the lock ended at %s before", end, last)
		}
		if !d.LockedUntil.Equal(end) {
			e.Errorf("Renew returned %s and set LockedUntil to %s", end, d.LockedUntil)
		}
		last = end
		if got := e.receive(other, 1, 0); len(got) > 0 {
			e.Fatalf("a message was delivered to another connection while its lock was renewed")
		}
	}
	e.must(q, driver.Complete, d)
	e.none(other, "the message is completed")
}

// lockRenewStale checks that a lock that is over cannot be renewed, nor one of a
// delivery that is settled.
func lockRenewStale(e *env) {
	name, q, lock, ok := e.shortLock()
	if !ok {
		return
	}
	other := e.another(name)
	e.send(q, message("renewed-late"))
	stale := e.one(q)
	held := e.gatherWithin(other, 1, lock+e.slack())[0]
	_, err := e.renew(q, stale)
	e.want(err, driver.ErrLockLost, "Renew of a lock that is over")
	if err := e.settle(other, driver.Settlement{Delivery: held, Kind: driver.Complete}); err != nil {
		e.Errorf("the holder of a message could not complete it after a stale receipt was renewed: %v", err)
	}
	if _, err := e.renew(other, held); !errors.Is(err, driver.ErrSettled) && !errors.Is(err, driver.ErrLockLost) {
		e.Errorf("Renew of a delivery that is settled: the error is %v, want %v", show(err), driver.ErrSettled)
	}
}

// lockEndsWithQueue checks that closing a queue gives back what it holds, at the latest
// when the lock is over.
func lockEndsWithQueue(e *env) {
	name, ok := e.newQueue(QueueSpec{ShortLock: true})
	if !ok {
		e.Fatalf("NewQueue of a queue with short locks is unsupported")
	}
	q, other := e.another(name), e.another(name)
	e.send(q, message("given-back"))
	e.one(q)
	if err := q.Close(e.ctx); err != nil {
		e.Fatalf("Queue.Close: %v", err)
	}
	d := e.gatherWithin(other, 1, other.Capabilities().Lock+e.slack())[0]
	if d.Count < 2 {
		e.Errorf("Count is %d at the second delivery", d.Count)
	}
	e.must(other, driver.Complete, d)
}

// lockEndsWithBroker checks that closing the connection gives them back, too. That is
// the nearest to a crash of the holder.
func lockEndsWithBroker(e *env) {
	name, ok := e.newQueue(QueueSpec{ShortLock: true})
	if !ok {
		e.Fatalf("NewQueue of a queue with short locks is unsupported")
	}
	other := e.another(name)
	p := e.connect()
	q := e.open(p, name)
	e.send(q, message("crash-1"), message("crash-2"))
	e.gather(q, 2)
	if err := p.Close(e.ctx); err != nil {
		e.Fatalf("Broker.Close: %v", err)
	}
	for _, d := range e.gatherWithin(other, 2, other.Capabilities().Lock+e.slack()) {
		if d.Count < 2 {
			e.Errorf("Count is %d at the second delivery", d.Count)
		}
		e.must(other, driver.Complete, d)
	}
}

// lockOption checks that QueueOptions.Lock is honoured or refused.
func lockOption(e *env) {
	name, q := e.named(QueueSpec{})
	c := q.Capabilities()
	want := c.MinLock
	if want == 0 {
		want = 7 * time.Second
	}
	custom, err := e.broker.Open(e.ctx, name, &driver.QueueOptions{Lock: want})
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		if c.MinLock < c.MaxLock {
			e.Errorf("Open with a Lock of %s is unsupported, Capabilities claim %s to %s", want, c.MinLock, c.MaxLock)
		}
	case err != nil:
		e.Errorf("Open with a Lock of %s: %v", want, err)
	case custom.Capabilities().Lock != want:
		e.Errorf("Open with a Lock of %s succeeded and Capabilities.Lock is %s", want, custom.Capabilities().Lock)
	}
	if c.MaxLock > 0 {
		_, err := e.broker.Open(e.ctx, name, &driver.QueueOptions{Lock: c.MaxLock + time.Second})
		e.wantUnsupported(err, "Open with a Lock beyond MaxLock")
	}
}
