package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
)

// caseTimeout bounds one case, so that a call that ignores its wait fails it.
const caseTimeout = 5 * time.Minute

// env is what a case works with. Its methods end the case if something does
// not work that the case takes for granted; they are for the case's goroutine.
type env struct {
	T
	ctx      context.Context
	instance *Instance
	broker   driver.Broker // a first connection

	mu   sync.Mutex
	sent map[string]*driver.Message // by ID; nil if an ID was sent with two contents
}

func newEnv(t T, h Harness) *env {
	ctx, cancel := context.WithTimeout(t.Context(), caseTimeout)
	t.Cleanup(cancel)
	e := &env{T: t, ctx: ctx, instance: h.Start(t), sent: make(map[string]*driver.Message)}
	e.broker = e.connect()
	return e
}

// afterwards is a context for what cleans up.
func (e *env) afterwards() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(e.ctx), 30*time.Second)
}

func (e *env) slack() time.Duration {
	if e.instance.Slack > 0 {
		return e.instance.Slack
	}
	return 5 * time.Second
}

func (e *env) quiet() time.Duration {
	if e.instance.Quiet > 0 {
		return e.instance.Quiet
	}
	return 100 * time.Millisecond
}

// pass lets d pass.
func (e *env) pass(d time.Duration) {
	e.Helper()
	if e.instance.Wait != nil {
		if err := e.instance.Wait(e.ctx, d); err != nil {
			e.Fatalf("waiting %s: %v", d, err)
		}
		return
	}
	if !backoff.Sleep(e.ctx, d) {
		e.Fatalf("waiting %s: %v", d, e.ctx.Err())
	}
}

// connect opens another connection, which the case may close.
func (e *env) connect() driver.Broker {
	e.Helper()
	p, err := e.instance.Connect(e.ctx)
	if err != nil {
		e.Fatalf("connect: %v", err)
	}
	e.Cleanup(func() {
		ctx, cancel := e.afterwards()
		defer cancel()
		if err := p.Close(ctx); err != nil {
			e.Errorf("Broker.Close: %v", err)
		}
	})
	return p
}

// newQueue makes a queue. ok is false if the broker has none like that.
func (e *env) newQueue(s QueueSpec) (name string, ok bool) {
	e.Helper()
	name, err := e.instance.NewQueue(e.ctx, s)
	if errors.Is(err, errors.ErrUnsupported) {
		return "", false
	}
	if err != nil {
		e.Fatalf("NewQueue(%+v): %v", s, err)
	}
	return name, true
}

func (e *env) open(p driver.Broker, name string) driver.Queue {
	e.Helper()
	q, err := p.Open(e.ctx, name, nil)
	if err != nil {
		e.Fatalf("Open(%q): %v", name, err)
	}
	return q
}

// queue opens a new plain queue over the first connection.
func (e *env) queue() driver.Queue {
	e.Helper()
	_, q := e.named(QueueSpec{})
	return q
}

// named is queue for tests that need the name, or a special queue that every
// broker has.
func (e *env) named(s QueueSpec) (string, driver.Queue) {
	e.Helper()
	name, ok := e.newQueue(s)
	if !ok {
		e.Fatalf("NewQueue(%+v) is unsupported: every broker has such queues", s)
	}
	return name, e.open(e.broker, name)
}

// another opens a queue over a connection of its own.
func (e *env) another(name string) driver.Queue {
	e.Helper()
	return e.open(e.connect(), name)
}

// message returns a message with an ID and a body of its own.
func message(id string) *driver.Message {
	return &driver.Message{ID: id, Body: []byte("body of " + id)}
}

func copyOf(m *driver.Message) *driver.Message {
	c := m.Clone()
	return &c
}

// note remembers what was sent, to compare it with what arrives.
func (e *env) note(m *driver.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, twice := e.sent[m.ID]; twice {
		e.sent[m.ID] = nil
		return
	}
	e.sent[m.ID] = copyOf(m)
}

