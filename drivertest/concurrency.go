package drivertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var concurrencyCases = []conformanceCase{
	{"concurrent_consumers", concurrentConsumers},
	{"concurrent_failures", concurrentFailures},
	{"concurrent_sessions", concurrentSessions},
	{"concurrent_calls", concurrentCalls},
}

// ledger knows what is held and what is done, over all consumers.
type ledger struct {
	mu     sync.Mutex
	held   map[string]bool
	done   map[string]bool
	faults []string
	left   int
	all    chan struct{} // closed when nothing is left
}

func newLedger(n int) *ledger {
	return &ledger{held: make(map[string]bool), done: make(map[string]bool), left: n, all: make(chan struct{})}
}

func (l *ledger) fault(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < 10 {
		l.faults = append(l.faults, fmt.Sprintf(format, args...))
	}
}

// take notes a delivery.
func (l *ledger) take(d *driver.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.faults) >= 10:
	case l.held[d.ID]:
		l.faults = append(l.faults, fmt.Sprintf("message %q was delivered to two holders at a time", d.ID))
	case l.done[d.ID]:
		l.faults = append(l.faults, fmt.Sprintf("message %q was delivered after it was completed", d.ID))
	}
	l.held[d.ID] = true
}

// give notes that a delivery is about to be given back: from now on another
// receiver may have it.
func (l *ledger) give(d *driver.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, d.ID)
}

// finish notes that a message was completed.
func (l *ledger) finish(d *driver.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, d.ID)
	if l.done[d.ID] {
		return
	}
	l.done[d.ID] = true
	if l.left--; l.left == 0 {
		close(l.all)
	}
}

// verdict reports what was found.
func (l *ledger) verdict(e *env) {
	e.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		e.Errorf("%s", f)
	}
	if l.left > 0 {
		e.Errorf("%d messages were not delivered", l.left)
	}
}

// consume runs work on each of sources until all is done or the case's time is
// over. It returns when every consumer has.
func (e *env) consume(l *ledger, limit time.Duration, sources []driver.Queue, work func(ctx context.Context, q driver.Queue)) {
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	var wg sync.WaitGroup
	for _, q := range sources {
		wg.Go(func() { work(ctx, q) })
	}
	select {
	case <-l.all:
	case <-ctx.Done():
	}
	cancel()
	wg.Wait()
}

// produce sends from several goroutines, in calls within the queue's limits, and
// returns a function that waits for them.
func (e *env) produce(l *ledger, q []driver.Queue, each func(i int) []*driver.Message) (wait func()) {
	var wg sync.WaitGroup
	for i, q := range q {
		list := each(i)
		for _, m := range list {
			e.note(m)
		}
		wg.Go(func() {
			step := min(10, q.Capabilities().MaxBatch)
			for len(list) > 0 {
				n := min(step, len(list))
				for k, r := range q.Send(e.ctx, list[:n]) {
					if r.Err != nil {
						l.fault("Send of message %q: %v", list[k].ID, r.Err)
					}
				}
				list = list[n:]
			}
		})
	}
	return wg.Wait
}

// concurrentConsumers checks that with many senders and receivers nothing is lost, held
// twice or delivered again.
func concurrentConsumers(e *env) {
	const senders, consumers, each = 4, 4, 50
	name, q := e.named(QueueSpec{})
	second := e.another(name)
	l := newLedger(senders * each)
	wait := e.produce(l, []driver.Queue{q, second, q, second}, func(i int) []*driver.Message {
		var out []*driver.Message
		for k := range each {
			out = append(out, message(fmt.Sprintf("c%d-%03d", i, k)))
		}
		return out
	})
	sources := []driver.Queue{q, second, q, second}[:consumers]
	e.consume(l, 12*e.slack(), sources, func(ctx context.Context, q driver.Queue) {
		whole := context.WithoutCancel(ctx) // what was received is settled
		for ctx.Err() == nil {
			got, err := q.Receive(ctx, 7, time.Second)
			if err != nil {
				if ctx.Err() == nil {
					l.fault("Receive: %v", err)
				}
				return
			}
			var list []driver.Settlement
			for _, d := range got {
				l.take(d)
				list = append(list, driver.Settlement{Delivery: d, Kind: driver.Complete})
			}
			for i, err := range q.Settle(whole, list) {
				if err != nil {
					l.fault("Settle of message %q: %v", got[i].ID, err)
					continue
				}
				l.finish(got[i])
			}
		}
	})
	wait()
	l.verdict(e)
	e.none(q, "all messages were completed")
}

