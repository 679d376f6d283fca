package drivertest

import (
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var settleCases = []conformanceCase{
	{"settle_complete", settleComplete},
	{"settle_abandon", settleAbandon},
	{"settle_abandon_delay", settleAbandonDelay},
	{"settle_twice", settleTwice},
	{"settle_counts", settleCounts},
}

// settleComplete checks that a completed message never comes back, not even after the
// end of the lock that it had.
func settleComplete(e *env) {
	name, q := e.named(QueueSpec{ShortLock: true})
	e.send(q, message("done"))
	d := e.one(q)
	e.must(q, driver.Complete, d)
	if lock := q.Capabilities().Lock; lock > 0 {
		e.pass(lock + lock/4)
	}
	e.none(q, "the message is completed")
	e.none(e.another(name), "the message is completed")
}

// settleAbandon checks that an abandoned message comes back at once, to any receiver.
func settleAbandon(e *env) {
	name, q := e.named(QueueSpec{})
	e.send(q, message("again"))
	first := e.one(q)
	e.must(q, driver.Abandon, first)
	other := e.another(name)
	second := e.one(other)
	if second.Count < 2 {
		e.Errorf("Count is %d at the second delivery", second.Count)
	}
	if second.BrokerID != first.BrokerID {
		e.Errorf("BrokerID was %q and is %q at the redelivery", first.BrokerID, second.BrokerID)
	}
	e.must(other, driver.Complete, second)
}

// settleAbandonDelay checks that at least the delay passes before an abandoned message
// comes back. If the broker has no such delay, the message stays under its lock.
func settleAbandonDelay(e *env) {
	const delay = 2 * time.Second
	q := e.queue()
	support := q.Capabilities().AbandonDelay
	e.send(q, message("later"))
	first := e.one(q)
	begin := time.Now()
	err := e.settle(q, driver.Settlement{Delivery: first, Kind: driver.Abandon, Delay: delay})
	if support == driver.None {
		e.wantUnsupported(err, "Abandon with a delay")
		e.none(q, "the lock stays as it is when Abandon with a delay is refused")
		e.must(q, driver.Complete, first)
		return
	}
	if err != nil {
		e.Fatalf("Abandon with a delay: %v", err)
	}
	second := e.gatherWithin(q, 1, delay+e.slack())[0]
	if took := time.Since(begin); took < delay-delay/20 {
		e.Errorf("a message that was abandoned with a delay of %s came back after %s", delay, took)
	}
	if support != driver.Copy {
		if second.Count < 2 {
			e.Errorf("Count is %d at the second delivery", second.Count)
		}
		if second.BrokerID != first.BrokerID {
			e.Errorf("BrokerID was %q and is %q at the redelivery", first.BrokerID, second.BrokerID)
		}
	}
	e.must(q, driver.Complete, second)
	e.none(q, "the message is completed: an abandon with a delay must not leave a second one")
}

// settleTwice checks that the second settlement of a delivery gives Settled and undoes
// nothing.
func settleTwice(e *env) {
	q := e.queue()
	kinds := []driver.SettleKind{driver.Complete, driver.Abandon, driver.Release}
	if q.Capabilities().DeadLetter != driver.None {
		kinds = append(kinds, driver.MoveToDeadLetter)
	}
	for _, first := range kinds {
		for _, second := range kinds {
			e.send(q, message(fmt.Sprintf("twice-%s-%s", first, second)))
			d := e.one(q)
			e.must(q, first, d)
			err := e.settle(q, driver.Settlement{Delivery: d, Kind: second, Reason: testReason, Description: testDescription})
			e.want(err, driver.ErrSettled, fmt.Sprintf("Settle (%s) of a delivery that is settled (%s)", second, first))
			if first == driver.Abandon || first == driver.Release {
				e.must(q, driver.Complete, e.one(q))
			}
		}
	}
	e.none(q, "all messages were settled")
	if q.Capabilities().DeadLetter != driver.None {
		dead := e.deadLetters(q)
		e.must(dead, driver.Complete, e.gather(dead, len(kinds))...)
	}
}

// settleCounts checks that each delivery is counted.
func settleCounts(e *env) {
	q := e.queue()
	e.send(q, message("counted"))
	for want := 1; want <= 5; want++ {
		d := e.one(q)
		if d.Count < want {
			e.Errorf("Count is %d at delivery %d", d.Count, want)
		}
		if want == 5 {
			e.must(q, driver.Complete, d)
			break
		}
		e.must(q, driver.Abandon, d)
	}
}
