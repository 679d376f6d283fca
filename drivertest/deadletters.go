package drivertest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var deadLetterCases = []conformanceCase{
	{"deadletter_keeps", deadLetterKeeps},
	{"deadletter_queue", deadLetterQueue},
	{"deadletter_max_deliveries", deadLetterMaxDeliveries},
	{"deadletter_max_deliveries_lock", deadLetterMaxDeliveriesLock},
	{"deadletter_redrive", deadLetterRedrive},
	{"deadletter_unclaimed", deadLetterUnclaimed},
}

// deadLetters opens q's dead-letter queue.
func (e *env) deadLetters(q driver.Queue) driver.Queue {
	e.Helper()
	d, err := q.DeadLetters(e.ctx)
	if err != nil {
		e.Fatalf("DeadLetters: %v", err)
	}
	return d
}

func rich(id string) *driver.Message {
	return &driver.Message{
		ID:            id,
		CorrelationID: "correlation of " + id,
		ContentType:   "application/octet-stream",
		Attributes:    map[string]string{"a": "1", "b": "2"},
		Body:          append([]byte("QRE1"), everyByte()...),
		Sealed:        true,
	}
}

// deadLetterKeeps checks that a message that is dead-lettered leaves the queue whole
// and lies in the dead-letter queue, with the reason.
func deadLetterKeeps(e *env) {
	name, q := e.named(QueueSpec{})
	if q.Capabilities().DeadLetter == driver.None {
		return // see deadLetterUnclaimed
	}
	e.send(q, rich("dead-1"))
	before := time.Now()
	e.must(q, driver.MoveToDeadLetter, e.one(q))
	e.none(q, "the message was dead-lettered")
	dead := e.deadLetters(q)
	got := e.receive(dead, 1, e.slack())
	if len(got) == 0 {
		e.Fatalf("a message that was dead-lettered is neither in the queue nor in the dead-letter queue: it was deleted")
	}
	d := got[0]
	if d.ID != "dead-1" {
		e.Fatalf("the dead-letter queue has message %q, want %q", d.ID, "dead-1")
	}
	switch l := d.DeadLetter; {
	case l == nil:
		e.Errorf("DeadLetter is nil on a message of the dead-letter queue")
	case l.Reason != testReason || l.Description != testDescription:
		e.Errorf("the reason of a dead letter is %q, %q, want %q, %q", l.Reason, l.Description, testReason, testDescription)
	case l.Queue != name:
		e.Errorf("the queue of a dead letter is %q, want %q", l.Queue, name)
	case !l.At.IsZero() && (l.At.Before(before.Add(-e.slack())) || l.At.After(time.Now().Add(e.slack()))):
		e.Errorf("the time of a dead letter is %s, it was dead-lettered after %s", l.At, before)
	}
	e.must(dead, driver.Complete, d)
	e.none(dead, "the dead letter is completed")

	// The longest description: a receiver seals into it what a handler failed with.
	e.send(q, rich("dead-2"))
	long := strings.Repeat(testDescription+" [QRE1-_/+=] ", 4096)[:4096]
	if err := e.settle(q, driver.Settlement{Delivery: e.one(q), Kind: driver.MoveToDeadLetter, Reason: testReason, Description: long}); err != nil {
		e.Fatalf("dead-lettering with a description of %d bytes: %v", len(long), err)
	}
	d = e.expect(dead, "dead-2", "it was dead-lettered with a long description")
	if l := d.DeadLetter; l == nil || l.Description != long {
		e.Errorf("a description of %d bytes does not come back whole: %+v", len(long), l)
	}
	e.must(dead, driver.Complete, d)
}

// deadLetterQueue checks that a dead-letter queue is a queue like any other to receive
// from, and to nothing else.
func deadLetterQueue(e *env) {
	name, q := e.named(QueueSpec{})
	if q.Capabilities().DeadLetter == driver.None {
		return
	}
	e.send(q, rich("dead-1"), rich("dead-2"))
	e.must(q, driver.MoveToDeadLetter, e.gather(q, 2)...)
	dead, other := e.deadLetters(q), e.deadLetters(e.another(name))
	held := e.gather(dead, 2)
	e.none(other, "both dead letters are held by another connection")
	e.must(dead, driver.Abandon, held[0])
	again := e.expect(other, held[0].ID, "the other dead letter is held")
	if again.DeadLetter == nil || again.DeadLetter.Reason != testReason {
		e.Errorf("a dead letter that was abandoned has lost its reason: %+v", again.DeadLetter)
	}
	err := e.settle(other, driver.Settlement{Delivery: again, Kind: driver.MoveToDeadLetter, Reason: testReason})
	e.wantUnsupported(err, "dead-lettering a dead letter")
	e.must(other, driver.Complete, again)
	if _, err := e.renew(dead, held[1]); err != nil {
		e.Errorf("Renew of a dead letter: %v", err)
	}
	if n := dead.Size(&held[1].Message); n < len(held[1].Body) {
		e.Errorf("Size of a dead letter is %d, its body has %d bytes", n, len(held[1].Body))
	}
	e.must(dead, driver.Complete, held[1])
	e.none(dead, "all dead letters are completed")

	r := dead.Send(e.ctx, []*driver.Message{message("direct")})
	if len(r) != 1 {
		e.Fatalf("Send of 1 message returned %d results", len(r))
	}
	e.wantUnsupported(r[0].Err, "Send to a dead-letter queue")
	_, err = dead.AcceptSession(e.ctx, "", 0)
	e.wantUnsupported(err, "AcceptSession on a dead-letter queue")
	_, err = dead.DeadLetters(e.ctx)
	e.wantUnsupported(err, "DeadLetters of a dead-letter queue")
	if err := dead.Close(e.ctx); err != nil {
		e.Errorf("Close of a dead-letter queue: %v", err)
	}
	e.send(q, message("after"))
	e.must(q, driver.Complete, e.expect(q, "after", "closing the dead-letter queue leaves the queue open"))
}

