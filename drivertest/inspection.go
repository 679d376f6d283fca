package drivertest

import (
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var inspectionCases = []conformanceCase{
	{"peek", peek},
	{"peek_pages", peekPages},
	{"peek_dead_letters", peekDeadLetters},
	{"stats", stats},
}

// peekAll pages through a queue.
func (e *env) peekAll(q driver.Queue, page int) []*driver.Delivery {
	e.Helper()
	var all []*driver.Delivery
	for cursor, calls := "", 0; ; calls++ {
		got, next, err := q.Peek(e.ctx, cursor, page)
		e.classified("Peek", err)
		if err != nil {
			e.Fatalf("Peek: %v", err)
		}
		if len(got) > page {
			e.Fatalf("Peek of at most %d messages returned %d", page, len(got))
		}
		for _, d := range got {
			e.check(d)
		}
		all = append(all, got...)
		if next == "" {
			return all
		}
		if next == cursor || calls > 1000 {
			e.Fatalf("Peek does not come to an end: its cursor is %q again", next)
		}
		cursor = next
	}
}

// peek checks that Peek neither locks messages nor counts a delivery, and that it shows
// held and scheduled messages. The count of a held message may change at its receipt or,
// as with Service Bus, when it is abandoned or its lock expires.
func peek(e *env) {
	q := e.queue()
	c := q.Capabilities()
	if c.Peek == driver.None {
		_, _, err := q.Peek(e.ctx, "", 1)
		e.wantUnsupported(err, "Peek")
		return
	}
	if got := e.peekAll(q, 10); len(got) != 0 {
		e.Errorf("Peek of an empty queue returned %s", ids(got))
	}
	want := map[string]bool{"peek-1": true, "peek-2": true, "peek-3": true}
	e.send(q, rich("peek-1"), rich("peek-2"), rich("peek-3"))
	if c.Schedule != driver.None {
		m := rich("peek-scheduled")
		m.NotBefore = time.Now().Add(time.Hour)
		if c.MaxDelay > 0 {
			m.NotBefore = time.Now().Add(c.MaxDelay / 2)
		}
		e.send(q, m)
		want[m.ID] = true
	}
	held := e.one(q)
	for range 2 {
		seen := make(map[string]bool)
		for _, d := range e.peekAll(q, 10) {
			seen[d.ID] = true
			if !d.LockedUntil.IsZero() {
				e.Errorf("a peeked message has a LockedUntil")
			}
			if d.ID != held.ID && d.Count != 0 {
				e.Errorf("a peeked message that was never delivered has a Count of %d", d.Count)
			} else if d.ID == held.ID && (d.Count < 0 || d.Count > 1) {
				e.Errorf("a peeked message that is held for the first time has a Count of %d", d.Count)
			}
		}
		for id := range want {
			if !seen[id] {
				e.Errorf("Peek did not show message %q", id)
			}
		}
	}
	e.must(q, driver.Abandon, held)
	for _, d := range e.peekAll(q, 10) {
		if d.ID == held.ID && d.Count != 1 {
			e.Errorf("a peeked message that was abandoned once has a Count of %d", d.Count)
		}
	}
	for _, d := range e.gather(q, 3) {
		count := 1
		if d.ID == held.ID {
			count = 2
		}
		if d.Count != count {
			e.Errorf("Count is %d at delivery %d of a message that was peeked at", d.Count, count)
		}
		e.must(q, driver.Complete, d)
	}
}

// peekPages checks that pages by cursor show each message once, in the order of Peek.
func peekPages(e *env) {
	q := e.queue()
	if q.Capabilities().Peek == driver.None {
		return
	}
	const n = 11
	for i := range n {
		e.send(q, message(fmt.Sprintf("page-%02d", i)))
	}
	order := func(page int) []string {
		var out []string
		seen := make(map[string]bool)
		for _, d := range e.peekAll(q, page) {
			if seen[d.ID] {
				e.Errorf("Peek showed message %q twice", d.ID)
			}
			seen[d.ID] = true
			out = append(out, d.ID)
		}
		if len(out) != n {
			e.Fatalf("Peek in pages of %d showed %d of %d messages", page, len(out), n)
		}
		return out
	}
	one, many := order(3), order(n)
	for i := range one {
		if one[i] != many[i] {
			e.Fatalf("Peek in pages of 3 shows %q at place %d, and in one page %q", one[i], i, many[i])
		}
	}
	e.must(q, driver.Complete, e.gather(q, n)...)
}

// peekDeadLetters checks that dead letters are peeked like any others.
func peekDeadLetters(e *env) {
	q := e.queue()
	if q.Capabilities().DeadLetter == driver.None {
		return
	}
	dead := e.deadLetters(q)
	if dead.Capabilities().Peek == driver.None {
		_, _, err := dead.Peek(e.ctx, "", 1)
		e.wantUnsupported(err, "Peek on a dead-letter queue")
		return
	}
	e.send(q, rich("dead-1"), rich("dead-2"))
	e.must(q, driver.MoveToDeadLetter, e.gather(q, 2)...)
	got := e.peekAll(dead, 10)
	if len(got) != 2 {
		e.Fatalf("Peek on the dead-letter queue showed %s, want 2 messages", ids(got))
	}
	for _, d := range got {
		if d.DeadLetter == nil || d.DeadLetter.Reason != testReason {
			e.Errorf("a peeked dead letter has the reason %+v, want %q", d.DeadLetter, testReason)
		}
	}
	e.must(dead, driver.Complete, e.gather(dead, 2)...)
}

// stats checks that each count that the broker gives is true, at the latest after a
// while.
func stats(e *env) {
	q := e.queue()
	c := q.Capabilities()
	if _, err := q.Stats(e.ctx); errors.Is(err, errors.ErrUnsupported) {
		return
	}
	begin := time.Now()
	e.send(q, message("s-1"), message("s-2"), message("s-3"), message("s-4"))
	var want driver.Stats
	if c.Schedule != driver.None {
		m := message("s-later")
		m.NotBefore = time.Now().Add(time.Hour)
		if c.MaxDelay > 0 {
			m.NotBefore = time.Now().Add(c.MaxDelay / 2)
		}
		e.send(q, m)
		want.Scheduled = 1
	}
	got := e.gather(q, 2)
	want.Ready, want.InFlight = 2, 1
	var told bool // of the oldest
	if c.DeadLetter != driver.None {
		e.must(q, driver.MoveToDeadLetter, got[0])
		want.DeadLetters = 1
	} else {
		e.must(q, driver.Complete, got[0])
	}
	for deadline := time.Now().Add(e.slack()); ; e.pass(e.quiet()) {
		s, err := q.Stats(e.ctx)
		e.classified("Stats", err)
		if err != nil {
			e.Fatalf("Stats: %v", err)
		}
		same := func(got, want int64) bool { return got == -1 || got == want }
		if same(s.Ready, want.Ready) && same(s.InFlight, want.InFlight) && same(s.Scheduled, want.Scheduled) && same(s.DeadLetters, want.DeadLetters) {
			if !s.Oldest.IsZero() && (s.Oldest.Before(begin.Add(-e.slack())) || s.Oldest.After(time.Now().Add(e.slack()))) {
				e.Errorf("Stats.Oldest is %s, the queue was empty until %s", s.Oldest, begin)
			}
			told = !s.Oldest.IsZero()
			break
		}
		if !s.Approximate || time.Now().After(deadline) {
			e.Fatalf("Stats are ready %d, in flight %d, scheduled %d, dead letters %d; want %d, %d, %d, %d",
				s.Ready, s.InFlight, s.Scheduled, s.DeadLetters, want.Ready, want.InFlight, want.Scheduled, want.DeadLetters)
		}
	}
	held := append(got[1:], e.gather(q, 2)...)
	if told {
		s, err := q.Stats(e.ctx)
		if e.classified("Stats", err); err != nil || !s.Oldest.IsZero() {
			e.Errorf("Stats.Oldest is %s, %v, although all messages are held or scheduled", s.Oldest, err)
		}
	}
	e.must(q, driver.Complete, held...)
}
