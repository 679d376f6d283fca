package drivertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var receiveCases = []conformanceCase{
	{"receive_max", receiveMax},
	{"receive_wait", receiveWait},
	{"receive_wakes", receiveWakes},
	{"receive_wakes_all", receiveWakesAll},
	{"receive_ended_context", receiveEndedContext},
	{"receive_cancel_returns", receiveCancelReturns},
	{"receive_cancel_loses_nothing", receiveCancelLosesNothing},
}

// receiveMax checks that Receive never returns more messages than asked for, and at
// least one if there is one.
func receiveMax(e *env) {
	q := e.queue()
	const n = 5
	for i := range n {
		e.send(q, message(fmt.Sprintf("max-%d", i)))
	}
	e.must(q, driver.Complete, e.one(q)) // receive fails on more than it asked for
	for left := n - 1; left > 0; {
		got := e.receive(q, 2, e.slack())
		if len(got) == 0 {
			e.Fatalf("%d messages are left and none came within %s", left, e.slack())
		}
		e.must(q, driver.Complete, got...)
		left -= len(got)
	}
	if _, err := q.Receive(e.ctx, 0, 0); err == nil {
		e.Errorf("Receive of at most 0 messages succeeded")
	}
}

// receiveWait checks that an empty queue answers (nil, nil), at once or after the wait.
func receiveWait(e *env) {
	q := e.queue()
	for _, wait := range []time.Duration{0, time.Second} {
		begin := time.Now()
		got, err := q.Receive(e.ctx, 1, wait)
		took := time.Since(begin)
		if err != nil || len(got) != 0 {
			e.Fatalf("Receive with wait %s on an empty queue returned %d messages and %v, want none and nil", wait, len(got), err)
		}
		if took < wait*9/10 {
			e.Errorf("Receive with wait %s on an empty queue returned after %s", wait, took)
		}
		if took > wait+e.slack() {
			e.Errorf("Receive with wait %s on an empty queue took %s", wait, took)
		}
	}
}

// reception is the outcome of a Receive of one message on another goroutine.
type reception struct {
	got  []*driver.Delivery
	err  error
	took time.Duration
}

func receiveLater(ctx context.Context, src driver.Source, wait time.Duration) <-chan reception {
	c := make(chan reception, 1)
	go func() {
		begin := time.Now()
		got, err := src.Receive(ctx, 1, wait)
		c <- reception{got, err, time.Since(begin)}
	}()
	return c
}

// receiveWakes checks that a waiting call gets a message as soon as it is sent, over
// any connection.
func receiveWakes(e *env) {
	name, q := e.named(QueueSpec{})
	other := e.another(name)
	wait := 4 * e.slack()
	c := receiveLater(e.ctx, q, wait)
	e.pass(e.quiet())
	e.send(other, message("wake-1"))
	r := <-c
	switch {
	case r.err != nil || len(r.got) != 1:
		e.Fatalf("a waiting Receive returned %d messages and %v, want the one that was sent", len(r.got), r.err)
	case r.took > e.quiet()+e.slack():
		e.Errorf("a waiting Receive returned %s after the message was sent", r.took-e.quiet())
	}
	e.check(r.got[0])
	e.must(q, driver.Complete, r.got...)
}

// receiveWakesAll checks that each of several calls that wait gets a message of a
// batch.
func receiveWakesAll(e *env) {
	name, q := e.named(QueueSpec{})
	const n = 4
	wait := 4 * e.slack()
	begin := time.Now()
	var calls []<-chan reception
	for range n {
		calls = append(calls, receiveLater(e.ctx, q, wait))
	}
	e.pass(e.quiet())
	other := e.another(name)
	for i := range n {
		e.send(other, message(fmt.Sprintf("wake-all-%d", i)))
	}
	for i, c := range calls {
		r := <-c
		if r.err != nil || len(r.got) != 1 {
			e.Fatalf("waiting Receive %d of %d returned %d messages and %v, want one of the %d that were sent", i+1, n, len(r.got), r.err, n)
		}
		e.check(r.got[0])
		e.must(q, driver.Complete, r.got...)
	}
	if took := time.Since(begin); took >= wait {
		e.Errorf("waiting receivers were woken only after %s", took)
	}
}

