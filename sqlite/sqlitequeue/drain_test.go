package sqlitequeue_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/worker"
)

// Drains under full load, a thousand with QRT_SOAK=1: every message is handled or
// still there, none twice, and nothing is settled after Run has returned.
func TestDrainUnderLoad(t *testing.T) {
	t.Parallel()
	const each = 12
	rounds := soak(10, 1000)
	ctx := t.Context()
	broker, err := sqlitequeue.Open(ctx, filepath.Join(t.TempDir(), "drain.db"), &sqlitequeue.Options{
		Synchronous: sqlitequeue.Normal,
		Default:     sqlitequeue.QueueOptions{MaxDeliveries: 10_000}, // each release counts as a delivery
	})
	if err != nil {
		t.Fatal(err)
	}
	audit := &auditor{Broker: broker}
	key, err := keys.New("k1", bytes.Repeat([]byte{1}, keys.Size), nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	client, err := queue.New(audit, &queue.Options{Keys: ring, Logger: slog.New(slog.DiscardHandler), Crypto: queue.CryptoConfig{Enabled: true, MaxMessageAge: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close(context.Background()) }()
	s, err := client.Sender(ctx, "load", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.Receiver(ctx, "load", nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	handled := map[string]int{}
	sent := 0
	for round := range rounds {
		batch := make([]*queue.Message, each)
		for i := range batch {
			batch[i] = &queue.Message{Body: []byte("x")}
		}
		if _, err := s.SendBatch(ctx, batch); err != nil {
			t.Fatal(err)
		}
		sent += each
		p, err := worker.New(&worker.Options{Concurrency: 1 + round%8, DrainTimeout: time.Duration(round%20+1) * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		rctx, cancel := context.WithCancel(ctx)
		var n atomic.Int64
		stopAt := int64(round % (each + 1))
		h := worker.HandlerFunc(func(ctx context.Context, d *queue.Delivery) error {
			if n.Add(1) >= stopAt {
				cancel() // in the middle of the load
			}
			if d.ID[0]%16 == 0 { // some are still at it when the drain is over
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			handled[d.ID]++
			return nil
		})
		if err := p.Handle(r, h, nil); err != nil {
			t.Fatal(err)
		}
		audit.over.Store(false)
		err = p.Run(rctx)
		cancel()
		audit.over.Store(true)
		if err != nil {
			t.Fatalf("round %d: Run = %v", round, err)
		}
	}
	audit.over.Store(false)
	left := 0
	for {
		batch, err := r.Receive(ctx, 100)
		if err != nil && !errors.Is(err, queue.ErrNoMessage) {
			t.Fatal(err)
		}
		for _, d := range batch {
			if err := d.Complete(ctx); err != nil {
				t.Fatal(err)
			}
		}
		left += len(batch)
		if stats, err := r.Stats(ctx); err != nil {
			t.Fatal(err)
		} else if stats.Ready+stats.InFlight+stats.Scheduled == 0 {
			break
		}
	}
	for id, n := range handled {
		if n != 1 {
			t.Errorf("message %s was handled %d times", id, n)
		}
	}
	if len(handled)+left != sent {
		t.Errorf("%d handled and %d left of %d", len(handled), left, sent)
	}
	if n := audit.late.Load(); n > 0 {
		t.Errorf("%d settles after Run had returned", n)
	}
	t.Logf("%d drains, %d messages handled meanwhile", rounds, len(handled))
	if err := errors.Join(r.Close(ctx), s.Close(ctx)); err != nil {
		t.Error(err)
	}
}

// auditor counts the settlements that come after every pool has stopped.
type auditor struct {
	driver.Broker
	over atomic.Bool
	late atomic.Int64
}

func (a *auditor) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := a.Broker.Open(ctx, name, o)
	return &auditedQueue{q, a}, err
}

type auditedQueue struct {
	driver.Queue
	a *auditor
}

func (q *auditedQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	if q.a.over.Load() {
		q.a.late.Add(1)
	}
	return q.Queue.Settle(ctx, all)
}
