package worker_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/worker"
)

var (
	modelSchedules = flag.Int("model.schedules", soak(100, 10_000), "how many random schedules the model test of the Pool runs")
	modelSeed      = flag.Uint64("model.seed", 0, "the first seed; 0 draws one")
	modelOnly      = flag.Bool("model.only", false, "run the first seed alone")
)

// plant is a fault of the library that the model must find.
type plant string

const (
	sound           plant = ""
	renewalStops    plant = "a renewal that stops"
	settleAfter     plant = "a settle after close"
	overtakingRetry plant = "an overtaking retry"
	doubleClaim     plant = "a double claim"
	lostRelease     plant = "a lost release"
)

// TestModel runs random schedules of several processors on one queue: crashes,
// abandons, lost locks, lost answers, duplicates and drains. Every message is
// handled to success or dead-lettered; within a session handlers neither overlap
// nor run out of order; with a replay store a handler that succeeded never runs again.
func TestModel(t *testing.T) {
	first := *modelSeed
	if first == 0 {
		first = rand.Uint64N(1 << 40)
	}
	n := uint64(*modelSchedules)
	if *modelOnly {
		n = 1
	}
	t.Logf("%d schedules, seeds %d to %d; one alone: -model.only -model.seed=N", n, first, first+n-1)
	const parts = 2
	for part := range uint64(parts) {
		t.Run(fmt.Sprint("part", part), func(t *testing.T) {
			t.Parallel()
			for seed := first + part; seed < first+n; seed += parts {
				if found := schedule(t, seed, sound); len(found) > 0 {
					t.Fatalf("seed %d:\n%s", seed, strings.Join(found, "\n"))
				}
			}
		})
	}
}

// TestModelFindsFaults is the test of the test.
func TestModelFindsFaults(t *testing.T) {
	for _, p := range []plant{renewalStops, settleAfter, overtakingRetry, doubleClaim, lostRelease} {
		t.Run(strings.ReplaceAll(string(p), " ", "_"), func(t *testing.T) {
			for seed := range uint64(500) {
				if found := schedule(t, seed, p); len(found) > 0 {
					t.Logf("seed %d: %s", seed, found[0])
					return
				}
			}
			t.Error("500 schedules did not find it")
		})
	}
}

// schedule runs one schedule and returns what it found wrong.
func schedule(t *testing.T, seed uint64, p plant) (found []string) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel(t, seed, p)
		m.run()
		found = m.found
	})
	return found
}

const modelLock = 10 * time.Second

type model struct {
	t       *testing.T
	plant   plant
	seed    uint64
	tracked bool // there is a replay store
	// bySession: every message has a session, and is received through it.
	bySession bool
	// receiveBatch is how many messages one Receive brings at most, and several at once bring
	// more; 0 = no limit.
	receiveBatch int
	counts       bool // a release is a delivery
	broker       *memqueue.Broker
	store        *watchedStore
	net          *queuetest.Proxy // of the sender; the attacker listens there

	released atomic.Int64 // and counted

	mu        sync.Mutex // guards what follows
	random    *rand.Rand
	found     []string
	messages  []*modelMessage
	byID      map[string]*modelMessage
	processes []*process
}

type modelMessage struct {
	id, session string
	earlier     []*modelMessage // of its session
	succeeded   bool            // a handler returned nil
	settled     bool            // its completion was recorded, or it was to be dead-lettered
	handled     bool            // its completion was recorded, and with a replay store
	runs        uint64          // of its handler
	active      *handling
}

// handling is one run of a handler.
type handling struct {
	ctx   context.Context
	d     *queue.Delivery
	owner *process
}

// process is a client with a processor, and a network that can be cut.
type process struct {
	net     *queuetest.Proxy
	client  *queue.Client
	p       *worker.Pool
	done    chan error
	crashed atomic.Bool
	closed  atomic.Bool
}

