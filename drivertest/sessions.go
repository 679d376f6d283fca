package drivertest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var sessionCases = []conformanceCase{
	{"session_unclaimed", sessionUnclaimed},
	{"session_ids", sessionIDs},
	{"session_batch_order", sessionBatchOrder},
	{"session_plain_order", sessionPlainOrder},
	{"session_plain_one_in_flight", sessionPlainOneInFlight},
	{"session_plain_abandon_delay", sessionPlainAbandonDelay},
	{"session_only", sessionOnly},
}

// inSession returns the i-th message of a session. Its ID tells both.
func inSession(session string, i int) *driver.Message {
	m := message(fmt.Sprintf("%s-%03d", session, i))
	m.SessionID = session
	return m
}

// run returns n messages of a session.
func run(session string, n int) []*driver.Message {
	var out []*driver.Message
	for i := range n {
		out = append(out, inSession(session, i))
	}
	return out
}

// sessionQueue opens a new queue for messages with sessions. ok is false if
// the broker has none; sessionUnclaimed then checks that it says so.
func (e *env) sessionQueue(s QueueSpec) (name string, q driver.Queue, ok bool) {
	e.Helper()
	s.Sessions = true
	name, ok = e.newQueue(s)
	if !ok {
		return "", nil, false
	}
	return name, e.open(e.broker, name), true
}

// acceptable is sessionQueue for tests that need AcceptSession.
func (e *env) acceptable(s QueueSpec) (name string, q driver.Queue, ok bool) {
	e.Helper()
	name, q, ok = e.sessionQueue(s)
	return name, q, ok && q.Capabilities().Sessions != driver.None
}

// plain is sessionQueue for tests that need Receive outside of a session.
func (e *env) plain(s QueueSpec) (name string, q driver.Queue, ok bool) {
	e.Helper()
	name, q, ok = e.sessionQueue(s)
	return name, q, ok && !q.Capabilities().SessionOnly
}

// accept takes a session, by name if the broker can. Otherwise the session
// must be the only one with a deliverable message.
func (e *env) accept(q driver.Queue, id string) driver.Session {
	e.Helper()
	return e.acceptWithin(q, id, e.slack())
}

func (e *env) acceptWithin(q driver.Queue, id string, wait time.Duration) driver.Session {
	e.Helper()
	ask := id
	if !q.Capabilities().AcceptByID {
		ask = ""
	}
	s, err := q.AcceptSession(e.ctx, ask, wait)
	e.classified("AcceptSession", err)
	if err != nil {
		e.Fatalf("AcceptSession(%q): %v", ask, err)
	}
	if s.ID() == "" || id != "" && s.ID() != id {
		e.Fatalf("AcceptSession(%q) returned the session %q, want %q", ask, s.ID(), id)
	}
	return s
}

func (e *env) close(s driver.Session) {
	e.Helper()
	if err := s.Close(e.ctx); err != nil {
		e.Fatalf("Close of session %q: %v", s.ID(), err)
	}
}

// sessionUnclaimed checks that a capability that is not claimed is refused.
func sessionUnclaimed(e *env) {
	plain := e.queue()
	if plain.Capabilities().Sessions == driver.None {
		_, err := plain.AcceptSession(e.ctx, "", 0)
		e.wantUnsupported(err, "AcceptSession")
		_, err = plain.AcceptSession(e.ctx, "some", 0)
		e.wantUnsupported(err, "AcceptSession")
		// A message of a session is refused, or kept in order (session_plain_order).
		m := inSession("some", 0)
		switch err := e.try(plain, m)[0].Err; {
		case err == nil:
			e.must(plain, driver.Complete, e.one(plain)) // compared with what was sent
		case !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, driver.ErrInvalid):
			e.Errorf("Send of a message with a session to a queue without sessions: the error is %v, want %v or errors.ErrUnsupported", err, driver.ErrInvalid)
		}
	}
	name, ok := e.newQueue(QueueSpec{Sessions: true})
	if !ok {
		if plain.Capabilities().Sessions != driver.None {
			e.Errorf("Capabilities claim Sessions and the harness has no queue with them")
		}
		return
	}
	q := e.open(e.broker, name)
	c := q.Capabilities()
	if c.Sessions == driver.None {
		_, err := q.AcceptSession(e.ctx, "", 0)
		e.wantUnsupported(err, "AcceptSession")
		return
	}
	if !c.AcceptByID {
		_, err := q.AcceptSession(e.ctx, "some", 0)
		e.wantUnsupported(err, "AcceptSession with a name")
	}
	if c.SessionState == driver.None {
		e.send(q, inSession("some", 0))
		s := e.accept(q, "some")
		if st, ok := s.(driver.StatefulSession); ok {
			_, err := st.State(e.ctx)
			e.wantUnsupported(err, "State")
		}
		e.must(s, driver.Complete, e.one(s))
		e.close(s)
	}
}

