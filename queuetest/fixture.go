package queuetest

import (
	"context"
	"log/slog"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// TB is what New and NewDelivery need of a *testing.T.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Options configure a [Fixture].
type Options struct {
	// Queues configure the broker in memory. Nil means the default, with messages
	// kept for a day.
	Queues *memqueue.Options
	// Client changes the Client's options before it is made. Nil means
	// queue.Strict with a fresh key and replay store, and no log.
	Client func(*queue.Options)
	// Seed is for faults with a Rate. 0 is a seed like any other.
	Seed uint64
}

// Fixture is a client over a broker in memory, as an application's test wants
// it.
type Fixture struct {
	*queue.Client
	Broker      *Proxy
	Memory      *memqueue.Broker // the broker behind
	Keys        *keys.Ring       // one key, "test"
	ReplayStore replay.Store

	t TB
}

// New returns a Fixture whose client is closed at the end of the test. o may be
// nil.
func New(t TB, o *Options) *Fixture {
	t.Helper()
	if o == nil {
		o = &Options{}
	}
	queues := o.Queues
	if queues == nil {
		queues = &memqueue.Options{Default: memqueue.QueueOptions{Retention: 24 * time.Hour}}
	}
	key, err := keys.Generate("test", nil)
	if err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	store, err := replay.NewMemory(nil)
	if err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	f := &Fixture{Memory: memqueue.New(queues), Keys: ring, ReplayStore: store, t: t}
	f.Broker = Wrap(f.Memory, o.Seed)
	options := queue.Strict(ring, store)
	options.Logger = slog.New(slog.DiscardHandler)
	if o.Client != nil {
		o.Client(options)
	}
	if f.Client, err = queue.New(f.Broker, options); err != nil {
		t.Fatalf("queuetest: %v", err)
	}
	t.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			t.Errorf("queuetest: closing the client: %v", err)
		}
	})
	return f
}

// Waiting returns the messages of a queue, opened, in order, held and scheduled
// ones included; they stay. A message that does not open has its Err set.
func (f *Fixture) Waiting(ctx context.Context, name string) []*queue.Peeked {
	f.t.Helper()
	r, err := f.Receiver(ctx, name, nil)
	if err != nil {
		f.t.Fatalf("queuetest: %v", err)
	}
	defer func() { _ = r.Close(ctx) }()
	var all []*queue.Peeked
	for cursor := ""; ; {
		some, next, err := r.Peek(ctx, cursor, 100)
		if err != nil {
			f.t.Fatalf("queuetest: %v", err)
		}
		all = append(all, some...)
		if next == "" {
			return all
		}
		cursor = next
	}
}

// DeadLettered returns the dead letters of a queue, opened, in order; they stay.
func (f *Fixture) DeadLettered(ctx context.Context, name string) []*deadletter.Letter {
	f.t.Helper()
	d, err := deadletter.Open(ctx, f.Client, name, nil)
	if err != nil {
		f.t.Fatalf("queuetest: %v", err)
	}
	defer func() { _ = d.Close(ctx) }()
	var all []*deadletter.Letter
	for p, err := range d.All(ctx, nil) {
		if err != nil {
			f.t.Fatalf("queuetest: %v", err)
		}
		all = append(all, p)
	}
	return all
}