// concurrentFailures: the same while consumers abandon, cancel and go away.
func concurrentFailures(e *env) {
	const each = 40
	name, q := e.named(QueueSpec{})
	second := e.another(name)
	l := newLedger(2 * each)
	wait := e.produce(l, []driver.Queue{q, second}, func(i int) []*driver.Message {
		var out []*driver.Message
		for k := range each {
			out = append(out, message(fmt.Sprintf("f%d-%03d", i, k)))
		}
		return out
	})
	e.consume(l, 12*e.slack(), []driver.Queue{q, second, q, second}, func(ctx context.Context, q driver.Queue) {
		whole := context.WithoutCancel(ctx) // what was received is settled
		for round := 0; ctx.Err() == nil; round++ {
			call, cancel := ctx, context.CancelFunc(func() {})
			if round%5 == 4 {
				call, cancel = context.WithTimeout(ctx, time.Millisecond)
			}
			got, err := q.Receive(call, 3, 200*time.Millisecond)
			cancel()
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
					l.fault("Receive: %v", err)
					return
				}
				continue
			}
			for i, d := range got {
				l.take(d)
				s := driver.Settlement{Delivery: d, Kind: driver.Complete}
				if (round+i)%3 == 0 && d.Count < 4 {
					s.Kind = driver.Abandon
					l.give(d)
				}
				if err := q.Settle(whole, []driver.Settlement{s})[0]; err != nil {
					l.fault("Settle (%s) of message %q: %v", s.Kind, d.ID, err)
				} else if s.Kind == driver.Complete {
					l.finish(d)
				}
			}
		}
	})
	wait()
	l.verdict(e)
	e.none(q, "all messages were completed")
}

// concurrentSessions checks that with many workers each session has one holder at a
// time and is handled in order, whatever fails.
func concurrentSessions(e *env) {
	const sessions, each = 6, 8
	name, q, ok := e.acceptable(QueueSpec{})
	if !ok {
		return
	}
	l := newLedger(sessions * each)
	second := e.another(name)
	wait := e.produce(l, []driver.Queue{q, second}, func(i int) []*driver.Message {
		var out []*driver.Message
		for k := range each {
			for s := i; s < sessions; s += 2 { // a session has one sender
				out = append(out, inSession(fmt.Sprintf("cs%d", s), k))
			}
		}
		return out
	})
	var mu sync.Mutex
	holders := make(map[string]int)
	count := func(s driver.Session, by int) {
		mu.Lock()
		defer mu.Unlock()
		if holders[s.ID()] += by; holders[s.ID()] > 1 {
			l.fault("session %q has two holders at a time", s.ID())
		}
	}
	// With gaps a session has a holder only while a message of it is held.
	gaps := q.Capabilities().SessionGaps
	order := make(map[string][]string)
	e.consume(l, 24*e.slack(), []driver.Queue{q, second, e.another(name), q}, func(ctx context.Context, q driver.Queue) {
		whole := context.WithoutCancel(ctx) // what was received is settled
		for round := 0; ctx.Err() == nil; round++ {
			s, err := q.AcceptSession(ctx, "", time.Second)
			if err != nil {
				if !errors.Is(err, driver.ErrNoSession) && ctx.Err() == nil {
					l.fault("AcceptSession: %v", err)
					return
				}
				continue
			}
			if !gaps {
				count(s, 1)
			}
			for i := range 4 {
				got, err := s.Receive(ctx, 1, 50*time.Millisecond)
				if err != nil && ctx.Err() == nil {
					l.fault("Receive of session %q: %v", s.ID(), err)
				}
				if len(got) == 0 {
					break
				}
				d := got[0]
				if d.SessionID != s.ID() {
					l.fault("session %q received a message of session %q", s.ID(), d.SessionID)
				}
				l.take(d)
				if gaps {
					count(s, 1)
				}
				if (round+i)%3 == 1 && d.Count < 4 {
					l.give(d)
					if gaps {
						count(s, -1)
					}
					if i%2 == 0 {
						break // closes with the message in hand
					}
					if err := s.Settle(whole, []driver.Settlement{{Delivery: d, Kind: driver.Abandon}})[0]; err != nil {
						l.fault("Settle (abandon) of message %q: %v", d.ID, err)
					}
					continue
				}
				mu.Lock()
				order[s.ID()] = append(order[s.ID()], d.ID)
				mu.Unlock()
				if gaps {
					count(s, -1)
				}
				if err := s.Settle(whole, []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]; err != nil {
					l.fault("Settle of message %q: %v", d.ID, err)
					continue
				}
				l.finish(d)
			}
			if !gaps {
				count(s, -1)
			}
			if err := s.Close(whole); err != nil {
				l.fault("Close of session %q: %v", s.ID(), err)
			}
		}
	})
	wait()
	l.verdict(e)
	for s := range sessions {
		id := fmt.Sprintf("cs%d", s)
		e.inOrder(id, order[id], each)
	}
}

// concurrentCalls checks that one queue and one session serve many goroutines at once.
func concurrentCalls(e *env) {
	q := e.queue()
	const n = 16
	l := newLedger(n)
	var wg sync.WaitGroup
	for i := range n {
		m := message(fmt.Sprintf("calls-%02d", i))
		e.note(m)
		wg.Go(func() {
			if r := q.Send(e.ctx, []*driver.Message{m})[0]; r.Err != nil {
				l.fault("Send: %v", r.Err)
			}
		})
		wg.Go(func() {
			got, err := q.Receive(e.ctx, 1, 2*e.slack())
			if err != nil || len(got) != 1 {
				l.fault("Receive returned %d messages and %v, want one", len(got), show(err))
				return
			}
			l.take(got[0])
			if err := q.Renew(e.ctx, got)[0].Err; err != nil {
				l.fault("Renew: %v", err)
			}
			_ = q.Capabilities()
			_ = q.Size(&got[0].Message)
			if err := q.Settle(e.ctx, []driver.Settlement{{Delivery: got[0], Kind: driver.Complete}})[0]; err != nil {
				l.fault("Settle: %v", err)
				return
			}
			l.finish(got[0])
		})
	}
	wg.Wait()
	l.verdict(e)
}