// try sends in one call and checks the form of the answer.
func (e *env) try(q driver.Queue, m ...*driver.Message) []driver.SendResult {
	e.Helper()
	for _, m := range m {
		e.note(m)
	}
	results := q.Send(e.ctx, m)
	if len(results) != len(m) {
		e.Fatalf("Send of %d messages returned %d results: there must be one per message, in order", len(m), len(results))
	}
	for _, r := range results {
		e.classified("Send", r.Err)
	}
	return results
}

// send sends, in calls within the queue's limits, and takes no refusal.
func (e *env) send(q driver.Queue, m ...*driver.Message) {
	e.Helper()
	for part := range slices.Chunk(m, max(1, q.Capabilities().MaxBatch)) {
		for i, r := range e.try(q, part...) {
			if r.Err != nil {
				e.Fatalf("Send of message %q: %v", part[i].ID, r.Err)
			}
		}
	}
}

// check compares a delivery with what was sent, and its own fields with each
// other.
func (e *env) check(d *driver.Delivery) {
	e.Helper()
	if d == nil {
		e.Fatalf("Receive returned a nil delivery")
	}
	e.mu.Lock()
	m, known := e.sent[d.ID]
	e.mu.Unlock()
	if !known {
		e.Fatalf("received a message %q that was never sent", d.ID)
	}
	if m != nil {
		if s := Difference(m, &d.Message); s != "" {
			e.Errorf("message %q was changed on its way: %s", d.ID, s)
		}
	}
	if d.BrokerID == "" {
		e.Errorf("message %q has no BrokerID", d.ID)
	}
	if d.Undecodable {
		e.Errorf("message %q is marked Undecodable", d.ID)
	}
}

