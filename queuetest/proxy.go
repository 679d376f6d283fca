package queuetest

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// Proxy is a driver.Broker around another. It passes calls on, but for the
// faults that are injected and the attacks that are made.
type Proxy struct {
	driver.Broker
	faults faults

	mu       sync.Mutex // guards what follows
	captured map[string][]driver.Message
	tamper   func(queue string, d *driver.Delivery)
	opened   map[string]driver.Queue
}

// Wrap returns a Proxy around p. Faults with a Rate are drawn from seed.
func Wrap(p driver.Broker, seed uint64) *Proxy {
	return &Proxy{
		Broker:   p,
		faults:   faults{random: rand.New(rand.NewPCG(seed, seed))}, //nolint:gosec // G404: faults that can be repeated
		captured: make(map[string][]driver.Message),
		opened:   make(map[string]driver.Queue),
	}
}

// Inject adds faults to those that are active.
func (p *Proxy) Inject(all ...Fault) {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	for _, f := range all {
		p.faults.active = append(p.faults.active, &f)
	}
}

// Heal ends all faults.
func (p *Proxy) Heal() {
	p.faults.mu.Lock()
	defer p.faults.mu.Unlock()
	p.faults.active = nil
}

// Captured returns copies of the messages that were sent to a queue through this
// Proxy, as the broker saw them, in the order of sending. Those that failed are
// not among them.
func (p *Proxy) Captured(queue string) []driver.Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]driver.Message, len(p.captured[queue]))
	for i := range out {
		out[i] = p.captured[queue][i].Clone()
	}
	return out
}

// Store makes the attacker put messages into a queue: captured ones, altered or
// not, or invented ones. Their DedupIDs are ignored. It fails with driver.NotFound if the
// queue was not opened through this Proxy, and at the first message that the broker
// refuses.
func (p *Proxy) Store(ctx context.Context, queue string, all ...driver.Message) error {
	p.mu.Lock()
	q := p.opened[queue]
	p.mu.Unlock()
	if q == nil {
		return driver.Errorf(driver.NotFound, "queue %q was not opened through this proxy", queue)
	}
	for i := range all {
		m := all[i].Clone()
		m.DedupID = "" // an attacker is not held back by it
		if r := q.Send(ctx, []*driver.Message{&m}); r[0].Err != nil {
			return r[0].Err
		}
	}
	return nil
}

// Tamper makes the attacker change every message on its way to a receiver. f gets
// a copy that shares no memory with what is stored, and must be safe for
// concurrent use; nil ends it.
func (p *Proxy) Tamper(f func(queue string, d *driver.Delivery)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tamper = f
}

// Open opens a queue of the broker behind.
func (p *Proxy) Open(ctx context.Context, queue string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, queue, o)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.opened[queue] = q
	p.mu.Unlock()
	return &proxyQueue{Queue: q, proxySource: proxySource{Source: q, p: p, name: queue}}, nil
}

func (p *Proxy) capture(queue string, m *driver.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.captured[queue] = append(p.captured[queue], m.Clone())
}

// proxySource is what queues and sessions have in common.
type proxySource struct {
	driver.Source
	p    *Proxy
	name string
}

func (s *proxySource) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	f := s.p.faults.meet(Receive, s.name)
	if err := f.before(ctx); err != nil {
		return nil, err
	}
	d, err := s.Source.Receive(ctx, max, wait)
	if err != nil {
		return nil, err
	}
	if f.Reorder {
		s.p.faults.shuffle(d)
	}
	if f.LoseLock {
		for _, err := range s.Source.Settle(context.WithoutCancel(ctx), settlements(d)) {
			if err != nil {
				return nil, err
			}
		}
	}
	s.p.mu.Lock()
	tamper := s.p.tamper
	s.p.mu.Unlock()
	if tamper != nil {
		for _, d := range d {
			d.Message = d.Message.Clone()
			tamper(s.name, d)
		}
	}
	return d, nil
}

