package queue_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

var (
	errFailing = errors.New("this call fails")
	noContext  context.Context // of a caller that forgot it
)

// failingBroker is a broker of which single calls fail or answer too little. What is below mu is
// read and changed by count, last, counts and set.
type failingBroker struct {
	driver.Broker
	caps func(*driver.Capabilities)

	mu      sync.Mutex       // a late release of a session is a goroutine of its own
	fails   map[string]error // by call, such as "settle"
	short   map[string]bool  // calls that answer for one message less than asked
	calls   map[string]int
	holds   string        // the session that is given, whatever was asked for
	endless bool          // the locks of sessions have no end in time
	renewed time.Duration // how long a session's lock lasts from a renewal on, by its word; 0: as it does
	hook    func(call string)
	ctx     map[string]context.Context // of the last call
}

func (p *failingBroker) called(ctx context.Context, name string) error {
	p.mu.Lock()
	if p.calls == nil {
		p.calls, p.ctx = map[string]int{}, map[string]context.Context{}
	}
	p.calls[name]++
	p.ctx[name] = ctx
	hook := p.hook
	p.mu.Unlock()
	if hook != nil {
		hook(name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fails[name]
}

// set changes what the broker does.
func (p *failingBroker) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// count is how often a call was made.
func (p *failingBroker) count(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[name]
}

// counts is how often each call was made.
func (p *failingBroker) counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.calls)
}

// last is the context of the last call.
func (p *failingBroker) last(name string) context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx[name]
}

// tooShort reports whether a call answers for one message less than asked.
func (p *failingBroker) tooShort(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.short[name]
}

func (p *failingBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	if err := p.called(ctx, "open"); err != nil {
		return nil, err
	}
	if o != nil && o.Lock < 0 {
		o = nil // a driver that leaves it to others to refuse that
	}
	q, err := p.Broker.Open(ctx, name, o)
	return &partialQueue{Queue: q, p: p}, err
}

func (p *failingBroker) Close(ctx context.Context) error {
	return errors.Join(p.called(ctx, "close broker"), p.Broker.Close(ctx))
}

type partialQueue struct {
	driver.Queue
	p *failingBroker
}

func (q *partialQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.p.caps != nil {
		q.p.caps(&c)
	}
	return c
}

func (q *partialQueue) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if err := q.p.called(ctx, "peek"); err != nil {
		return nil, "", err
	}
	return q.Queue.Peek(ctx, cursor, max)
}

func (q *partialQueue) Close(ctx context.Context) error {
	return errors.Join(q.p.called(ctx, "close"), q.Queue.Close(ctx))
}

func (q *partialQueue) Stats(ctx context.Context) (driver.Stats, error) {
	if err := q.p.called(ctx, "stats"); err != nil {
		return driver.Stats{}, err
	}
	return q.Queue.Stats(ctx)
}

func (q *partialQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	if err := q.p.called(ctx, "send"); err != nil {
		r := make([]driver.SendResult, len(m))
		for i := range r {
			r[i].Err = err
		}
		return r
	}
	r := q.Queue.Send(ctx, m)
	if q.p.tooShort("send") {
		r = r[:len(r)-1]
	}
	return r
}

func (p *failingBroker) receive(ctx context.Context, s driver.Source, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if err := p.called(ctx, "receive"); err != nil {
		return nil, err
	}
	return s.Receive(ctx, max, wait)
}

func (p *failingBroker) settle(ctx context.Context, s driver.Source, all []driver.Settlement) []error {
	errs := make([]error, len(all))
	if err := p.called(ctx, "settle"); err != nil {
		for i := range errs {
			errs[i] = err
		}
	} else {
		errs = s.Settle(ctx, all)
	}
	if p.tooShort("settle") {
		errs = errs[:len(errs)-1]
	}
	return errs
}

func (p *failingBroker) renew(ctx context.Context, s driver.Source, d []*driver.Delivery) []driver.RenewResult {
	if err := p.called(ctx, "renew"); err != nil {
		results := make([]driver.RenewResult, len(d))
		for i := range results {
			results[i].Err = err
		}
		return results
	}
	results := s.Renew(ctx, d)
	if p.tooShort("renew") {
		results = results[:len(results)-1]
	}
	return results
}

func (q *partialQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return q.p.receive(ctx, q.Queue, max, wait)
}

func (q *partialQueue) Settle(ctx context.Context, s []driver.Settlement) []error {
	return q.p.settle(ctx, q.Queue, s)
}

func (q *partialQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return q.p.renew(ctx, q.Queue, d)
}

func (q *partialQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	if err := q.p.called(ctx, "accept"); err != nil {
		return nil, err
	}
	if q.p.holds != "" {
		id = q.p.holds
	}
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return &partialSession{s.(driver.StatefulSession), q.p}, nil
}

type partialSession struct {
	driver.StatefulSession
	p *failingBroker
}

func (s *partialSession) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return s.p.receive(ctx, s.StatefulSession, max, wait)
}

func (s *partialSession) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.p.settle(ctx, s.StatefulSession, all)
}

func (s *partialSession) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return s.p.renew(ctx, s.StatefulSession, d)
}

