package drivertest

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var lifecycleCases = []conformanceCase{
	{"names", names},
	{"queue_closed", queueClosed},
	{"queue_close_wakes", queueCloseWakes},
	{"broker_closed", brokerClosed},
	{"goroutines", goroutines},
}

// names checks the errors for a name that no queue can have, and for a queue that does
// not exist.
func names(e *env) {
	for _, name := range append([]string{""}, e.instance.InvalidNames...) {
		_, err := e.broker.Open(e.ctx, name, nil)
		e.want(err, driver.ErrInvalidName, "Open of a queue with an invalid name")
	}
	if e.instance.Missing == "" {
		return
	}
	q, err := e.broker.Open(e.ctx, e.instance.Missing, nil)
	if err == nil {
		e.Errorf("Open of a queue that does not exist succeeded")
		_ = q.Close(e.ctx) // the error above says it
		return
	}
	e.want(err, driver.ErrNotFound, "Open of a queue that does not exist")
}

// closedCalls wants every call on q to fail.
func (e *env) closedCalls(q driver.Queue, held *driver.Delivery) {
	e.Helper()
	if r := q.Send(e.ctx, []*driver.Message{message("late")}); len(r) != 1 {
		e.Errorf("Send of 1 message to a closed queue returned %d results", len(r))
	} else {
		e.want(r[0].Err, driver.ErrClosed, "Send to a closed queue")
	}
	_, err := q.Receive(e.ctx, 1, time.Second)
	e.want(err, driver.ErrClosed, "Receive from a closed queue")
	if err := e.settle(q, driver.Settlement{Delivery: held, Kind: driver.Complete}); !errors.Is(err, driver.ErrClosed) && !errors.Is(err, driver.ErrLockLost) {
		e.Errorf("Settle on a closed queue: the error is %v, want %v", show(err), driver.ErrClosed)
	}
	c := q.Capabilities() // still answers
	if c.Sessions != driver.None {
		_, err := q.AcceptSession(e.ctx, "", time.Second)
		e.want(err, driver.ErrClosed, "AcceptSession on a closed queue")
	}
	if c.Peek != driver.None {
		_, _, err := q.Peek(e.ctx, "", 1)
		e.want(err, driver.ErrClosed, "Peek on a closed queue")
	}
	if c.DeadLetter != driver.None {
		_, err := q.DeadLetters(e.ctx)
		e.want(err, driver.ErrClosed, "DeadLetters of a closed queue")
	}
}

// queueClosed checks that after Close every call fails, that a second Close returns nil,
// and that other queues work on.
func queueClosed(e *env) {
	name, q := e.named(QueueSpec{})
	twin := e.open(e.broker, name)
	e.send(q, message("m-1"))
	held := e.one(q)
	if err := q.Close(e.ctx); err != nil {
		e.Fatalf("Queue.Close: %v", err)
	}
	if err := q.Close(e.ctx); err != nil {
		e.Errorf("a second Queue.Close: %v", err)
	}
	e.closedCalls(q, held)
	e.send(twin, message("m-2"))
	for {
		got := e.receive(twin, 2, e.slack())
		if len(got) == 0 {
			e.Fatalf("a queue received nothing after another of the same name was closed")
		}
		e.must(twin, driver.Complete, got...)
		for _, d := range got {
			if d.ID == "m-2" {
				return
			}
		}
	}
}

// queueCloseWakes checks that Close ends waiting calls with Closed.
func queueCloseWakes(e *env) {
	q := e.queue()
	wait := 10 * e.slack()
	received := receiveLater(e.ctx, q, wait)
	var sq driver.Queue
	var accepted <-chan acceptance
	if _, s, ok := e.acceptable(QueueSpec{}); ok {
		sq = s
		accepted = acceptLater(e.ctx, sq, "", wait)
	}
	e.pass(e.quiet())
	if err := q.Close(e.ctx); err != nil {
		e.Fatalf("Queue.Close: %v", err)
	}
	r := <-received
	e.want(r.err, driver.ErrClosed, "a Receive that waits while the queue is closed")
	if r.took > e.quiet()+e.slack() {
		e.Errorf("a Receive that waits returned %s after the queue was closed", r.took-e.quiet())
	}
	if sq == nil {
		return
	}
	if err := sq.Close(e.ctx); err != nil {
		e.Fatalf("Queue.Close: %v", err)
	}
	a := <-accepted
	e.want(a.err, driver.ErrClosed, "an AcceptSession that waits while the queue is closed")
}

