package drivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var acceptCases = []conformanceCase{
	{"session_order", sessionOrder},
	{"session_own_messages", sessionOwnMessages},
	{"session_next", sessionNext},
	{"session_next_waits", sessionNextWaits},
	{"session_by_id", sessionByID},
	{"session_by_id_empty", sessionByIDEmpty},
	{"session_accept_cancelled", sessionAcceptCancelled},
	{"session_dead_letter", sessionDeadLetter},
	{"session_state", sessionState},
}

// sessionOrder checks that a session's holder gets its messages in order, whatever it
// abandons.
func sessionOrder(e *env) {
	_, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	e.send(q, run("a", 6)...)
	s := e.accept(q, "a")
	var got []string
	for i := 0; len(got) < 6; i++ {
		d := e.one(s)
		if i%2 == 0 {
			e.must(s, driver.Abandon, d)
			again := e.expect(s, d.ID, "it was abandoned and comes before the later ones")
			if again.Count < 2 {
				e.Errorf("Count is %d at the second delivery", again.Count)
			}
			d = again
		}
		got = append(got, d.ID)
		e.must(s, driver.Complete, d)
	}
	e.inOrder("a", got, 6)
	e.none(s, "all messages of the session were completed")
	e.close(s)
}

// sessionOwnMessages checks that a session receives its own messages, and neither takes
// nor counts nor loses those of others.
func sessionOwnMessages(e *env) {
	_, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	const n = 4
	names := []string{"a", "b", "c"}
	for i := range n {
		for _, name := range names {
			e.send(q, inSession(name, i))
		}
	}
	for range names {
		s := e.accept(q, "")
		id := s.ID()
		var got []string
		for len(got) < n {
			list := e.receive(s, 10, e.slack())
			if len(list) == 0 {
				e.Fatalf("session %q received %d of its %d messages: those that lack were taken, and dropped, by another session", id, len(got), n)
			}
			for _, d := range list {
				if d.SessionID != id {
					e.Fatalf("session %q received the message %q of session %q", id, d.ID, d.SessionID)
				}
				if d.Count != 1 {
					e.Errorf("Count is %d at the first delivery of message %q: another session took it before", d.Count, d.ID)
				}
				got = append(got, d.ID)
				e.must(s, driver.Complete, d)
			}
		}
		e.inOrder(id, got, n)
		e.none(s, "all messages of the session were completed")
		e.close(s)
	}
}

// sessionNext checks that without a name each holder gets a session of its own that has
// messages, and NoSession when there is none left.
func sessionNext(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	_, err := q.AcceptSession(e.ctx, "", 0)
	e.want(err, driver.ErrNoSession, "AcceptSession on an empty queue")
	other := e.another(name)
	for _, name := range []string{"a", "b"} {
		e.send(q, run(name, 2)...)
	}
	first := e.accept(q, "")
	a := e.one(first) // if there are gaps, it is what makes the session exclusive
	second := e.accept(other, "")
	b := e.one(second)
	if first.ID() == second.ID() {
		e.Fatalf("two holders have the session %q", first.ID())
	}
	begin := time.Now()
	_, err = q.AcceptSession(e.ctx, "", time.Second)
	e.want(err, driver.ErrNoSession, "AcceptSession where all sessions are held")
	if took := time.Since(begin); took < 900*time.Millisecond || took > time.Second+e.slack() {
		e.Errorf("AcceptSession with a wait of 1s took %s", took)
	}
	e.must(first, driver.Complete, a)
	e.must(second, driver.Complete, b)
	for _, s := range []driver.Session{first, second} {
		e.must(s, driver.Complete, e.one(s))
		e.close(s)
	}
	_, err = q.AcceptSession(e.ctx, "", 0)
	e.want(err, driver.ErrNoSession, "AcceptSession if no session has a message")
}

// acceptance is the outcome of an AcceptSession on another goroutine.
type acceptance struct {
	s    driver.Session
	err  error
	took time.Duration
}

func acceptLater(ctx context.Context, q driver.Queue, id string, wait time.Duration) <-chan acceptance {
	c := make(chan acceptance, 1)
	go func() {
		begin := time.Now()
		s, err := q.AcceptSession(ctx, id, wait)
		c <- acceptance{s, err, time.Since(begin)}
	}()
	return c
}

// sessionNextWaits checks that a call that waits for a session gets one when its first
// message comes.
func sessionNextWaits(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	other := e.another(name)
	c := acceptLater(e.ctx, q, "", 4*e.slack())
	e.pass(e.quiet())
	e.send(other, inSession("late", 0))
	r := <-c
	if r.err != nil {
		e.Fatalf("a waiting AcceptSession: %v", r.err)
	}
	if r.took > e.quiet()+e.slack() {
		e.Errorf("a waiting AcceptSession returned %s after the message was sent", r.took-e.quiet())
	}
	if r.s.ID() != "late" {
		e.Errorf("AcceptSession returned the session %q, want %q", r.s.ID(), "late")
	}
	e.must(r.s, driver.Complete, e.one(r.s))
	e.close(r.s)
}

