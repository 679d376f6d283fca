package sbqueue_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/worker"
)

// far is a namespace with messages, behind a round trip, and a client of it.
func far(t *testing.T, messages int) (*namespace, *queue.Client) {
	t.Helper()
	n := start(t, inMemory(), sbemulator.QueueOptions{LockDuration: time.Minute})
	q := n.open(t)
	for i := 0; i < messages; i += 500 {
		batch := make([]*driver.Message, min(500, messages-i))
		for k := range batch {
			batch[k] = &driver.Message{ID: fmt.Sprint(i + k)}
		}
		send(t, q, batch...)
	}
	r := n.relayed(t, nil)
	r.setDelay(oneWay)
	c, err := queue.New(r.broker(t, n, nil), &queue.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return n, c
}

func receivers(t *testing.T, c *queue.Client, n int) []*queue.Receiver {
	t.Helper()
	all := make([]*queue.Receiver, n)
	for i := range all {
		var err error
		if all[i], err = c.Receiver(t.Context(), "q", &queue.ReceiverOptions{Wait: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// handled is how many messages a second a pool with 32 slots for each of sideways receivers
// handles by so many, once its links are connected.
func handled(t *testing.T, receiving int) (rate float64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		const messages, before = 6_000, 3_000 // beside which a few round trips count little
		n, c := far(t, messages)
		p, err := worker.New(&worker.Options{Concurrency: 32 * sideways})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var count atomic.Int64
		var began, took time.Duration
		begin := time.Now()
		h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
			switch count.Add(1) {
			case before:
				began = time.Since(begin)
			case messages:
				took = time.Since(begin) - began
				stop()
			}
			return nil
		})
		for _, r := range receivers(t, c, receiving) {
			if err := p.Handle(r, h, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if st, err := n.Stats("q"); err != nil || st.Active+st.Locked > 0 {
			t.Errorf("left: %+v, %v", st, err)
		}
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
		t.Logf("began after %s", began)
		rate = float64(messages-before) / took.Seconds()
	})
	return rate
}

// shared has so many goroutines receive and complete n messages one by one over one Receiver,
// and returns how many a second.
func shared(t *testing.T, r *queue.Receiver, goroutines, n int) float64 {
	t.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	begin := time.Now()
	var running sync.WaitGroup
	for range goroutines {
		running.Go(func() {
			for left.Add(-1) >= 0 {
				d, err := r.ReceiveOne(t.Context())
				if err == nil {
					err = d.Complete(t.Context())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	return float64(n) / time.Since(begin).Seconds()
}

// Time is that of a bubble, in which a message costs round trips alone.
const (
	oneWay   = 20 * time.Millisecond // half of a round trip
	sideways = 8                     // receivers that are compared with one
	sharing  = 16                    // goroutines that are
)

// Over a round trip of 40 ms one Receiver is as fast as eight: it has as many links as its
// slots need.
func TestOneReceiverIsAsFastAsEight(t *testing.T) {
	many, one := handled(t, sideways), handled(t, 1)
	t.Logf("messages a second: %.0f by %d receivers, %.0f by one", many, sideways, one)
	if ratio := one / many; ratio < 0.9 {
		t.Errorf("one Receiver has %.2f of the rate of %d, want at least 0.9", ratio, sideways)
	}
}

// 16 goroutines that share a Receiver get 16 times as much as one alone.
func TestSharedReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := far(t, 4000)
		r := receivers(t, c, 1)[0]
		shared(t, r, sharing, 50*sharing) // until all links are connected
		one, all := shared(t, r, 1, 20), shared(t, r, sharing, 30*sharing)
		t.Logf("messages a second: %.1f by one goroutine, %.1f by %d", one, all, sharing)
		if ratio := all / one / sharing; ratio < 0.9 {
			t.Errorf("%d goroutines have %.2f of the rate of as many apart, want at least 0.9", sharing, ratio)
		}
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}