// receiveEndedContext checks that with a context that has ended every call returns its
// error, and nothing happens.
func receiveEndedContext(e *env) {
	name, q := e.named(QueueSpec{})
	e.send(q, message("kept"))
	ended, cancel := context.WithCancel(e.ctx)
	cancel()
	unsent := message("unsent")
	e.note(unsent)
	r := q.Send(ended, []*driver.Message{unsent})
	if len(r) != 1 || !errors.Is(r[0].Err, context.Canceled) {
		e.Errorf("Send with a cancelled context returned %+v, want one result with context.Canceled", r)
	}
	if got, err := q.Receive(ended, 1, time.Second); len(got) != 0 || !errors.Is(err, context.Canceled) {
		e.Errorf("Receive with a cancelled context returned %d messages and %v, want none and context.Canceled", len(got), show(err))
	}
	if _, err := e.broker.Open(ended, name, nil); err != nil && !errors.Is(err, context.Canceled) {
		e.Errorf("Open with a cancelled context: the error is %v, want context.Canceled or, if Open does no I/O, nil", show(err))
	}
	d := e.expect(q, "kept", "nothing else was sent")
	if errs := q.Settle(ended, []driver.Settlement{{Delivery: d, Kind: driver.Complete}}); len(errs) != 1 || !errors.Is(errs[0], context.Canceled) {
		e.Errorf("Settle with a cancelled context returned %v, want context.Canceled", errs)
	}
	e.must(q, driver.Complete, d)
	e.none(q, "a Send with a cancelled context stored its message")
}

// receiveCancelReturns checks that cancelling ends a call that waits.
func receiveCancelReturns(e *env) {
	q := e.queue()
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	c := receiveLater(ctx, q, 10*e.slack())
	e.pass(e.quiet())
	cancel()
	r := <-c
	if len(r.got) != 0 || !errors.Is(r.err, context.Canceled) {
		e.Errorf("a cancelled Receive returned %d messages and %v, want none and context.Canceled", len(r.got), show(r.err))
	}
	if r.took > e.quiet()+e.slack() {
		e.Errorf("a cancelled Receive returned %s after it was cancelled", r.took-e.quiet())
	}
	deadline, stop := context.WithTimeout(e.ctx, e.quiet())
	defer stop()
	if got, err := q.Receive(deadline, 1, 10*e.slack()); len(got) != 0 || !errors.Is(err, context.DeadlineExceeded) {
		e.Errorf("Receive past its context's deadline returned %d messages and %v, want none and context.DeadlineExceeded", len(got), show(err))
	}
}

// receiveCancelLosesNothing checks that a message that the broker handed over while the
// call was being cancelled is deliverable again at once, and not only after its lock,
// which here is far longer than the suite waits.
func receiveCancelLosesNothing(e *env) {
	name, q := e.named(QueueSpec{})
	sender := e.another(name)
	const rounds = 24
	taken := 0
	for i := range rounds {
		ctx, cancel := context.WithCancel(e.ctx)
		c := receiveLater(ctx, q, 4*e.slack())
		m := message(fmt.Sprintf("cancel-%d", i))
		e.note(m)
		sent := make(chan driver.SendResult, 1)
		send := func() { sent <- sender.Send(e.ctx, []*driver.Message{m})[0] }
		switch i % 3 {
		case 0: // at the same time
			go send()
			cancel()
		case 1: // just after it was stored
			send()
			cancel()
		case 2: // some time around it
			go send()
			e.pass(time.Duration(i) * time.Millisecond / 4)
			cancel()
		}
		if r := <-sent; r.Err != nil {
			cancel()
			e.Fatalf("Send: %v", r.Err)
		}
		r := <-c
		cancel()
		switch {
		case r.err != nil && len(r.got) > 0:
			e.Fatalf("a cancelled Receive returned both an error and %d messages", len(r.got))
		case r.err != nil && !errors.Is(r.err, context.Canceled):
			e.Fatalf("a cancelled Receive: the error is %v, want context.Canceled", show(r.err))
		}
		taken += len(r.got)
		e.must(q, driver.Complete, r.got...)
	}
	seen := make(map[string]bool)
	for deadline := time.Now().Add(e.slack()); taken+len(seen) < rounds; {
		left := time.Until(deadline)
		if left <= 0 {
			e.Fatalf("of %d messages %d were not delivered within %s after a Receive was cancelled: a cancelled Receive lost them, or left them to run out their lock", rounds, rounds-taken-len(seen), e.slack())
		}
		for _, d := range e.receive(q, 10, left) {
			seen[d.ID] = true
			e.must(q, driver.Complete, d)
		}
	}
	e.none(q, "every message was received and completed")
}