func (s *partialSession) RenewSession(ctx context.Context) (time.Time, error) {
	if err := s.p.called(ctx, "renew session"); err != nil {
		return time.Time{}, err
	}
	if until, err := s.StatefulSession.RenewSession(ctx); err != nil || s.p.renewed == 0 {
		return until, err
	}
	return time.Now().Add(s.p.renewed), nil
}

func (s *partialSession) LockedUntil() time.Time {
	if s.p.endless {
		return time.Time{}
	}
	return s.StatefulSession.LockedUntil()
}

func (s *partialSession) State(ctx context.Context) ([]byte, error) {
	if err := s.p.called(ctx, "state"); err != nil {
		return nil, err
	}
	return s.StatefulSession.State(ctx)
}

func (s *partialSession) SetState(ctx context.Context, state []byte) error {
	if err := s.p.called(ctx, "set state"); err != nil {
		return err
	}
	return s.StatefulSession.SetState(ctx, state)
}

func (s *partialSession) Close(ctx context.Context) error {
	return errors.Join(s.p.called(ctx, "close session"), s.StatefulSession.Close(ctx))
}

// diary is an Observer that keeps what it is told as text.
type diary struct {
	observe.Nop
	traces bool
	mu     sync.Mutex
	lines  []string
}

func (o *diary) add(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append(o.lines, fmt.Sprintf(format, args...))
}

// of returns the lines that begin so.
func (o *diary) of(prefix string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for _, l := range o.lines {
		if strings.HasPrefix(l, prefix) {
			out = append(out, l)
		}
	}
	return out
}

func (o *diary) Traces() bool { return o.traces }

func (o *diary) Begin(ctx context.Context, _ observe.Source, op observe.Operation) (context.Context, func(observe.Result)) {
	return ctx, func(r observe.Result) {
		o.add("%v %s of %d, %d links, encrypted %v, message %q, session %q, key %q: %d, failed %v", op.Kind, op.Disposition, op.Count, len(op.Links), op.Encrypted, op.MessageID, op.SessionID, op.KeyID, r.Count, r.Err != nil)
	}
}

func (o *diary) Sent(_ context.Context, _ observe.Source, e observe.Sent) {
	o.add("sent %d bytes encrypted %v under %q", e.Bytes, e.Encrypted, e.KeyID)
}

func (o *diary) DeadLettered(_ context.Context, _ observe.Source, e observe.DeadLettered) {
	o.add("dead-lettered %s", e.Reason)
}

func (o *diary) Rejected(_ context.Context, _ observe.Source, e observe.Rejected) {
	o.add("rejected %s %s under %q, settling failed %v", e.Reason, e.Disposition, e.KeyID, e.SettleErr != nil)
}

func (o *diary) Duplicate(_ context.Context, _ observe.Source, e observe.Duplicate) {
	o.add("duplicate under %q, settling failed %v", e.KeyID, e.SettleErr != nil)
}

func (o *diary) Received(_ context.Context, _ observe.Source, e observe.Received) {
	o.add("received %d bytes encrypted %v under %q", e.Bytes, e.Encrypted, e.KeyID)
}

func (o *diary) Paused(_ context.Context, _ observe.Source, e observe.Paused) {
	o.add("paused %s", e.Reason)
}

func (o *diary) Resumed(_ context.Context, _ observe.Source, e observe.Resumed) {
	o.add("resumed %s", e.Reason)
}

func (o *diary) Renewed(_ context.Context, _ observe.Source, e observe.Renewed) {
	o.add("renewed, failed %v", e.Err != nil)
}

func (o *diary) Session(_ context.Context, _ observe.Source, e observe.Session) {
	o.add("session %v", e.State)
}

func (o *diary) CryptoError(_ context.Context, _ observe.Source, e observe.CryptoError) {
	o.add("crypto error %s", e.Reason)
}

// behind returns a client of p with the fixture's options; change may be nil.
func (x *fixture) behind(p *failingBroker, change func(*queue.Options)) *queue.Client {
	x.Helper()
	if p.Broker == nil {
		p.Broker = x.Broker.Connect()
	}
	o := &queue.Options{
		Keys: x.Ring, ReplayStore: x.Store, Logger: x.Logger,
		Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true},
	}
	if change != nil {
		change(o)
	}
	c, err := queue.New(p, o)
	x.Must(err)
	x.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// receives opens orders for receiving.
func (x *fixture) receives(c *queue.Client, o *queue.ReceiverOptions) *queue.Receiver {
	x.Helper()
	if o == nil {
		o = &queue.ReceiverOptions{Wait: time.Second}
	}
	r, err := c.Receiver(x.Context(), orders, o)
	x.Must(err)
	return r
}

// failed checks an error of a call: its cause and its operation.
func (x *fixture) failed(what string, err, cause error, op string) {
	x.Helper()
	var e *queue.Error
	if !errors.Is(err, cause) || !errors.As(err, &e) || e.Op != op {
		x.Errorf("%s: %v; want %v of %q", what, err, cause, op)
	}
}

// told checks lines of the diary, or of the log.
func (x *fixture) told(what string, got []string, want ...string) {
	x.Helper()
	if !slices.Equal(got, want) {
		x.Errorf("%s: told %q, want %q", what, got, want)
	}
}

// logged is how many lines of the log have a text.
func (x *fixture) logged(text string) int { return strings.Count(x.Log.String(), text) }

func without(o *queue.Options) { o.ReplayStore, o.Crypto.TrackReplays = nil, false }
