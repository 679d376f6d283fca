package drivertest

import (
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var timeCases = []conformanceCase{
	{"schedule", schedule},
	{"schedule_past", schedulePast},
	{"schedule_too_far", scheduleTooFar},
	{"ttl", ttl},
	{"ttl_scheduled", ttlScheduled},
	{"dedup", dedup},
	{"dedup_unclaimed", dedupUnclaimed},
}

// soon is a time that brokers which count whole seconds can keep.
const soon = 2 * time.Second

// schedule checks that a message is delivered at NotBefore and not earlier, and that
// other messages overtake it. If the broker cannot schedule, Send must refuse.
func schedule(e *env) {
	q := e.queue()
	m := rich("scheduled")
	m.NotBefore = time.Now().Add(soon)
	r := e.try(q, m)[0]
	if q.Capabilities().Schedule == driver.None {
		e.wantUnsupported(r.Err, "Send with NotBefore")
		e.none(q, "a message that Send refused was stored all the same")
		return
	}
	if r.Err != nil {
		e.Fatalf("Send with NotBefore: %v", r.Err)
	}
	e.send(q, message("at-once"))
	e.must(q, driver.Complete, e.expect(q, "at-once", "the other is not due yet"))
	if time.Until(m.NotBefore) > e.quiet()*2 {
		e.none(q, "the message is not due yet")
	}
	d := e.gatherWithin(q, 1, time.Until(m.NotBefore)+e.slack())[0]
	if early := time.Until(m.NotBefore); early > soon/20 {
		e.Errorf("a scheduled message was delivered %s before it was due", early)
	}
	if d.Count != 1 {
		e.Errorf("Count is %d at the first delivery of a scheduled message", d.Count)
	}
	e.must(q, driver.Complete, d)
	e.none(q, "the scheduled message was completed")
}

// schedulePast checks that a NotBefore in the past has no effect.
func schedulePast(e *env) {
	q := e.queue()
	if q.Capabilities().Schedule == driver.None {
		return
	}
	m := message("overdue")
	m.NotBefore = time.Now().Add(-time.Hour)
	e.send(q, m)
	e.must(q, driver.Complete, e.one(q))
}

// scheduleTooFar checks that beyond MaxDelay a message is refused, not delivered early.
func scheduleTooFar(e *env) {
	q := e.queue()
	c := q.Capabilities()
	if c.Schedule == driver.None || c.MaxDelay == 0 {
		return
	}
	m := message("too-far")
	m.NotBefore = time.Now().Add(c.MaxDelay + time.Hour)
	if r := e.try(q, m)[0]; r.Err == nil {
		e.Errorf("Send with NotBefore beyond MaxDelay = %s succeeded", c.MaxDelay)
	}
	e.none(q, "a message that Send refused was stored all the same")
}

// ttl checks that a message is not delivered after its TTL if the broker claims that,
// and is delivered all the same if it does not.
func ttl(e *env) {
	q := e.queue()
	claimed := q.Capabilities().TTL != driver.None
	short, long, none := message("ttl-short"), message("ttl-long"), message("ttl-none")
	short.TTL, long.TTL = soon, time.Hour
	e.send(q, short, long, none)
	e.pass(soon + soon/2)
	want := map[string]bool{"ttl-short": !claimed, "ttl-long": true, "ttl-none": true}
	n := 3
	if claimed {
		n = 2
	}
	for _, d := range e.gather(q, n) {
		if !want[d.ID] {
			e.Errorf("message %q was delivered after its TTL", d.ID)
		}
		e.must(q, driver.Complete, d)
	}
	e.none(q, "all live messages were completed")

	fresh := message("ttl-in-time")
	fresh.TTL = time.Minute
	e.send(q, fresh)
	e.must(q, driver.Complete, e.one(q))
}

// ttlScheduled checks that a TTL counts from NotBefore if that is later than the send.
func ttlScheduled(e *env) {
	q := e.queue()
	if c := q.Capabilities(); c.TTL == driver.None || c.Schedule == driver.None {
		return
	}
	m := message("ttl-scheduled")
	m.NotBefore, m.TTL = time.Now().Add(soon), soon
	e.send(q, m)
	e.pass(soon + soon/4)
	e.must(q, driver.Complete, e.gather(q, 1)...)
}

// dedup checks that within the broker's window a repeat of a DedupID is confirmed and
// dropped. An empty DedupID means the ID; content means nothing.
func dedup(e *env) {
	name, ok := e.newQueue(QueueSpec{Dedup: true})
	if !ok {
		if e.queue().Capabilities().Dedup != driver.None {
			e.Errorf("Capabilities claim Dedup and the harness has no queue with it")
		}
		return
	}
	q := e.open(e.broker, name)
	if q.Capabilities().Dedup == driver.None {
		e.Errorf("the harness made a queue with Dedup and the Capabilities do not claim it")
		return
	}
	with := func(id, dedup string) *driver.Message {
		return &driver.Message{ID: id, DedupID: dedup, Body: []byte("the very same")}
	}
	e.send(q, with("first", "d-1"))
	e.send(q, with("repeat", "d-1")) // another ID, the same DedupID
	e.send(q, with("other", "d-2"))
	e.send(q, with("no-dedup-id", ""))
	e.send(q, with("no-dedup-id", ""))
	e.send(q, with("first", "d-3")) // the same ID, another DedupID
	got := make(map[string]int)
	for _, d := range e.gather(q, 4) {
		got[d.ID]++
		e.must(q, driver.Complete, d)
	}
	e.none(q, "repeats of a DedupID are dropped")
	for id, n := range map[string]int{"first": 2, "other": 1, "no-dedup-id": 1} {
		if got[id] != n {
			e.Errorf("message %q was delivered %d times, want %d", id, got[id], n)
		}
	}
	e.send(q, with("late", "d-1")) // also after the first was completed
	e.none(q, "a repeat of a DedupID is dropped within the window, even of a message that was completed")
}

// dedupUnclaimed: without de-duplication every message that was confirmed is
// delivered.
func dedupUnclaimed(e *env) {
	q := e.queue()
	if q.Capabilities().Dedup != driver.None {
		return
	}
	const n = 3
	for range n {
		e.send(q, &driver.Message{ID: "again", DedupID: "again", Body: []byte("b")})
	}
	seen := make(map[string]bool)
	for _, d := range e.gather(q, n) {
		seen[d.BrokerID] = true
		e.must(q, driver.Complete, d)
	}
	if len(seen) != n {
		e.Errorf("%d messages with one ID have %d BrokerIDs: %s", n, len(seen), fmt.Sprint(seen))
	}
}