func settlements(d []*driver.Delivery) []driver.Settlement {
	out := make([]driver.Settlement, len(d))
	for i := range d {
		out[i] = driver.Settlement{Delivery: d[i], Kind: driver.Abandon}
	}
	return out
}

func (s *proxySource) Settle(ctx context.Context, all []driver.Settlement) []error {
	f := s.p.faults.meet(Settle, s.name)
	if err := f.before(ctx); err != nil {
		return each(len(all), err)
	}
	errs := s.Source.Settle(ctx, all)
	if f.LostAnswer != nil {
		return each(len(all), f.LostAnswer)
	}
	return errs
}

func (s *proxySource) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	f := s.p.faults.meet(Renew, s.name)
	if err := f.before(ctx); err != nil {
		return each(len(d), driver.RenewResult{Err: err})
	}
	results := s.Source.Renew(ctx, d)
	if f.LostAnswer != nil {
		return each(len(d), driver.RenewResult{Err: f.LostAnswer})
	}
	return results
}

func each[T any](n int, result T) []T {
	out := make([]T, n)
	for i := range out {
		out[i] = result
	}
	return out
}

// proxyQueue is a queue with faults. It embeds the broker's queue for the methods that
// have none.
type proxyQueue struct {
	driver.Queue
	proxySource
}

// Receive is that of proxySource, with its faults; so are Settle and Renew.
func (q *proxyQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return q.proxySource.Receive(ctx, max, wait)
}

func (q *proxyQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	return q.proxySource.Settle(ctx, all)
}

func (q *proxyQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return q.proxySource.Renew(ctx, d)
}

func (q *proxyQueue) Send(ctx context.Context, all []*driver.Message) []driver.SendResult {
	f := q.p.faults.meet(Send, q.name)
	results := make([]driver.SendResult, len(all))
	if err := f.before(ctx); err != nil {
		for i := range results {
			results[i].Err = err
		}
		return results
	}
	results = q.Queue.Send(ctx, all)
	for i, m := range all {
		if i >= len(results) || results[i].Err != nil {
			continue
		}
		q.p.capture(q.name, m)
		if f.Duplicate {
			second := *m
			second.DedupID = ""
			if r := q.Queue.Send(ctx, []*driver.Message{&second}); r[0].Err != nil {
				results[i].Err = r[0].Err
			}
		}
		if f.LostAnswer != nil {
			results[i] = driver.SendResult{Err: f.LostAnswer}
		}
	}
	return results
}

func (q *proxyQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	f := q.p.faults.meet(AcceptSession, q.name)
	if err := f.before(ctx); err != nil {
		return nil, err
	}
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	ps := proxySession{Session: s, proxySource: proxySource{Source: s, p: q.p, name: q.name}}
	if stateful, ok := s.(driver.StatefulSession); ok {
		return &statefulProxySession{ps, stateful}, nil
	}
	return &ps, nil
}

type proxySession struct {
	driver.Session
	proxySource
}

func (s *proxySession) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return s.proxySource.Receive(ctx, max, wait)
}

func (s *proxySession) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.proxySource.Settle(ctx, all)
}

func (s *proxySession) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return s.proxySource.Renew(ctx, d)
}

func (s *proxySession) RenewSession(ctx context.Context) (time.Time, error) {
	f := s.p.faults.meet(Renew, s.name)
	if err := f.before(ctx); err != nil {
		return time.Time{}, err
	}
	until, err := s.Session.RenewSession(ctx)
	if f.LostAnswer != nil {
		return time.Time{}, f.LostAnswer
	}
	return until, err
}

// Unnamed implements driver.UnnamedSession.
func (s *proxySession) Unnamed() bool {
	u, ok := s.Session.(driver.UnnamedSession)
	return ok && u.Unnamed()
}

// statefulProxySession keeps the state of sessions that have one.
type statefulProxySession struct {
	proxySession
	state driver.StatefulSession
}

func (s *statefulProxySession) State(ctx context.Context) ([]byte, error) { return s.state.State(ctx) }

func (s *statefulProxySession) SetState(ctx context.Context, state []byte) error {
	return s.state.SetState(ctx, state)
}