func newModel(t *testing.T, seed uint64, p plant) *model {
	m := &model{
		t: t, plant: p, seed: seed,
		random: rand.New(rand.NewPCG(seed, 1)),
		broker: memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: modelLock, MaxDeliveries: -1}}),
		byID:   make(map[string]*modelMessage),
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	m.store = &watchedStore{Store: store, grantAll: p == doubleClaim, consumed: m.consumed}
	m.tracked = m.random.IntN(2) == 0
	m.bySession = m.random.IntN(2) == 0
	m.receiveBatch = []int{0, 1, 3}[m.random.IntN(3)]
	m.counts = m.random.IntN(2) == 0
	return m
}

func (m *model) wrong(format string, args ...any) {
	m.found = append(m.found, fmt.Sprintf(format, args...))
}

func (m *model) draw(n int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.random.IntN(n)
}

func (m *model) wait(d time.Duration) { <-time.After(d) }

func (m *model) run() {
	ctx := m.t.Context()
	for range 2 {
		m.start()
	}
	sessions := m.draw(4)
	last := map[string][]*modelMessage{}
	n := 4 + m.draw(8)
	sender := m.sender()
	for i := range n {
		msg := &modelMessage{id: fmt.Sprint("m", i)}
		if s := m.draw(sessions + 1); s > 0 || m.bySession {
			msg.session = fmt.Sprint("s", s)
			msg.earlier = slices.Clone(last[msg.session])
			last[msg.session] = append(last[msg.session], msg)
		}
		m.mu.Lock()
		m.messages = append(m.messages, msg)
		m.byID[msg.id] = msg
		m.mu.Unlock()
		if _, err := sender.Send(ctx, &queue.Message{ID: msg.id, SessionID: msg.session, Body: []byte("x")}); err != nil {
			m.t.Fatal(err)
		}
		for range m.draw(3) {
			m.disturb()
		}
		m.wait(time.Duration(m.draw(8000)) * time.Millisecond)
	}
	for range 3 {
		m.disturb()
		m.wait(time.Duration(m.draw(20000)) * time.Millisecond)
	}
	// From here on nothing goes wrong any more.
	m.mu.Lock()
	for _, p := range m.processes {
		if !p.crashed.Load() {
			p.net.Heal()
		}
	}
	m.mu.Unlock()
	m.start()
	m.settle()
	for _, p := range m.processes {
		p.end(m)
	}
	m.wait(5 * time.Minute) // for what comes too late
	m.verdict()
}

