package connect

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/testbed/faultproxy"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/postgres"
	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/worker"
)

var faultSeed = flag.Uint64("faults.seed", 0, "seed of the faults between clients and brokers (0: a new one)")

const (
	faultyQueue = "faulty"
	faultyLock  = 4 * time.Second
	faultEvery  = 25 // steps
	senders     = 4
	pace        = 10 * time.Millisecond // of a sender
	maxWaiting  = 100                   // of a session: SQS puts a retry off for a whole second, and what is behind it too
	manyTries   = 1000                  // deliveries: a fault must not use them up
)

// faultyBroker is a broker and the way to it that faults befall.
type faultyBroker struct {
	sessions bool // the queue has sessions
	lock     time.Duration
	connect  func() driver.Broker // behind faults
	clean    func() driver.Broker // past them
}

// How often something fails: once in so many steps. A connection takes many steps, of which
// connecting alone takes twenty.
const (
	everyCall  = 25
	everyChunk = 150
)

// TestFaults lets a sender and two workers do their work over a network, or a driver, that
// fails at random. Nothing is lost, nothing is handled twice, nothing that was refused is
// handled, sessions stay in order, every call ends in time, and no good message becomes a
// dead letter.
func TestFaults(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	seed := *faultSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	rounds, busy := 1, 3*time.Second
	if os.Getenv("QRT_SOAK") == "1" {
		rounds, busy = 20, 30*time.Second
	}
	for name, x := range map[string]struct {
		every int
		start func(*testing.T, *faultproxy.Faults) *faultyBroker
	}{
		"mem": {everyCall, faultyMemory}, "sqlite": {everyCall, faultySQLite}, "postgres": {everyChunk, faultyPostgres},
		"sb": {everyChunk, faultyServiceBus(false)}, "sb of sessions": {everyChunk, faultyServiceBus(true)},
		"sqs": {everyCall, faultySQS(false)}, "sqs fifo": {everyCall, faultySQS(true)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for round := range rounds {
				s := seed + uint64(round) //nolint:gosec // G115: not negative
				t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
					f := faultproxy.New(s, x.every)
					b := x.start(t, f)
					w := newFaultyWork(t, b, f)
					for _, problem := range w.do(busy) {
						t.Error(problem)
					}
					if t.Failed() {
						t.Log(w.log.String()[max(0, w.log.Len()-8000):])
					}
					t.Logf("%d messages, %d confirmed, %d unconfirmed, %d refused; faults: %s", len(w.sent), w.count(confirmed), w.count(unknown), w.count(refusedAll), f)
				})
			}
		})
	}
}

// planted is a broker with a fault of its own.
type planted struct {
	driver.Broker
	send func(driver.Queue, context.Context, []*driver.Message) []driver.SendResult
}

func (b planted) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return plantedQueue{q, b}, err
}

type plantedQueue struct {
	driver.Queue
	b planted
}

func (q plantedQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	return q.b.send(q.Queue, ctx, m)
}

// TestPlantedFaultsAreFound: the test above finds what it looks for.
func TestPlantedFaultsAreFound(t *testing.T) {
	now := func(m []*driver.Message) bool { return strings.HasSuffix(m[0].ID, "-7") } // once a sender
	var waits sync.Map                                                                // by session
	for what, x := range map[string]struct {
		send      func(driver.Queue, context.Context, []*driver.Message) []driver.SendResult
		noReplays bool
		want      string
	}{
		"a message that is confirmed and not stored": {send: func(q driver.Queue, ctx context.Context, m []*driver.Message) []driver.SendResult {
			if now(m) {
				return make([]driver.SendResult, len(m))
			}
			return q.Send(ctx, m)
		}, want: "is lost"},
		"a message that is stored and refused": {send: func(q driver.Queue, ctx context.Context, m []*driver.Message) []driver.SendResult {
			r := q.Send(ctx, m)
			if now(m) {
				r[0].Err = driver.Errorf(driver.Invalid, "refused")
			}
			return r
		}, want: "was told that it was not sent"},
		"a message that waits and is overtaken": {send: func(q driver.Queue, ctx context.Context, m []*driver.Message) []driver.SendResult {
			if now(m) {
				late := m[0].Clone()
				waits.Store(m[0].SessionID, &late)
				return make([]driver.SendResult, len(m))
			}
			r := q.Send(ctx, m)
			if r[0].Err != nil {
				return r
			}
			if late, ok := waits.LoadAndDelete(m[0].SessionID); ok { // the next of its session is there
				for range 20 {
					if q.Send(ctx, []*driver.Message{late.(*driver.Message)})[0].Err == nil {
						break
					}
				}
			}
			return r
		}, want: "in the order"},
		"answers that are lost, without a replay store": {send: func(q driver.Queue, ctx context.Context, m []*driver.Message) []driver.SendResult {
			return q.Send(ctx, m)
		}, noReplays: true, want: "was handled 2 times"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			f := faultproxy.New(1, everyCall/5)
			b := faultyMemory(t, f)
			connect := b.connect
			b.connect = func() driver.Broker { return planted{connect(), x.send} }
			w := newFaultyWork(t, b, f)
			w.patience, w.noReplays, w.least = 10*time.Second, x.noReplays, 20
			if problems := w.do(time.Second); !slices.ContainsFunc(problems, func(p string) bool { return strings.Contains(p, x.want) }) {
				t.Errorf("%d messages; found %q, want %q", len(w.sent), problems, x.want)
			}
		})
	}
}