// limited makes a queue that dead-letters after n deliveries. ok is false if
// the broker does not dead-letter by itself.
func (e *env) limited(s QueueSpec) (q driver.Queue, ok bool) {
	e.Helper()
	name, ok := e.newQueue(s)
	if !ok {
		if n := e.queue().Capabilities().MaxDeliveries; n != 0 {
			e.Errorf("the harness has no queue with MaxDeliveries %d, and Capabilities.MaxDeliveries is %d", s.MaxDeliveries, n)
		}
		return nil, false
	}
	q = e.open(e.broker, name)
	if n := q.Capabilities().MaxDeliveries; n != s.MaxDeliveries {
		e.Errorf("Capabilities.MaxDeliveries is %d on a queue with %d", n, s.MaxDeliveries)
	}
	return q, true
}

// brokerDeadLetters wants the one message of the queue to be dead-lettered by the broker.
func (e *env) brokerDeadLetters(q driver.Queue, id string, wait time.Duration) {
	e.Helper()
	dead := e.deadLetters(q)
	got := e.receive(dead, 1, wait)
	if len(got) == 0 {
		e.Fatalf("a message that reached MaxDeliveries is not in the dead-letter queue")
	}
	if got[0].ID != id {
		e.Fatalf("the dead-letter queue has message %q, want %q", got[0].ID, id)
	}
	if l := got[0].DeadLetter; l == nil || l.Reason != "max_deliveries" {
		e.Errorf("the reason of a message that reached MaxDeliveries is %+v, want %q", l, "max_deliveries")
	}
	e.must(dead, driver.Complete, got[0])
}

// deadLetterMaxDeliveries checks that after MaxDeliveries deliveries, no more and no
// fewer, the broker dead-letters a message.
func deadLetterMaxDeliveries(e *env) {
	q, ok := e.limited(QueueSpec{MaxDeliveries: 3})
	if !ok {
		return
	}
	e.send(q, rich("poison"))
	for range 3 {
		e.must(q, driver.Abandon, e.one(q))
	}
	e.none(q, "the message has had its deliveries")
	e.brokerDeadLetters(q, "poison", e.slack())
}

// deadLetterMaxDeliveriesLock checks that locks that run out count as well.
func deadLetterMaxDeliveriesLock(e *env) {
	q, ok := e.limited(QueueSpec{MaxDeliveries: 2, ShortLock: true})
	if !ok {
		return
	}
	lock := q.Capabilities().Lock
	if lock == 0 {
		return
	}
	e.send(q, rich("slow"))
	for range 2 {
		e.gatherWithin(q, 1, lock+e.slack())
	}
	e.pass(lock + lock/4)
	e.none(q, "the message has had its deliveries")
	e.brokerDeadLetters(q, "slow", lock+e.slack())
}

// deadLetterRedrive checks that a dead letter that is sent again is a message like any
// other, with the ID it had.
func deadLetterRedrive(e *env) {
	q := e.queue()
	if q.Capabilities().DeadLetter == driver.None {
		return
	}
	const n = 3
	for i := range n {
		e.send(q, rich(fmt.Sprintf("redrive-%d", i)))
	}
	e.must(q, driver.MoveToDeadLetter, e.gather(q, n)...)
	dead := e.deadLetters(q)
	for _, d := range e.gather(dead, n) {
		m := copyOf(&d.Message)
		m.DedupID = "redrive " + d.ID
		if r := q.Send(e.ctx, []*driver.Message{m})[0]; r.Err != nil {
			e.Fatalf("Send of a dead letter: %v", r.Err)
		}
		e.must(dead, driver.Complete, d)
	}
	e.none(dead, "all dead letters were sent again")
	seen := make(map[string]bool)
	for _, d := range e.gather(q, n) {
		if d.DeadLetter != nil {
			e.Errorf("a message that was sent again still is marked as a dead letter")
		}
		if d.Count != 1 {
			e.Errorf("Count is %d at the first delivery of a message that was sent again", d.Count)
		}
		seen[d.ID] = true
		e.must(q, driver.Complete, d)
	}
	if len(seen) != n {
		e.Errorf("of %d dead letters that were sent again %d arrived", n, len(seen))
	}
}

// deadLetterUnclaimed checks that without a dead-letter queue the call is refused, and
// the message stays.
func deadLetterUnclaimed(e *env) {
	q := e.queue()
	if q.Capabilities().DeadLetter != driver.None {
		return
	}
	if _, err := q.DeadLetters(e.ctx); !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, driver.ErrNotFound) {
		e.Errorf("DeadLetters: the error is %v, want errors.ErrUnsupported, because the Capabilities do not claim it", show(err))
	}
	e.send(q, rich("undead"))
	d := e.one(q)
	e.wantUnsupported(e.settle(q, driver.Settlement{Delivery: d, Kind: driver.MoveToDeadLetter, Reason: testReason}), "dead-lettering")
	e.none(q, "the lock stays as it is when dead-lettering is refused")
	e.must(q, driver.Complete, d)
}