// settle waits until the queue is empty, for a day at most.
func (m *model) settle() {
	q, err := m.broker.Connect().Open(m.t.Context(), orders, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for range 24 * 60 {
		m.wait(time.Minute)
		s, err := q.Stats(m.t.Context())
		if err != nil {
			m.t.Fatal(err)
		}
		if s.Ready+s.InFlight+s.Scheduled == 0 {
			return
		}
	}
}

// disturb does one thing that may happen in life.
func (m *model) disturb() {
	m.mu.Lock()
	alive := make([]*process, 0, len(m.processes))
	for _, p := range m.processes {
		if !p.crashed.Load() && !p.closed.Load() {
			alive = append(alive, p)
		}
	}
	m.mu.Unlock()
	if len(alive) == 0 {
		m.start()
		return
	}
	p := alive[m.draw(len(alive))]
	switch m.draw(10) {
	case 0: // a crash: nothing that the process does reaches the broker any more
		p.crashed.Store(true)
		p.net.Inject(queuetest.Fault{Err: queuetest.Unavailable()})
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = p.p.Stop(over) // its error is that of over
		m.start()
	case 1: // a deploy
		go p.end(m)
		m.start()
	case 2: // the broker does not answer renewals for longer than a lock
		p.net.Inject(queuetest.Fault{On: queuetest.Renew, Err: queuetest.Unavailable(), Times: 20})
	case 3:
		p.net.Inject(queuetest.Fault{On: queuetest.Settle, LostAnswer: queuetest.Unavailable(), Times: 1 + m.draw(3)})
	case 4:
		p.net.Inject(queuetest.Fault{On: queuetest.Settle, Err: queuetest.Throttle(time.Second), Times: 1 + m.draw(3)})
	case 5:
		p.net.Inject(queuetest.Fault{On: queuetest.Receive, Err: queuetest.Unavailable(), Times: 1 + m.draw(8)})
	case 6:
		p.net.Inject(queuetest.Fault{On: queuetest.Receive, Delay: time.Duration(m.draw(3000)) * time.Millisecond, Times: 3})
	case 7:
		p.net.Inject(queuetest.Fault{On: queuetest.Receive, Reorder: true, Times: 5})
	case 8, 9: // the attacker repeats a message, where the order is not asked for
		for _, c := range m.net.Captured(orders) {
			if c.SessionID == "" && m.tracked && m.draw(3) == 0 {
				if err := m.net.Store(m.t.Context(), orders, c); err != nil {
					m.t.Fatal(err)
				}
			}
		}
	}
}

// start starts a process.
func (m *model) start() {
	p := &process{net: queuetest.Wrap(&planted{Broker: m.broker.Connect(), m: m}, m.seed), done: make(chan error, 1)}
	p.net.Broker.(*planted).owner = p
	var err error
	o := &queue.Options{
		Keys: newRing(m.t, "k1"), Logger: quiet(),
		Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: m.tracked, MaxMessageAge: 72 * time.Hour, RetryWindow: 72 * time.Hour},
	}
	if m.tracked {
		o.ReplayStore = m.store
	}
	p.client, err = queue.New(p.net, o)
	if err != nil {
		m.t.Fatal(err)
	}
	r, err := p.client.Receiver(m.t.Context(), orders, &queue.ReceiverOptions{Wait: 5 * time.Second, MaxDeliveries: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	p.p, err = worker.New(&worker.Options{Concurrency: 1 + m.draw(4), DrainTimeout: time.Duration(1+m.draw(30)) * time.Second})
	if err != nil {
		m.t.Fatal(err)
	}
	h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error { return m.handle(ctx, p, d) })
	err = p.p.Handle(r, h, &worker.HandleOptions{
		Sessions:      m.bySession,
		SessionTurn:   1 + m.draw(5),
		MaxProcessing: 5 * time.Minute,
		Retry:         backoff.Exponential{First: time.Second, Max: 20 * time.Second},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.mu.Lock()
	m.processes = append(m.processes, p)
	m.mu.Unlock()
	go func() {
		err := p.p.Run(context.WithoutCancel(m.t.Context()))
		p.done <- err
	}()
}

// sender sends from a process that nothing happens to.
func (m *model) sender() *queue.Sender {
	m.net = queuetest.Wrap(m.broker.Connect(), m.seed)
	c, err := queue.New(m.net, &queue.Options{Keys: newRing(m.t, "k1"), Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
	if err != nil {
		m.t.Fatal(err)
	}
	s, err := c.Sender(m.t.Context(), orders, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// end drains the process and closes it, once.
func (p *process) end(m *model) {
	if p.closed.Swap(true) {
		return
	}
	_ = p.p.Stop(context.Background())
	if err := <-p.done; err != nil && !errors.Is(err, worker.ErrHandlersRunning) && !p.crashed.Load() {
		m.t.Errorf("Run: %v", err)
	}
	if err := p.client.Close(context.Background()); err != nil && !p.crashed.Load() {
		m.t.Errorf("Close: %v", err)
	}
	p.net.Broker.(*planted).over.Store(true)
}

// handle is the handler: it checks what must hold when it is called, takes some
// time, and ends one way or another.
func (m *model) handle(ctx context.Context, owner *process, d *queue.Delivery) error {
	m.mu.Lock()
	msg := m.byID[d.ID]
	if msg == nil {
		m.wrong("a message %q that was not sent", d.ID)
		m.mu.Unlock()
		return nil
	}
	if m.tracked && msg.handled {
		m.wrong("%s: handled again after its handler succeeded", d.ID)
	}
	for _, e := range msg.earlier {
		if !e.settled {
			m.wrong("%s: handled before %s of its session was done", d.ID, e.id)
		}
	}
	if msg.session != "" {
		for _, other := range m.messages {
			if other.session != msg.session || other.active == nil {
				continue
			}
			a := other.active
			until := a.d.HeldUntil()
			if !a.owner.crashed.Load() && a.ctx.Err() == nil && time.Now().Before(until) {
				m.wrong("%s: handled while %s of its session is, under a lock until %s", d.ID, other.id, until)
			}
		}
	}
	run := &handling{ctx: ctx, d: d, owner: owner}
	msg.active = run
	msg.runs++
	runs := msg.runs
	m.mu.Unlock()
	// Drawn for this run, so that the order of goroutines changes nothing. A count of
	// deliveries would not do: Later does not raise it.
	random := rand.New(rand.NewPCG(m.seed, runs<<32|uint64(crc32.ChecksumIEEE([]byte(d.ID)))))
	takes := time.Duration(random.IntN(4000)) * time.Millisecond
	if random.IntN(4) == 0 {
		takes = time.Duration(random.IntN(60)) * time.Second // several locks
	}
	ends := random.IntN(20)
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if msg.active == run {
			msg.active = nil
		}
	}()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch ends {
	case 0, 1, 2:
		return errors.New("failed")
	case 3:
		return worker.RetryAfter(nil, takes/2)
	case 4:
		return worker.Later(nil, takes/2)
	case 5:
		panic("in the handler")
	case 6:
		m.mu.Lock()
		msg.settled = true // it will be dead-lettered, even if the handler's pool does not learn of it
		m.mu.Unlock()
		return worker.Permanent(nil, "bad")
	}
	m.mu.Lock()
	msg.succeeded = true
	if !m.tracked {
		msg.settled = true
	}
	m.mu.Unlock()
	return nil
}

// verdict checks what must hold at the end.
func (m *model) verdict() {
	dead, why, err := m.broker.Attacker().DeadLetters(m.t.Context(), orders)
	if err != nil {
		m.t.Fatal(err)
	}
	gone := map[string]string{}
	for i, d := range dead {
		gone[d.ID] = why[i].Reason
	}
	for _, msg := range m.messages {
		if !msg.succeeded && gone[msg.id] == "" {
			m.wrong("%s: neither handled to success nor dead-lettered", msg.id)
		}
		if r := gone[msg.id]; r != "" && r != "bad" && r != "nonce_reused" && r != "max_deliveries" {
			m.wrong("%s: dead-lettered with %q", msg.id, r)
		}
	}
	left, err := m.broker.Attacker().Read(m.t.Context(), orders)
	if err != nil {
		m.t.Fatal(err)
	}
	if len(left) > 0 {
		m.wrong("%d messages are left after a day", len(left))
	}
}

// consumed notes that the completion of an envelope was recorded.
func (m *model) consumed(id replay.Identity) {
	for _, c := range m.net.Captured(orders) {
		e, err := envelope.Parse(c.Body)
		if err != nil {
			m.t.Error(err)
			return
		}
		if (replay.Identity{Sender: e.Sender, Stream: e.Stream, Sequence: e.Sequence} == id) {
			m.mu.Lock()
			msg := m.byID[c.ID]
			msg.settled, msg.handled = true, true
			m.mu.Unlock()
			return
		}
	}
	m.t.Error("an envelope was consumed that was not sent")
}

// watchedStore tells of what is consumed.
type watchedStore struct {
	replay.Store
	grantAll bool // planted
	consumed func(replay.Identity)

	mu      sync.Mutex
	granted map[replay.Token]bool // claims that only the planted fault granted
}

func (s *watchedStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	claims, err := s.Store.Begin(ctx, group, r)
	if !s.grantAll {
		return claims, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range claims {
		if e := claims[i].Err; errors.Is(e, replay.ErrBusy) || errors.Is(e, replay.ErrReused) || errors.Is(e, replay.ErrDuplicate) {
			claims[i].Err = nil
			if s.granted == nil {
				s.granted = make(map[replay.Token]bool)
			}
			s.granted[r[i].Token] = true
		}
	}
	return claims, err
}

func (s *watchedStore) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	done, err := s.Store.Finish(ctx, group, f)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range done {
		switch {
		case s.granted[f[i].Token]:
			done[i].Err = nil
		case done[i].Err == nil && f[i].Kind == replay.Consumed:
			s.consumed(f[i].ID)
		}
	}
	return done, err
}

func (s *watchedStore) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	renewed, err := s.Store.Renew(ctx, group, l)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range renewed {
		if s.granted[l[i].Token] {
			renewed[i].Err = nil
		}
	}
	return renewed, err
}

// planted is the connection of one process to the broker, with the fault that is
// planted in it. It also sees calls that come after the process is over.
type planted struct {
	driver.Broker
	m     *model
	owner *process
	over  atomic.Bool
}

func (p *planted) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return &plantedQueue{Queue: q, plantedSource: plantedSource{Source: q, p: p, q: q}}, nil
}

type plantedSource struct {
	driver.Source
	p *planted
	q driver.Queue
}

func (s *plantedSource) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	if s.p.m.plant == renewalStops {
		results := make([]driver.RenewResult, len(d))
		for i := range results {
			results[i].LockedUntil = time.Now().Add(modelLock)
		}
		return results
	}
	return s.Source.Renew(ctx, d)
}

func (s *plantedSource) Settle(ctx context.Context, all []driver.Settlement) []error {
	m := s.p.m
	if s.p.over.Load() {
		m.mu.Lock()
		m.wrong("a settle after close")
		m.mu.Unlock()
	}
	if m.counts {
		all = counted(all, &m.released)
	}
	errs := make([]error, len(all))
	for i, x := range all {
		switch {
		case m.plant == settleAfter && x.Kind == driver.Complete:
			time.AfterFunc(20*time.Second, func() {
				s.Settle(context.WithoutCancel(ctx), []driver.Settlement{{Delivery: x.Delivery, Kind: driver.Abandon}})
			})
			errs[i] = s.Source.Settle(ctx, all[i:i+1])[0]
		case m.plant == overtakingRetry && x.Kind == driver.Abandon && x.Delay > 0:
			again := x.Delivery.Message
			again.NotBefore = time.Now().Add(x.Delay)
			if r := s.q.Send(ctx, []*driver.Message{&again}); r[0].Err != nil {
				errs[i] = r[0].Err
				continue
			}
			errs[i] = s.Source.Settle(ctx, []driver.Settlement{{Delivery: x.Delivery, Kind: driver.Complete}})[0]
		case m.plant == lostRelease && (x.Kind == driver.Abandon || x.Kind == driver.Release):
			errs[i] = s.Source.Settle(ctx, []driver.Settlement{{Delivery: x.Delivery, Kind: driver.Complete}})[0]
		default:
			errs[i] = s.Source.Settle(ctx, all[i:i+1])[0]
		}
	}
	return errs
}

type plantedQueue struct {
	driver.Queue
	plantedSource
}

func (q *plantedQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	c.ReceiveBatch, c.ReleaseUncounted = q.p.m.receiveBatch, !q.p.m.counts
	return c
}

func (q *plantedQueue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if n := q.p.m.receiveBatch; n > 0 {
		max = min(max, n)
	}
	return q.plantedSource.Receive(ctx, max, wait)
}

func (q *plantedQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	return q.plantedSource.Settle(ctx, all)
}

func (q *plantedQueue) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return q.plantedSource.Renew(ctx, d)
}

func (q *plantedQueue) AcceptSession(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
	s, err := q.Queue.AcceptSession(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	return &plantedSession{Session: s, plantedSource: plantedSource{Source: s, p: q.p, q: q.q}}, nil
}

type plantedSession struct {
	driver.Session
	plantedSource
}

func (s *plantedSession) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return s.plantedSource.Receive(ctx, max, wait)
}

func (s *plantedSession) Settle(ctx context.Context, all []driver.Settlement) []error {
	return s.plantedSource.Settle(ctx, all)
}

func (s *plantedSession) Renew(ctx context.Context, d []*driver.Delivery) []driver.RenewResult {
	return s.plantedSource.Renew(ctx, d)
}

func (s *plantedSession) RenewSession(ctx context.Context) (time.Time, error) {
	if s.p.m.plant == renewalStops {
		return time.Now().Add(modelLock), nil
	}
	return s.Session.RenewSession(ctx)
}
