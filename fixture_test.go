package queue_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// fixture is a broker, its keys and a client, inside a synctest bubble.
type fixture struct {
	*testing.T
	broker   *memqueue.Broker
	ring     *keys.Ring
	store    replay.Store
	client   *queue.Client
	log      *bytes.Buffer
	logger   *slog.Logger
	rejected []*queue.RejectedError
}

const orders = "orders"

// newKey returns a key whose bytes are all fill.
func newKey(t testing.TB, id keys.ID, fill byte) *keys.Key {
	t.Helper()
	k, err := keys.New(id, bytes.Repeat([]byte{fill}, keys.Size), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRing(t testing.TB, ids ...keys.ID) *keys.Ring {
	t.Helper()
	ring, err := keys.NewRing()
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		if err := ring.Add(newKey(t, id, byte(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) > 0 {
		if err := ring.SetCurrent(ids[0]); err != nil {
			t.Fatal(err)
		}
	}
	return ring
}

// inBubble runs f with a fixture whose options change has changed.
func inBubble(t *testing.T, change func(*fixture, *queue.Options), f func(*fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &fixture{T: t, log: &bytes.Buffer{}}
		x.broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: 30 * time.Second, MaxDeliveries: -1}})
		x.ring = newRing(t, "k1")
		x.logger = slog.New(slog.NewJSONHandler(x.log, nil))
		store, err := replay.NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		x.store = store
		o := &queue.Options{
			Keys:        x.ring,
			ReplayStore: x.store,
			Crypto:      queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, TrackReplays: true},
			Logger:      x.logger,
			OnRejected: func(_ context.Context, e *queue.RejectedError) {
				x.rejected = append(x.rejected, e)
			},
		}
		if change != nil {
			change(x, o)
		}
		if !o.Crypto.TrackReplays {
			o.ReplayStore = nil
		}
		if x.client, err = queue.New(x.broker, o); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := x.client.Close(context.Background()); err != nil {
				t.Errorf("Close: %v", err)
			}
		}()
		f(x)
	})
}

// newBroker returns a broker that delivers a message at most so often; -1 means without
// limit.
func newBroker(deliveries int) *memqueue.Broker {
	return memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: 30 * time.Second, MaxDeliveries: deliveries}})
}

func (x *fixture) sender(name string) *queue.Sender {
	x.Helper()
	s, err := x.client.Sender(x.Context(), name, nil)
	if err != nil {
		x.Fatal(err)
	}
	return s
}

func (x *fixture) receiver(name string, o *queue.ReceiverOptions) *queue.Receiver {
	x.Helper()
	if o == nil {
		o = &queue.ReceiverOptions{Wait: time.Second}
	}
	r, err := x.client.Receiver(x.Context(), name, o)
	if err != nil {
		x.Fatal(err)
	}
	return r
}

func (x *fixture) send(m *queue.Message) {
	x.Helper()
	if _, err := x.sender(orders).Send(x.Context(), m); err != nil {
		x.Fatal(err)
	}
}

// one receives one message, which must be good.
func (x *fixture) one(r *queue.Receiver) *queue.Delivery {
	x.Helper()
	d, err := r.ReceiveOne(x.Context())
	if err != nil {
		x.Fatalf("ReceiveOne: %v", err)
	}
	return d
}

// none receives one message, which must be rejected with that error, or absent
// where want is ErrNoMessage.
func (x *fixture) none(r *queue.Receiver, want error) *queue.RejectedError {
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

func (x *fixture) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// rewrite lets the attacker change what is stored.
func (x *fixture) rewrite(name string, f func([]driver.Message) []driver.Message) {
	x.Helper()
	x.must(x.broker.Attacker().Rewrite(x.Context(), name, f))
}

// stored is what the attacker sees waiting.
func (x *fixture) stored(name string) []driver.Message {
	x.Helper()
	m, err := x.broker.Attacker().Read(x.Context(), name)
	x.must(err)
	return m
}

// deadReasons are the reasons of the dead letters, in order.
func (x *fixture) deadReasons(name string) []string {
	x.Helper()
	_, why, err := x.broker.Attacker().DeadLetters(x.Context(), name)
	x.must(err)
	reasons := make([]string, len(why))
	for i, w := range why {
		reasons[i] = w.Reason
	}
	return reasons
}

// steal is the copy that the attacker takes of the only waiting message.
func (x *fixture) steal() driver.Message {
	x.Helper()
	m := x.stored(orders)
	if len(m) != 1 {
		x.Fatalf("%d messages are waiting, want 1", len(m))
	}
	return m[0]
}

// inject puts a message into the broker's storage.
func (x *fixture) inject(name string, m driver.Message) {
	x.Helper()
	x.rewrite(name, func(all []driver.Message) []driver.Message { return append(all, m) })
}

// wait lets time pass in the bubble.
func (x *fixture) wait(d time.Duration) {
	x.Helper()
	select {
	case <-time.After(d):
	case <-x.Context().Done():
		x.Fatal("the test ended")
	}
	synctest.Wait() // what was due by then has happened
}

// prove has a message opened under the current key: what fails under it from now on is
// forged. The queue must be empty.
func (x *fixture) prove(r *queue.Receiver) {
	x.Helper()
	x.send(&queue.Message{ID: "proof", Body: []byte("proof")})
	x.must(x.one(r).Complete(x.Context()))
}