func faultyMemory(t *testing.T, f *faultproxy.Faults) *faultyBroker {
	t.Helper()
	b := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{MaxDeliveries: manyTries}})
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return &faultyBroker{sessions: true, lock: faultyLock, clean: b.Connect, connect: func() driver.Broker { return faultproxy.NewBroker(b.Connect(), f) }}
}

func faultySQLite(t *testing.T, f *faultproxy.Faults) *faultyBroker {
	t.Helper()
	path := filepath.Join(t.TempDir(), "q.db")
	open := func() driver.Broker {
		b, err := sqlitequeue.Open(t.Context(), path, &sqlitequeue.Options{Default: sqlitequeue.QueueOptions{MaxDeliveries: manyTries}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	return &faultyBroker{sessions: true, lock: faultyLock, clean: open, connect: func() driver.Broker { return faultproxy.NewBroker(open(), f) }}
}

// overTCP starts a proxy in front of a server.
func overTCP(t *testing.T, server string, f *faultproxy.Faults, clock faultproxy.Clock) string {
	t.Helper()
	p, err := faultproxy.NewTCP(server, f, clock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p.Addr()
}

func faultyPostgres(t *testing.T, f *faultproxy.Faults) *faultyBroker {
	t.Helper()
	straight := postgres.Shared(t).URL("postgres", "postgres")
	u, err := url.Parse(straight)
	if err != nil {
		t.Fatal(err)
	}
	o := &postgresqueue.Options{Timeout: 3 * time.Second, Default: postgresqueue.QueueOptions{MaxDeliveries: manyTries}}
	schema := fmt.Sprintf("faults%d", rand.Uint32())
	open := func(to string) func() driver.Broker {
		return func() driver.Broker {
			var b driver.Broker
			persist(t, func() (err error) {
				b, err = postgresqueue.Open(t.Context(), to+"?sslmode=disable&schema="+schema, o)
				return err
			})
			return b
		}
	}
	open(straight)() // makes the schema
	u.Host = overTCP(t, u.Host, f, nil)
	return &faultyBroker{sessions: true, lock: faultyLock, clean: open(straight), connect: open(u.String())}
}

func faultyServiceBus(sessions bool) func(*testing.T, *faultproxy.Faults) *faultyBroker {
	return func(t *testing.T, f *faultproxy.Faults) *faultyBroker {
		t.Helper()
		s, err := sbemulator.Start(&sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{
			RequiresSession: sessions, LockDuration: faultyLock, MaxDeliveryCount: manyTries}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		proxy := overTCP(t, s.Addr().String(), f, faultproxy.ServiceBusClock)
		open := func(to string) func() driver.Broker {
			return func() driver.Broker {
				b, err := sbqueue.FromConnectionString(strings.Replace(s.ConnectionString(), s.Addr().String(), to, 1), &sbqueue.Options{
					Default: sbqueue.QueueOptions{Sessions: sessions, Lock: faultyLock, MaxDeliveries: manyTries}})
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
		}
		return &faultyBroker{sessions: sessions, clean: open(s.Addr().String()), connect: open(proxy)}
	}
}

// refusals are what SQS answers when it does not do something (SQS API Reference, common
// errors).
var refusals = []faultproxy.Answer{
	{Status: 503, Body: "unavailable"},
	{Status: 500, Header: map[string]string{"Content-Type": "application/x-amz-json-1.0"}, Body: `{"__type":"com.amazon.coral.service#InternalFailure","message":"internal"}`},
	{Status: 400, Header: map[string]string{"Content-Type": "application/x-amz-json-1.0"}, Body: `{"__type":"com.amazonaws.sqs#RequestThrottled","message":"slow down"}`},
	{Status: 403, Header: map[string]string{"Content-Type": "application/x-amz-json-1.0"}, Body: `{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"expired"}`},
}

func faultySQS(fifo bool) func(*testing.T, *faultproxy.Faults) *faultyBroker {
	return func(t *testing.T, f *faultproxy.Faults) *faultyBroker {
		t.Helper()
		server, err := fauxqs.Start(nil)
		if errors.Is(err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
		attributes := map[string]string{}
		suffix := ""
		if fifo {
			attributes["FifoQueue"], suffix = "true", ".fifo"
		}
		for _, name := range []string{faultyQueue, faultyQueue + "-dead"} {
			createQueue(t, server.URL(), name+suffix, attributes)
		}
		p, err := faultproxy.NewHTTP(server.URL(), f, refusals...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.Close() })
		open := func(endpoint string) func() driver.Broker {
			return func() driver.Broker {
				b, err := OpenBroker(t.Context(), "sqs://us-east-1/?dead_letter_suffix=-dead&poll=1s&endpoint="+endpoint)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
		}
		return &faultyBroker{sessions: fifo, lock: faultyLock, clean: open(server.URL()), connect: open(p.URL())}
	}
}

// persist repeats what may fail until it does not.
func persist(t *testing.T, do func() error) {
	t.Helper()
	var err error
	for range 30 {
		if err = do(); err == nil {
			return
		}
		var e *queue.Error
		var d *driver.Error
		if !(errors.As(err, &e) && e.Transient) && !(errors.As(err, &d) && d.Transient()) {
			break
		}
	}
	t.Fatal(err)
}

// fate is what a sender was told of a message.
type fate uint8

const (
	confirmed  fate = iota // the broker has it
	unknown                // the broker may have it
	refusedAll             // the broker does not have it
)

// faultyMessage is what became of a message.
type faultyMessage struct {
	id, session string
	name        string // of the session, also on a queue without sessions
	fate        fate
	handled     int
}

// faultyWork is one run.
type faultyWork struct {
	*testing.T
	b     *faultyBroker
	f     *faultproxy.Faults
	ring  *keys.Ring
	store replay.Store

	mu    sync.Mutex // guards what follows
	of    map[string]*faultyMessage
	order map[string][]string // of each session, as it was handled
	sent  []*faultyMessage
	log   strings.Builder

	problems []string

	patience  time.Duration // with what must happen once the faults are over
	noReplays bool          // there is no replay store
	least     int           // messages that a sender sends, and one more, whatever time it takes
}

func (w *faultyWork) complain(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

func newFaultyWork(t *testing.T, b *faultyBroker, f *faultproxy.Faults) *faultyWork {
	t.Helper()
	key, err := keys.Generate("k1", nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &faultyWork{T: t, b: b, f: f, patience: 90 * time.Second, ring: ring, store: store,
		of: make(map[string]*faultyMessage), order: make(map[string][]string)}
}

// client returns a process.
func (w *faultyWork) client(b driver.Broker) *queue.Client {
	w.Helper()
	o := queue.Strict(w.ring, w.store)
	o.Crypto.MaxMessageAge = time.Hour
	if w.noReplays {
		o.Crypto.TrackReplays, o.ReplayStore = false, nil
	}
	o.Logger = slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
	c, err := queue.New(b, o)
	if err != nil {
		w.Fatal(err)
	}
	return c
}

// Write keeps the log, which is shown if something is wrong.
func (w *faultyWork) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *faultyWork) count(f fate) (n int) {
	for _, m := range w.sent {
		if m.fate == f {
			n++
		}
	}
	return n
}

// Each call ends by itself in that time: a few attempts of some seconds each.
const (
	longestSend  = 40 * time.Second
	longestClose = 30 * time.Second
	longestRun   = 30 * time.Second // of a pool that is stopped
)

// inTime calls do and complains if it takes too long.
func (w *faultyWork) inTime(what string, limit time.Duration, do func()) {
	w.Helper()
	begin := time.Now()
	do()
	if took := time.Since(begin); took > limit {
		w.complain("%s took %s, want less than %s", what, took, limit)
	}
}

// do does the work, and returns what is wrong with it.
func (w *faultyWork) do(busy time.Duration) []string {
	w.Helper()
	sending := w.client(w.b.connect())
	var pools []func()
	for range 2 {
		pools = append(pools, w.work())
	}
	w.send(sending, time.Now().Add(busy))
	w.f.Calm()
	w.wait("every confirmed message is handled", func() bool {
		for _, m := range w.sent {
			if m.fate == confirmed && w.of[m.id].handled == 0 {
				return false
			}
		}
		return true
	})
	for _, stop := range pools {
		stop()
	}
	w.inTime("Client.Close", longestClose, func() { _ = sending.Close(context.Background()) })
	w.judge()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problems
}

// send sends until a time, and more than w.least messages: as several senders, each with sessions of its own.
func (w *faultyWork) send(c *queue.Client, until time.Time) {
	w.Helper()
	var s *queue.Sender
	persist(w.T, func() (err error) {
		s, err = c.Sender(w.Context(), faultyQueue, nil)
		return err
	})
	var all sync.WaitGroup
	for i := range senders {
		all.Go(func() {
			pace := time.NewTicker(pace)
			defer pace.Stop()
			for n := 0; n <= w.least || time.Now().Before(until); <-pace.C {
				if session := fmt.Sprintf("s%d-%d", i, n%2); w.waiting(session) < maxWaiting {
					w.sendOne(s, fmt.Sprintf("m%d-%d", i, n), session)
					n++
				}
			}
		})
	}
	all.Wait()
}

// waiting counts the messages of a session that are to be handled.
func (w *faultyWork) waiting(session string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.sent {
		if m.name == session && m.fate == confirmed && m.handled == 0 {
			n++
		}
	}
	return n
}

// sendOne sends a message and notes what its sender was told.
func (w *faultyWork) sendOne(s *queue.Sender, id, session string) {
	m := &faultyMessage{id: id, name: session, fate: unknown}
	if w.b.sessions {
		m.session = session
	}
	w.mu.Lock()
	w.of[id] = m
	w.sent = append(w.sent, m)
	w.mu.Unlock()
	var err error
	w.inTime("Send", longestSend, func() {
		_, err = s.Send(w.Context(), &queue.Message{ID: id, SessionID: m.session, Body: []byte("x")})
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		m.fate = confirmed
	case !errors.Is(err, queue.ErrUnconfirmed):
		m.fate = refusedAll
	}
}

// work starts a process that handles messages, and returns what stops it.
func (w *faultyWork) work() (stop func()) {
	w.Helper()
	c := w.client(w.b.connect())
	var r *queue.Receiver
	persist(w.T, func() (err error) {
		r, err = c.Receiver(w.Context(), faultyQueue, &queue.ReceiverOptions{Wait: time.Second, Lock: w.b.lock, MaxDeliveries: manyTries})
		return err
	})
	p, err := worker.New(&worker.Options{Concurrency: 4})
	if err != nil {
		w.Fatal(err)
	}
	err = p.Handle(r, worker.HandlerFunc(w.handle), &worker.HandleOptions{Sessions: w.b.sessions, Retry: backoff.Fixed(100 * time.Millisecond), SessionIdle: 200 * time.Millisecond})
	if err != nil {
		w.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(context.WithoutCancel(w.Context())) }()
	return func() {
		w.inTime("Pool.Stop", longestRun, func() { _ = p.Stop(context.Background()) })
		if err := <-done; err != nil {
			w.complain("Run: %v", err)
		}
		w.inTime("Client.Close", longestClose, func() { _ = c.Close(context.Background()) })
	}
}

// handle takes up to 30 ms, and fails now and then.
func (w *faultyWork) handle(ctx context.Context, d *queue.Delivery) error {
	timer := time.NewTimer(time.Duration(rand.IntN(30)) * time.Millisecond) //nolint:gosec // G404: not a secret
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if rand.IntN(10) == 0 { //nolint:gosec // G404: not a secret
		return errors.New("once more")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	m := w.of[d.ID]
	if m == nil {
		return fmt.Errorf("message %q was never sent", d.ID) // and so it is left
	}
	m.handled++
	w.order[m.session] = append(w.order[m.session], m.id)
	return nil
}

// wait waits for what must happen once the faults are over.
func (w *faultyWork) wait(what string, ok func() bool) {
	w.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	over := time.After(w.patience)
	for {
		w.mu.Lock()
		done := ok()
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-over:
			w.complain("after %s it is not so that %s", w.patience, what)
			return
		}
	}
}

// judge compares what was handled with what was sent.
func (w *faultyWork) judge() {
	w.Helper()
	place := make(map[string]int)
	for i, m := range w.sent {
		place[m.id] = i
		switch {
		case m.handled > 1:
			w.complain("message %s was handled %d times", m.id, m.handled)
		case m.handled > 0 && m.fate == refusedAll:
			w.complain("message %s was handled, and its sender was told that it was not sent", m.id)
		case m.handled == 0 && m.fate == confirmed:
			w.complain("message %s is lost", m.id)
		}
	}
	if w.b.sessions {
		for session, ids := range w.order {
			ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return w.of[id].fate != confirmed })
			if !slices.IsSortedFunc(ids, func(a, b string) int { return place[a] - place[b] }) {
				w.complain("session %s was handled in the order %v", session, ids)
			}
		}
	}
	c := w.client(w.b.clean())
	defer func() { _ = c.Close(context.Background()) }()
	dead, err := deadletter.Open(w.Context(), c, faultyQueue, nil)
	if err != nil {
		w.complain("%v", err)
		return
	}
	for l, err := range dead.All(w.Context(), nil) {
		if err != nil {
			w.complain("%v", err)
			return
		}
		w.complain("message %s is a dead letter: %s, %s", l.ID, l.DeadLetter.Reason, l.Detail)
	}
}
