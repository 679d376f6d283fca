package deadletter_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

var (
	errBroken = errors.New("broken")
	noContext context.Context // of a caller that forgot it
)

// broken is a broker of which single calls fail: one collaborator at a time.
type broken struct {
	driver.Broker
	fail    map[string]error // by call, such as "dead close"
	after   int              // so many calls of each kind still work
	calls   map[string]int
	short   string                     // a call that answers for one message less than asked
	caps    func(*driver.Capabilities) // of the dead-letter queue
	stats   func(*driver.Stats)        // of the dead-letter queue
	settled []driver.Settlement        // of the dead-letter queue
	endless bool                       // peeks never end
	sent    []*driver.Message
	sends   []int                      // messages, by call
	main    func(*driver.Capabilities) // of the queue
	before  func(call string)
	refuse  func(*driver.Delivery) error // of what is completed
	ctx     context.Context              // of the last call that settled
}

func (p *broken) called(name string) error {
	if p.calls == nil {
		p.calls = map[string]int{}
	}
	p.calls[name]++
	if p.before != nil {
		p.before(name)
	}
	if p.calls[name] <= p.after {
		return nil
	}
	return p.fail[name]
}

func (p *broken) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	if err := p.called("open"); err != nil {
		return nil, err
	}
	q, err := p.Broker.Open(ctx, name, o)
	return &brokenQueue{Queue: q, p: p, name: "main"}, err
}

type brokenQueue struct {
	driver.Queue
	p    *broken
	name string
}

func (q *brokenQueue) DeadLetters(ctx context.Context) (driver.Queue, error) {
	if err := q.p.called("dead letters"); err != nil {
		return nil, err
	}
	d, err := q.Queue.DeadLetters(ctx)
	return &brokenQueue{Queue: d, p: q.p, name: "dead"}, err
}

func (q *brokenQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if change := map[string]func(*driver.Capabilities){"dead": q.p.caps, "main": q.p.main}[q.name]; change != nil {
		change(&c)
	}
	return c
}

func (q *brokenQueue) Close(ctx context.Context) error {
	return errors.Join(q.p.called(q.name+" close"), q.Queue.Close(ctx))
}

func (q *brokenQueue) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if err := q.p.called("peek"); err != nil {
		return nil, "", err
	}
	if q.p.endless {
		d, _, err := q.Queue.Peek(ctx, "", max)
		return d, "more", err
	}
	return q.Queue.Peek(ctx, cursor, max)
}

func (q *brokenQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if err := q.p.called("receive"); err != nil {
		return nil, err
	}
	return q.Queue.Receive(ctx, max, wait)
}

func (q *brokenQueue) Stats(ctx context.Context) (driver.Stats, error) {
	if err := q.p.called("stats"); err != nil {
		return driver.Stats{}, err
	}
	s, err := q.Queue.Stats(ctx)
	if q.p.stats != nil {
		q.p.stats(&s)
	}
	return s, err
}

func (q *brokenQueue) Settle(ctx context.Context, s []driver.Settlement) []error {
	q.p.settled, q.p.ctx = append(q.p.settled, s...), ctx
	errs := q.Queue.Settle(ctx, s)
	if q.p.short == "settle" && s[0].Kind == driver.Complete {
		errs = errs[:len(errs)-1]
	}
	if q.p.refuse != nil && s[0].Kind == driver.Complete {
		for i := range s {
			errs[i] = errors.Join(errs[i], q.p.refuse(s[i].Delivery))
		}
	}
	return errs
}

func (q *brokenQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	q.p.sent, q.p.sends = append(q.p.sent, m...), append(q.p.sends, len(m))
	r := q.Queue.Send(ctx, m)
	if q.p.short == "send" {
		r = r[:len(r)-1]
	}
	return r
}

// receiving makes the dead-letter queue one that cannot be peeked.
func receiving(c *driver.Capabilities) { c.Peek = driver.None }

// told is an Observer that keeps what it is told.
type told struct {
	observe.Nop
	events []string
	links  bool
}

func (o *told) add(s observe.Source, format string, args ...any) {
	o.events = append(o.events, s.Queue+": "+fmt.Sprintf(format, args...))
}

func (o *told) Traces() bool { return o.links }

func (o *told) Configured(_ context.Context, s observe.Source, e observe.Configured) {
	o.add(s, "configured %v encrypted %v", e.Role == observe.DeadLetter, e.Encrypted)
}

func (o *told) Closed(_ context.Context, s observe.Source, e observe.Closed) {
	o.add(s, "closed %v", e.Role == observe.DeadLetter)
}

func (o *told) Redriven(_ context.Context, s observe.Source, e observe.Redriven) {
	o.add(s, "redriven, resealed %v", e.Resealed)
}

func (o *told) Begin(ctx context.Context, s observe.Source, op observe.Operation) (context.Context, func(observe.Result)) {
	if op.Kind != observe.Redrive {
		return ctx, func(observe.Result) {}
	}
	return ctx, func(r observe.Result) {
		o.add(s, "sent %d of %d, %d links, failed %v", r.Count, op.Count, len(op.Links), r.Err != nil)
	}
}

// behind returns a client of p with the fixture's keys and store; change may be nil.
func (x *fixture) behind(p *broken, change func(*queue.Options)) *queue.Client {
	x.Helper()
	if p.Broker == nil {
		p.Broker = x.Broker.Connect()
	}
	o := &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}}
	if change != nil {
		change(o)
	}
	c, err := queue.New(p, o)
	x.Must(err)
	x.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// opened opens the dead letters of p.
func (x *fixture) opened(p *broken, change func(*queue.Options)) *deadletter.Queue {
	x.Helper()
	d, err := deadletter.Open(x.Context(), x.behind(p, change), orders, &deadletter.Options{Wait: time.Second})
	x.Must(err)
	return d
}

// free is how many dead letters no call holds.
func (x *fixture) free() int {
	x.Helper()
	main, err := x.Broker.Connect().Open(x.Context(), orders, nil)
	x.Must(err)
	dead, err := main.DeadLetters(x.Context())
	x.Must(err)
	var all []driver.Settlement
	for {
		d, err := dead.Receive(x.Context(), 100, 0)
		x.Must(err)
		if len(d) == 0 {
			break
		}
		for _, m := range d {
			all = append(all, driver.Settlement{Delivery: m, Kind: driver.Release})
		}
	}
	if len(all) > 0 {
		x.Must(errors.Join(dead.Settle(x.Context(), all)...))
	}
	return len(all)
}

// failed checks an error of a call: its cause, operation and queue. The error of a context
// that ended is returned as it is.
func (x *fixture) failed(what string, err, cause error, op string) {
	x.Helper()
	if errors.Is(cause, context.Canceled) && errors.Is(err, cause) {
		return
	}
	var e *queue.Error
	if !errors.Is(err, cause) || !errors.As(err, &e) || e.Op != op || e.Queue != orders {
		x.Errorf("%s: %v; want %v of %q on %s", what, err, cause, op, orders)
	}
}