// drain receives and completes n messages of a session queue, in whichever way
// the queue has, and returns their IDs by session.
func (e *env) drain(q driver.Queue, n int) map[string][]string {
	e.Helper()
	got := make(map[string][]string)
	take := func(src driver.Source, max int, wait time.Duration) int {
		list := e.receive(src, max, wait)
		for _, d := range list {
			got[d.SessionID] = append(got[d.SessionID], d.ID)
			e.must(src, driver.Complete, d)
		}
		return len(list)
	}
	deadline := time.Now().Add(4 * e.slack())
	for n > 0 {
		if time.Now().After(deadline) {
			e.Fatalf("%d messages of the queue did not come within %s; those that came: %v", n, 4*e.slack(), got)
		}
		if !q.Capabilities().SessionOnly {
			n -= take(q, 10, e.slack())
			continue
		}
		s := e.accept(q, "")
		for {
			k := take(s, 10, e.quiet())
			if n -= k; k == 0 {
				break
			}
		}
		e.close(s)
	}
	return got
}

// inOrder wants IDs to be those of run(session, n).
func (e *env) inOrder(session string, got []string, n int) {
	e.Helper()
	var want []string
	for _, m := range run(session, n) {
		want = append(want, m.ID)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		e.Errorf("the messages of session %q came as %v, want %v", session, got, want)
	}
}

// sessionIDs checks that a session ID can be any UTF-8, that it arrives unchanged, and
// that similar IDs name different sessions.
func sessionIDs(e *env) {
	_, q, ok := e.sessionQueue(QueueSpec{})
	if !ok {
		return
	}
	names := []string{"a", "A", " a", "a b", "größe", "漢字", "🦀", "owner/repo#42", "a.b*c>d", "a:b=c,d", "%2e", strings.Repeat("é", 64)}
	var all []*driver.Message
	for i, name := range names {
		for k := range 2 {
			m := message(fmt.Sprintf("sid-%02d-%d", i, k))
			m.SessionID = name
			all = append(all, m)
		}
	}
	e.send(q, all...)
	got := e.drain(q, len(all))
	for i, name := range names {
		if want := []string{fmt.Sprintf("sid-%02d-0", i), fmt.Sprintf("sid-%02d-1", i)}; fmt.Sprint(got[name]) != fmt.Sprint(want) {
			e.Errorf("the messages of session %q came as %v, want %v", name, got[name], want)
		}
	}
}

// sessionBatchOrder: messages of a session that succeed stand in the order of
// the slice, also when one between them fails. With OrderedBatch those behind it fail,
// and then can be sent again.
func sessionBatchOrder(e *env) {
	_, q, ok := e.sessionQueue(QueueSpec{})
	if !ok {
		return
	}
	c := q.Capabilities()
	batch := run("batch", min(c.MaxBatch, 9))
	bad := inSession("batch", 999)
	bad.Attributes = map[string]string{"": "an attribute without a name"}
	n := len(batch)
	if c.MaxBatch > n {
		batch = append(batch[:n/2:n/2], append([]*driver.Message{bad}, batch[n/2:]...)...)
	}
	var behind []*driver.Message
	failed := false
	for i, r := range e.try(q, batch...) {
		switch {
		case batch[i] == bad:
			failed = true
			e.want(r.Err, driver.ErrInvalid, "Send of a batch with an invalid message in the middle")
		case failed && c.OrderedBatch:
			behind = append(behind, batch[i])
			e.want(r.Err, driver.ErrNotSent, "Send of a message behind one that failed, with OrderedBatch")
		case r.Err != nil:
			e.Fatalf("Send of message %q: %v", batch[i].ID, r.Err)
		}
	}
	if len(behind) > 0 {
		e.send(q, behind...)
	}
	e.inOrder("batch", e.drain(q, n)["batch"], n)
}

