// Package fixturetest has what the tests of packages queue, worker and deadletter set up
// alike: a broker in memory, its keys, a replay store and a client, in a bubble of
// testing/synctest, with the steps of senders, receivers and an attacker at the broker.
//
// A method that cannot do its step ends the test.
package fixturetest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/drbg"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// Orders is the queue of most tests.
const Orders = "orders"

// Main is TestMain for packages with such tests. It supplies bubbles with random numbers
// under FIPS 140-3, where the generator seeds itself by measuring time.
func Main(m *testing.M) {
	drbg.Prime()
	os.Exit(m.Run())
}

// Processors has the test run on n processors until it ends. It empties the generator's pool
// under FIPS 140-3, which is therefore filled anew.
func Processors(t testing.TB, n int) {
	t.Helper()
	before := runtime.GOMAXPROCS(n)
	drbg.Prime()
	t.Cleanup(func() {
		runtime.GOMAXPROCS(before)
		drbg.Prime()
	})
}

// Soak is how much of a long proof to run: full with QRT_SOAK=1 (make soak), else normal.
func Soak(normal, full int) int {
	if os.Getenv("QRT_SOAK") == "1" {
		return full
	}
	return normal
}

// Quiet is a logger that drops everything.
func Quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// NewKey returns a key whose bytes are all fill.
func NewKey(t testing.TB, id keys.ID, fill byte) *keys.Key {
	t.Helper()
	k, err := keys.New(id, bytes.Repeat([]byte{fill}, keys.Size), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// NewRing returns a ring of keys with these IDs, filled with 1, 2 and so on. The first is
// current.
func NewRing(t testing.TB, ids ...keys.ID) *keys.Ring {
	t.Helper()
	all := make([]*keys.Key, len(ids))
	for i, id := range ids {
		all[i] = NewKey(t, id, byte(i+1))
	}
	ring, err := keys.NewRing(all...)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// NewBroker returns a broker whose locks last 30 s, and that delivers a message at most so
// often; -1 means without limit.
func NewBroker(deliveries int) *memqueue.Broker {
	return memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: 30 * time.Second, MaxDeliveries: deliveries}})
}

// Log is what was logged. It may be read while more is written.
type Log struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

// Write appends a line.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns all lines since Reset.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Len is the length of String.
func (l *Log) Len() int { return len(l.String()) }

// Reset forgets all lines.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
}

// Fixture is a broker, its keys and a client, inside a bubble.
type Fixture struct {
	*testing.T
	Broker *memqueue.Broker
	Ring   *keys.Ring
	Store  replay.Store
	Client *queue.Client
	Log    *Log
	Logger *slog.Logger // writes to Log

	// Rejected are the messages that OnRejected was called for. Read it when no
	// receiver runs.
	Rejected []*queue.RejectedError

	mu sync.Mutex // guards Rejected while receivers run
}

// Run runs f in a bubble with what wrap makes of a Fixture: a package's own type with
// further methods. change, which may be nil, changes the fixture and its options before
// the client is made: sealing on, plaintext rejected, replays tracked.
func Run[F any](t *testing.T, wrap func(*Fixture) F, change func(F, *queue.Options), f func(F)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &Fixture{T: t, Log: &Log{}, Broker: NewBroker(-1), Ring: NewRing(t, "k1")}
		x.Logger = slog.New(slog.NewJSONHandler(x.Log, nil))
		store, err := replay.NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		x.Store = store
		o := &queue.Options{
			Keys:        x.Ring,
			ReplayStore: x.Store,
			Crypto:      queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true},
			Logger:      x.Logger,
			OnRejected: func(_ context.Context, e *queue.RejectedError) {
				x.mu.Lock()
				defer x.mu.Unlock()
				x.Rejected = append(x.Rejected, e)
			},
		}
		wrapped := wrap(x)
		if change != nil {
			change(wrapped, o)
		}
		if !o.Crypto.TrackReplays {
			o.ReplayStore = nil
		}
		if x.Client, err = queue.New(x.Broker, o); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := x.Client.Close(context.Background()); err != nil {
				t.Errorf("Close: %v", err)
			}
		}()
		f(wrapped)
	})
}

// Must ends the test unless err is nil.
func (x *Fixture) Must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// Sender opens a queue for sending.
func (x *Fixture) Sender(name string) *queue.Sender {
	x.Helper()
	s, err := x.Client.Sender(x.Context(), name, nil)
	x.Must(err)
	return s
}