// Difference says in words what differs between a message that was sent and the
// one that was received, without their bodies. Empty means that nothing does.
// DedupID, NotBefore, TTL and Sealed are not compared, nor are attributes that the
// library adds itself ("qrt-...") and trace context that was lost.
func Difference(sent, got *driver.Message) string {
	var out []string
	scalar := func(what, sent, got string) {
		switch {
		case sent == got:
		case got == "":
			out = append(out, what+" was lost")
		default:
			out = append(out, fmt.Sprintf("%s is %q, sent was %q", what, got, sent))
		}
	}
	scalar("ID", sent.ID, got.ID)
	scalar("SessionID", sent.SessionID, got.SessionID)
	scalar("CorrelationID", sent.CorrelationID, got.CorrelationID)
	scalar("ContentType", sent.ContentType, got.ContentType)
	for _, k := range slices.Sorted(maps.Keys(sent.Attributes)) {
		if v, ok := got.Attributes[k]; !ok {
			out = append(out, fmt.Sprintf("attribute %q was lost", k))
		} else if v != sent.Attributes[k] {
			out = append(out, fmt.Sprintf("attribute %q is %q, sent was %q", k, v, sent.Attributes[k]))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got.Attributes)) {
		if _, ok := sent.Attributes[k]; !ok && !strings.HasPrefix(k, "qrt-") {
			out = append(out, fmt.Sprintf("attribute %q was added", k))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(got.Trace)) {
		if got.Trace[k] != sent.Trace[k] {
			out = append(out, fmt.Sprintf("trace context %q is %q, sent was %q", k, got.Trace[k], sent.Trace[k]))
		}
	}
	if !bytes.Equal(sent.Body, got.Body) {
		at := 0
		for at < min(len(sent.Body), len(got.Body)) && sent.Body[at] == got.Body[at] {
			at++
		}
		out = append(out, fmt.Sprintf("the body has %d bytes, sent were %d, the first that differs is at %d", len(got.Body), len(sent.Body), at))
	}
	return strings.Join(out, "; ")
}

// receive asks once and checks what came.
func (e *env) receive(src driver.Source, max int, wait time.Duration) []*driver.Delivery {
	e.Helper()
	got, err := src.Receive(e.ctx, max, wait)
	e.classified("Receive", err)
	if err != nil {
		e.Fatalf("Receive: %v", err)
	}
	if len(got) > max {
		e.Fatalf("Receive of at most %d messages returned %d", max, len(got))
	}
	for _, d := range got {
		e.check(d)
	}
	return got
}

// gather receives n messages, holding all, and fails if they do not come
// within the broker's slack.
func (e *env) gather(src driver.Source, n int) []*driver.Delivery {
	e.Helper()
	return e.gatherWithin(src, n, e.slack())
}

func (e *env) gatherWithin(src driver.Source, n int, limit time.Duration) []*driver.Delivery {
	e.Helper()
	var got []*driver.Delivery
	for deadline := time.Now().Add(limit); len(got) < n; {
		left := time.Until(deadline)
		if left <= 0 {
			e.Fatalf("%d of %d messages came within %s: %s", len(got), n, limit, ids(got))
		}
		got = append(got, e.receive(src, n-len(got), left)...)
	}
	return got
}

// one receives one message.
func (e *env) one(src driver.Source) *driver.Delivery {
	e.Helper()
	return e.gather(src, 1)[0]
}

// expect receives one message and wants it to be that one.
func (e *env) expect(src driver.Source, id, why string) *driver.Delivery {
	e.Helper()
	d := e.one(src)
	if d.ID != id {
		e.Fatalf("received %q, want %q: %s", d.ID, id, why)
	}
	return d
}

// none wants nothing to be received.
func (e *env) none(src driver.Source, why string) {
	e.Helper()
	if got := e.receive(src, 10, e.quiet()); len(got) > 0 {
		e.Fatalf("received %s: %s", ids(got), why)
	}
}

func ids(list []*driver.Delivery) string {
	if len(list) == 0 {
		return "none"
	}
	var out []string
	for _, d := range list {
		out = append(out, fmt.Sprintf("%q", d.ID))
	}
	return strings.Join(out, ", ")
}

// settle settles and returns the one error.
func (e *env) settle(src driver.Source, s driver.Settlement) error {
	e.Helper()
	errs := src.Settle(e.ctx, []driver.Settlement{s})
	if len(errs) != 1 {
		e.Fatalf("Settle of 1 delivery returned %d errors: there must be one (or nil) per settlement", len(errs))
	}
	e.classified("Settle", errs[0])
	return errs[0]
}

// must settles and takes no refusal.
func (e *env) must(src driver.Source, kind driver.SettleKind, list ...*driver.Delivery) {
	e.Helper()
	for _, d := range list {
		s := driver.Settlement{Delivery: d, Kind: kind}
		if kind == driver.MoveToDeadLetter {
			s.Reason, s.Description = testReason, testDescription
		}
		if err := e.settle(src, s); err != nil {
			e.Fatalf("Settle (%s) of message %q: %v", kind, d.ID, err)
		}
	}
}

// What the suite gives as cause of a dead letter.
const (
	testReason      = "authentication_failed"
	testDescription = "the message was altered, moved, or sealed under another key"
)

// renew renews one delivery.
func (e *env) renew(src driver.Source, d *driver.Delivery) (time.Time, error) {
	e.Helper()
	r := src.Renew(e.ctx, []*driver.Delivery{d})
	if len(r) != 1 {
		e.Fatalf("Renew of 1 delivery returned %d results", len(r))
	}
	e.classified("Renew", r[0].Err)
	return r[0].LockedUntil, r[0].Err
}

// classified wants err to be nil, of the context, errors.ErrUnsupported or a
// *driver.Error.
func (e *env) classified(op string, err error) {
	e.Helper()
	var d *driver.Error
	switch {
	case err == nil,
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, errors.ErrUnsupported),
		errors.As(err, &d):
		return
	}
	e.Errorf("%s: the error is not classified as a *driver.Error: %v", op, err)
}

// want wants err to match target.
func (e *env) want(err, target error, what string) {
	e.Helper()
	e.classified(what, err)
	if !errors.Is(err, target) {
		e.Errorf("%s: the error is %v, want %v", what, show(err), target)
	}
}

// wantUnsupported is want for what the Capabilities do not claim.
func (e *env) wantUnsupported(err error, what string) {
	e.Helper()
	if !errors.Is(err, errors.ErrUnsupported) {
		e.Errorf("%s: the error is %v, want errors.ErrUnsupported, because the Capabilities do not claim it", what, show(err))
	}
}

func show(err error) string {
	if err == nil {
		return "nil"
	}
	return fmt.Sprintf("%q", err.Error())
}