// sessionPlainOrder checks that Receive on the queue itself keeps each session in
// order, over several connections.
func sessionPlainOrder(e *env) {
	name, q, ok := e.plain(QueueSpec{})
	if !ok {
		return
	}
	sources := []driver.Queue{q, e.another(name), e.another(name)}
	const sessions, each = 4, 6
	for i := range each {
		for s := range sessions {
			e.send(q, inSession(fmt.Sprintf("s%d", s), i))
		}
	}
	got := make(map[string][]string)
	left := sessions * each
	for turn, deadline := 0, time.Now().Add(4*e.slack()); left > 0; turn++ {
		if time.Now().After(deadline) {
			e.Fatalf("%d of %d messages did not come", left, sessions*each)
		}
		src := sources[turn%len(sources)]
		list := e.receive(src, 3, e.quiet())
		for _, d := range list {
			got[d.SessionID] = append(got[d.SessionID], d.ID)
		}
		e.must(src, driver.Complete, list...)
		left -= len(list)
	}
	for s := range sessions {
		name := fmt.Sprintf("s%d", s)
		e.inOrder(name, got[name], each)
	}
}

// sessionPlainOneInFlight checks that while a message of a session is held or comes
// back, no later one is delivered.
func sessionPlainOneInFlight(e *env) {
	name, q, ok := e.plain(QueueSpec{ShortLock: true})
	if !ok {
		return
	}
	other := e.another(name)
	lock := q.Capabilities().Lock
	e.send(q, run("a", 3)...)
	first := e.expect(q, "a-000", "it is the first of its session")
	e.none(q, "an earlier message of the session is held")
	e.none(other, "an earlier message of the session is held by another connection")
	e.must(q, driver.Abandon, first)
	first = e.expect(other, "a-000", "it was abandoned and comes before the later ones")
	if lock > 0 {
		first = e.gatherWithin(q, 1, lock+e.slack())[0]
		if first.ID != "a-000" {
			e.Fatalf("received %q, want %q: its lock ran out and it comes before the later ones", first.ID, "a-000")
		}
		e.must(q, driver.Complete, first)
	} else {
		e.must(other, driver.Complete, first)
	}
	e.must(q, driver.Complete, e.expect(q, "a-001", "the one before it is completed"))
	e.must(other, driver.Complete, e.expect(other, "a-002", "the one before it is completed"))
	e.none(q, "the session is empty")
}

// sessionPlainAbandonDelay checks the same while one waits out the delay of an abandon.
func sessionPlainAbandonDelay(e *env) {
	_, q, ok := e.plain(QueueSpec{})
	if !ok || q.Capabilities().AbandonDelay == driver.None {
		return
	}
	e.send(q, run("a", 2)...)
	e.send(q, inSession("b", 0))
	var first *driver.Delivery
	for _, d := range e.gather(q, 2) {
		if d.ID == "a-000" {
			first = d
			continue
		}
		if d.ID != "b-000" {
			e.Fatalf("received %q, want the first of each session", d.ID)
		}
		e.must(q, driver.Complete, d)
	}
	if err := e.settle(q, driver.Settlement{Delivery: first, Kind: driver.Abandon, Delay: soon}); err != nil {
		e.Fatalf("Abandon with a delay: %v", err)
	}
	e.none(q, "an earlier message of the session waits for redelivery")
	again := e.gatherWithin(q, 1, soon+e.slack())[0]
	if again.ID != "a-000" {
		e.Fatalf("received %q, want %q: it was abandoned with a delay and comes before the later ones", again.ID, "a-000")
	}
	e.must(q, driver.Complete, again)
	e.must(q, driver.Complete, e.expect(q, "a-001", "the one before it is completed"))
}

// sessionOnly checks that a queue for sessions only refuses messages without a session,
// and Receive outside of one.
func sessionOnly(e *env) {
	_, q, ok := e.sessionQueue(QueueSpec{})
	if !ok || !q.Capabilities().SessionOnly {
		return
	}
	_, err := q.Receive(e.ctx, 1, 0)
	e.wantUnsupported(err, "Receive outside of a session")
	e.want(e.try(q, message("without"))[0].Err, driver.ErrInvalid, "Send without a session to a queue for sessions only")
}