// Receiver opens a queue for receiving. Nil options mean a Wait of a second.
func (x *Fixture) Receiver(name string, o *queue.ReceiverOptions) *queue.Receiver {
	x.Helper()
	if o == nil {
		o = &queue.ReceiverOptions{Wait: time.Second}
	}
	r, err := x.Client.Receiver(x.Context(), name, o)
	x.Must(err)
	return r
}

// Send sends m to Orders.
func (x *Fixture) Send(m *queue.Message) {
	x.Helper()
	_, err := x.Sender(Orders).Send(x.Context(), m)
	x.Must(err)
}

// One receives one message, which must be good.
func (x *Fixture) One(r *queue.Receiver) *queue.Delivery {
	x.Helper()
	d, err := r.ReceiveOne(x.Context())
	if err != nil {
		x.Fatalf("ReceiveOne: %v", err)
	}
	return d
}

// Some returns the messages of a Receive. There may be none, and then its error must be
// ErrNoMessage, or one of others.
func (x *Fixture) Some(all []*queue.Delivery, err error, others ...error) []*queue.Delivery {
	x.Helper()
	if len(all) > 0 {
		x.Must(err)
		return all
	}
	if !slices.ContainsFunc(append(others, queue.ErrNoMessage), func(e error) bool { return errors.Is(err, e) }) {
		x.Fatalf("Receive = no messages, %v; want ErrNoMessage", err)
	}
	return nil
}

// Nothing fails the test unless a Receive brought no message and says so, as for Some.
func (x *Fixture) Nothing(all []*queue.Delivery, err error, others ...error) {
	x.Helper()
	if len(x.Some(all, err, others...)) > 0 {
		x.Fatalf("Receive = %d messages, want none", len(all))
	}
}

// None receives one message, which must be rejected with that error, or absent if want is
// ErrNoMessage.
func (x *Fixture) None(r *queue.Receiver, want error) *queue.RejectedError {
	x.Helper()
	d, err := r.ReceiveOne(x.Context())
	if !errors.Is(err, want) {
		x.Fatalf("ReceiveOne = %v, %v; want %v", d, err, want)
	}
	var rejected *queue.RejectedError
	if errors.As(err, &rejected) && rejected.SettleErr != nil {
		x.Fatalf("settling: %v", rejected.SettleErr)
	}
	return rejected
}

// Prove has a message opened under the current key: what fails under it from now on is
// forged. The queue must be empty.
func (x *Fixture) Prove(r *queue.Receiver) {
	x.Helper()
	x.Send(&queue.Message{ID: "proof", Body: []byte("proof")})
	x.Must(x.One(r).Complete(x.Context()))
}

// Pass lets time pass in the bubble. Handlers may call it, too.
func (x *Fixture) Pass(d time.Duration) {
	x.Helper()
	select {
	case <-time.After(d):
	case <-x.Context().Done():
		x.Fatal("the test ended")
	}
}

// Wait lets time pass until what was due by then has happened. One goroutine of the
// bubble may call it at a time.
func (x *Fixture) Wait(d time.Duration) {
	x.Helper()
	x.Pass(d)
	synctest.Wait()
}

// Rewrite lets the attacker change what is stored.
func (x *Fixture) Rewrite(name string, f func([]driver.Message) []driver.Message) {
	x.Helper()
	x.Must(x.Broker.Attacker().Rewrite(x.Context(), name, f))
}

// Stored is what the attacker sees waiting.
func (x *Fixture) Stored(name string) []driver.Message {
	x.Helper()
	m, err := x.Broker.Attacker().Read(x.Context(), name)
	x.Must(err)
	return m
}

// Steal is the copy that the attacker takes of the only waiting message of Orders.
func (x *Fixture) Steal() driver.Message {
	x.Helper()
	m := x.Stored(Orders)
	if len(m) != 1 {
		x.Fatalf("%d messages are waiting, want 1", len(m))
	}
	return m[0]
}

// Inject puts a message into the broker's storage.
func (x *Fixture) Inject(name string, m driver.Message) {
	x.Helper()
	x.Rewrite(name, func(all []driver.Message) []driver.Message { return append(all, m) })
}

// DeadReasons are the reasons of the dead letters, in order.
func (x *Fixture) DeadReasons(name string) []string {
	x.Helper()
	_, why, err := x.Broker.Attacker().DeadLetters(x.Context(), name)
	x.Must(err)
	reasons := make([]string, len(why))
	for i, w := range why {
		reasons[i] = w.Reason
	}
	return reasons
}