// sessionByID checks that a session that is accepted by name has one holder at a time.
func sessionByID(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok || !q.Capabilities().AcceptByID {
		return
	}
	other := e.another(name)
	e.send(q, run("a", 2)...)
	e.send(q, run("b", 1)...)
	s := e.accept(q, "a")
	first := e.expect(s, "a-000", "it is the first of its session")
	begin := time.Now()
	_, err := other.AcceptSession(e.ctx, "a", time.Second)
	e.want(err, driver.ErrSessionHeld, "AcceptSession of a session in other hands")
	if took := time.Since(begin); took < 900*time.Millisecond || took > time.Second+e.slack() {
		e.Errorf("AcceptSession with a wait of 1s took %s", took)
	}
	if !q.Capabilities().SessionOnly {
		d := e.one(other)
		if d.SessionID == "a" {
			e.Fatalf("Receive outside of the session delivered a message of a session that is held")
		}
		e.must(other, driver.Complete, d)
		e.none(other, "the other session is held")
	} else {
		b := e.accept(other, "b")
		e.must(b, driver.Complete, e.one(b))
		e.close(b)
	}
	// A call that waits gets the session when it comes free.
	c := acceptLater(e.ctx, other, "a", 4*e.slack())
	e.must(s, driver.Complete, first)
	e.close(s)
	r := <-c
	if r.err != nil {
		e.Fatalf("a waiting AcceptSession of a session that came free: %v", r.err)
	}
	e.must(r.s, driver.Complete, e.expect(r.s, "a-001", "the one before it is completed"))
	e.close(r.s)
}

// sessionByIDEmpty checks that a session can be accepted by name before it has messages.
func sessionByIDEmpty(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok || !q.Capabilities().AcceptByID {
		return
	}
	s := e.accept(q, "new")
	e.none(s, "nothing was sent")
	c := receiveLater(e.ctx, s, 4*e.slack())
	e.pass(e.quiet())
	e.send(e.another(name), inSession("new", 0))
	r := <-c
	if r.err != nil || len(r.got) != 1 {
		e.Fatalf("a waiting Receive of a session returned %d messages and %v, want the one that was sent", len(r.got), r.err)
	}
	if r.took > e.quiet()+e.slack() {
		e.Errorf("a waiting Receive of a session returned %s after the message was sent", r.took-e.quiet())
	}
	e.check(r.got[0])
	e.must(s, driver.Complete, r.got...)
	e.close(s)
}

// sessionAcceptCancelled checks that a call that is cancelled leaves no session locked.
func sessionAcceptCancelled(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	other := e.another(name)
	for i := range 8 {
		ctx, cancel := context.WithCancel(e.ctx)
		c := acceptLater(ctx, q, "", 4*e.slack())
		session := fmt.Sprintf("cancel-%d", i)
		if i%2 == 0 {
			e.pass(e.quiet() / 4)
			cancel()
			e.send(other, inSession(session, 0))
		} else {
			e.send(other, inSession(session, 0))
			cancel()
		}
		r := <-c
		cancel()
		switch {
		case r.err == nil:
			e.close(r.s)
		case r.s != nil:
			e.Fatalf("a cancelled AcceptSession returned both an error and a session")
		case !errors.Is(r.err, context.Canceled):
			e.Fatalf("a cancelled AcceptSession: the error is %v, want context.Canceled", show(r.err))
		}
		s := e.accept(other, session)
		e.must(s, driver.Complete, e.one(s))
		e.close(s)
	}
}

// sessionDeadLetter checks that a message that is dead-lettered makes way for the next
// of its session.
func sessionDeadLetter(e *env) {
	_, q, ok := e.acceptable(QueueSpec{})
	if !ok || q.Capabilities().DeadLetter == driver.None {
		return
	}
	e.send(q, run("a", 2)...)
	s := e.accept(q, "a")
	e.must(s, driver.MoveToDeadLetter, e.expect(s, "a-000", "it is the first of its session"))
	e.must(s, driver.Complete, e.expect(s, "a-001", "the one before it is dead-lettered"))
	e.close(s)
	dead := e.deadLetters(q)
	e.must(dead, driver.Complete, e.expect(dead, "a-000", "it was dead-lettered"))
}

// sessionState checks that a session keeps a few bytes from one holder to the next.
func sessionState(e *env) {
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok || q.Capabilities().SessionState == driver.None {
		return
	}
	e.send(q, run("a", 3)...)
	hold := func(q driver.Queue) driver.StatefulSession {
		s := e.accept(q, "a")
		st, ok := s.(driver.StatefulSession)
		if !ok {
			e.Fatalf("Capabilities claim SessionState and the session is no driver.StatefulSession")
		}
		return st
	}
	state := func(s driver.StatefulSession, want []byte) {
		e.Helper()
		got, err := s.State(e.ctx)
		e.classified("State", err)
		if err != nil || string(got) != string(want) || want == nil && got != nil {
			e.Errorf("State returned %x and %v, want %x", got, err, want)
		}
	}
	set := func(s driver.StatefulSession, b []byte) {
		e.Helper()
		if err := s.SetState(e.ctx, b); err != nil {
			e.Fatalf("SetState: %v", err)
		}
	}
	s := hold(q)
	state(s, nil)
	set(s, everyByte())
	state(s, everyByte())
	e.must(s, driver.Complete, e.one(s))
	e.close(s)
	s = hold(e.another(name))
	state(s, everyByte())
	set(s, nil)
	state(s, nil)
	e.must(s, driver.Complete, e.one(s))
	e.close(s)
	s = hold(q)
	state(s, nil)
	e.must(s, driver.Complete, e.one(s))
	e.close(s)
}