// brokerClosed checks that closing a connection ends what came from it, and nothing
// else.
func brokerClosed(e *env) {
	name, ok := e.newQueue(QueueSpec{})
	if !ok {
		e.Fatalf("NewQueue of an ordinary queue is unsupported")
	}
	p := e.connect()
	q, other := e.open(p, name), e.another(name)
	e.send(q, message("m-1"))
	held := e.one(q)
	waiting := receiveLater(e.ctx, q, 10*e.slack())
	e.pass(e.quiet())
	if err := p.Close(e.ctx); err != nil {
		e.Fatalf("Broker.Close: %v", err)
	}
	r := <-waiting
	e.want(r.err, driver.ErrClosed, "a Receive that waits while the broker is closed")
	if err := p.Close(e.ctx); err != nil {
		e.Errorf("a second Broker.Close: %v", err)
	}
	_, err := p.Open(e.ctx, name, nil)
	e.want(err, driver.ErrClosed, "Open on a closed broker")
	e.closedCalls(q, held)
	if err := q.Close(e.ctx); err != nil {
		e.Errorf("Queue.Close after Broker.Close: %v", err)
	}
	e.send(other, message("m-2"))
	for {
		got := e.receive(other, 2, e.slack())
		if len(got) == 0 {
			e.Fatalf("another connection received nothing after one was closed")
		}
		e.must(other, driver.Complete, got...)
		for _, d := range got {
			if d.ID == "m-2" {
				return
			}
		}
	}
}

// running returns the stacks of all goroutines by their IDs.
func running() map[string]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	out := make(map[string]string)
	for stack := range bytes.SplitSeq(buf, []byte("\n\n")) {
		// "goroutine 7 [select]:" comes first.
		if f := strings.Fields(string(stack)); len(f) > 1 {
			out[f[1]] = string(stack)
		}
	}
	return out
}

// goroutines checks that no goroutine of a broker is left after its Close, although
// calls of all kinds were made and some were cancelled.
func goroutines(e *env) {
	name, ok := e.newQueue(QueueSpec{})
	if !ok {
		e.Fatalf("NewQueue of an ordinary queue is unsupported")
	}
	sessions, hasSessions := e.newQueue(QueueSpec{Sessions: true})
	before := running()
	p, err := e.instance.Connect(e.ctx)
	if err != nil {
		e.Fatalf("connect: %v", err)
	}
	q := e.open(p, name)
	e.send(q, message("g-1"), message("g-2"), message("g-3"))
	d := e.one(q)
	e.must(q, driver.Complete, d)
	e.must(q, driver.Abandon, e.one(q))
	e.gather(q, 2) // left unsettled
	waiting := receiveLater(e.ctx, q, 10*e.slack())
	if c := q.Capabilities(); c.DeadLetter != driver.None {
		e.none(e.deadLetters(q), "nothing was dead-lettered")
	}
	var accepting <-chan acceptance
	if hasSessions {
		sq := e.open(p, sessions)
		e.send(sq, inSession("g", 0))
		if sq.Capabilities().Sessions != driver.None {
			s := e.accept(sq, "g")
			e.one(s) // left unsettled
			accepting = acceptLater(e.ctx, sq, "", 10*e.slack())
		}
	}
	e.pass(e.quiet())
	if err := p.Close(e.ctx); err != nil {
		e.Fatalf("Broker.Close: %v", err)
	}
	<-waiting
	if accepting != nil {
		<-accepting
	}
	for deadline := time.Now().Add(e.slack()); ; e.pass(e.quiet() / 4) {
		var left []string
		for id, stack := range running() {
			if _, old := before[id]; old || e.instance.Foreign != nil && e.instance.Foreign(stack) {
				continue
			}
			left = append(left, stack)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			e.Fatalf("%d goroutines are left after Broker.Close:\n%s", len(left), strings.Join(left, "\n\n"))
		}
	}
}
