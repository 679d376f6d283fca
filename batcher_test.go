package queue_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
)

// batching returns a Batcher over a broker whose Send is intercepted.
func (x *fixture) batching(o *queue.BatcherOptions, send func([]*driver.Message) []driver.SendResult) *queue.Batcher {
	x.Helper()
	c, err := queue.New(&fixturetest.FaultyBroker{Broker: x.Broker, OnSend: send}, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
	x.Must(err)
	s, err := c.Sender(x.Context(), orders, nil)
	x.Must(err)
	b, err := queue.NewBatcher(s, o)
	x.Must(err)
	return b
}

// Messages that come while a call is under way share the next ones, without lingering
// when that one has ended.
func TestBatcherGathers(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		var sizes []int
		answer := make(chan struct{})
		b := x.batching(&queue.BatcherOptions{Linger: time.Hour, MaxMessages: 10, InFlight: 1}, func(m []*driver.Message) []driver.SendResult {
			<-answer
			sizes = append(sizes, len(m))
			return nil
		})
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 25 {
			wg.Go(func() {
				r, err := b.Send(x.Context(), &queue.Message{Body: []byte{byte(i)}})
				if err != nil || r.BrokerID == "" || !r.Encrypted {
					x.Errorf("Send = %+v, %v", r, err)
				}
			})
			synctest.Wait()
		}
		close(answer)
		wg.Wait()
		if took := time.Since(begin); took != 0 {
			x.Errorf("took %s, want no linger", took)
		}
		if !slices.Equal(sizes, []int{1, 10, 10, 4}) {
			x.Errorf("batches of %v", sizes)
		}
		x.Must(b.Close(x.Context()))
		x.Must(b.Close(x.Context()))
		if _, err := b.Send(x.Context(), &queue.Message{}); !errors.Is(err, queue.ErrClosed) {
			x.Errorf("Send after Close: %v", err)
		}
	})
}

// While a call is under way, a message of another worker waits for others, as long as
// Linger at the most.
func TestBatcherLingers(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		begin := time.Now()
		var mu sync.Mutex
		at := make(map[string]time.Duration)
		b := x.batching(&queue.BatcherOptions{Linger: 10 * time.Millisecond, MaxMessages: 2, InFlight: 2}, func(m []*driver.Message) []driver.SendResult {
			mu.Lock()
			at[m[0].ID] = time.Since(begin)
			mu.Unlock()
			if m[0].ID == "0" {
				x.Wait(time.Second)
			}
			return nil
		})
		for i := range 2 { // the workers change after the first, and then after every other
			x.Must(b.SendAsync(x.Context(), &queue.Message{ID: fmt.Sprint(i)}, nil))
			synctest.Wait()
		}
		x.Wait(500 * time.Millisecond) // Close does not let it linger
		x.Must(b.Close(x.Context()))
		if at["0"] != 0 || at["1"] != 10*time.Millisecond {
			x.Errorf("sent after %s, want the first at once and the other after Linger", at)
		}
	})
}

// A retry sends the same sealed bytes under the same ID, in the order of each
// session, and never a body that is not sealed.
func TestBatcherRetries(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		var mu sync.Mutex
		bodies := map[string][]string{}
		var arrived []string
		b := x.batching(&queue.BatcherOptions{MaxMessages: 7, Breaker: backoff.BreakerOptions{Failures: 1000}}, func(m []*driver.Message) []driver.SendResult {
			mu.Lock()
			defer mu.Unlock()
			r := make([]driver.SendResult, len(m))
			for i, m := range m {
				if !m.Sealed {
					x.Errorf("message %s is not sealed", m.ID)
				}
				bodies[m.ID] = append(bodies[m.ID], string(m.Body))
				if m.ID[2]%3 == 0 && len(bodies[m.ID]) < 4 {
					r[i].Err = &driver.Error{Kind: driver.Throttled, RetryAfter: 100 * time.Millisecond}
					continue
				}
				r[i].BrokerID = "b"
				arrived = append(arrived, m.ID)
			}
			return r
		})
		const n = 50
		results := make(chan queue.SendResult, n)
		for i := range n {
			x.Must(b.SendAsync(x.Context(), &queue.Message{ID: fmt.Sprintf("%03d", i), Body: []byte("x")}, func(r queue.SendResult) { results <- r }))
		}
		x.Must(b.Flush(x.Context()))
		if len(results) != n {
			x.Errorf("%d answers after Flush, want %d", len(results), n)
		}
		for range n {
			if r := <-results; r.Err != nil {
				x.Errorf("%s: %v", r.MessageID, r.Err)
			}
		}
		for id, all := range bodies {
			if len(slices.Compact(all)) != 1 {
				x.Errorf("message %s was sealed anew for a retry", id)
			}
		}
		x.Must(b.Close(x.Context()))
	})
}

// A message that cannot be sealed is never sent, however often it is tried.
func TestBatcherNeverSendsPlaintext(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &countingProvider{Provider: x.Ring}
		c, err := queue.New(&fixturetest.FaultyBroker{Broker: x.Broker}, &queue.Options{Keys: p, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
		x.Must(err)
		p.broken.Store(true) // CurrentKeyID still answers: sealing itself fails
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		b, err := queue.NewBatcher(s, &queue.BatcherOptions{MaxAttempts: 3})
		x.Must(err)
		if _, err := b.Send(x.Context(), &queue.Message{Body: []byte("secret")}); !errors.Is(err, queue.ErrEncryptionFailed) {
			x.Errorf("Send = %v, want ErrEncryptionFailed", err)
		}
		x.Must(b.Close(x.Context()))
		if n := len(x.Stored(orders)); n != 0 {
			x.Errorf("%d messages were sent", n)
		}
	})
}

func TestBatcherPushesBack(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		stuck := make(chan struct{})
		b := x.batching(&queue.BatcherOptions{MaxPending: 3, MaxMessages: 1, InFlight: 1}, func([]*driver.Message) []driver.SendResult {
			<-stuck
			return nil
		})
		for range 3 {
			x.Must(b.SendAsync(x.Context(), &queue.Message{}, nil))
		}
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		if err := b.SendAsync(ctx, &queue.Message{}, nil); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("the fourth: %v, want to wait for room", err)
		}
		close(stuck)
		x.Must(b.Close(x.Context()))
		if n := len(x.Stored(orders)); n != 3 {
			x.Errorf("%d stored, want 3", n)
		}
	})
}

// Flush waits while others go on sending, and leaves nothing behind when its
// context ends.
func TestBatcherFlushWhileOthersSend(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		b, err := queue.NewBatcher(x.Sender(orders), &queue.BatcherOptions{Linger: time.Millisecond})
		x.Must(err)
		const senders, each = 4, 200
		var wg sync.WaitGroup
		for range senders {
			wg.Go(func() {
				for range each {
					if _, err := b.Send(x.Context(), &queue.Message{Body: []byte("a")}); err != nil {
						x.Errorf("Send: %v", err)
					}
				}
			})
		}
		for range senders {
			wg.Go(func() {
				for range each {
					x.Must(b.Flush(x.Context()))
				}
			})
		}
		wg.Wait()
		x.Must(b.Flush(x.Context()))
		if n := len(x.Stored(orders)); n != senders*each {
			x.Errorf("%d stored after Flush, want %d", n, senders*each)
		}
		x.Must(b.Close(x.Context()))
	})
}

// A Flush whose context ends first leaves no goroutine: the bubble would wait
// for it.
func TestBatcherFlushEnds(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker}
		p.OnSend = func(m []*driver.Message) []driver.SendResult {
			x.Wait(time.Minute)
			return nil
		}
		c, err := queue.New(p, &queue.Options{Logger: quiet()})
		x.Must(err)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		b, err := queue.NewBatcher(s, nil)
		x.Must(err)
		x.Must(b.SendAsync(x.Context(), &queue.Message{Body: []byte("a")}, nil))
		before := runtime.NumGoroutine()
		for range 50 {
			ctx, cancel := context.WithTimeout(x.Context(), 10*time.Millisecond)
			if err := b.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
				x.Errorf("Flush = %v", err)
			}
			cancel()
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 10 {
			x.Errorf("%d goroutines more after 50 calls of Flush that gave up", n)
		}
		x.Must(b.Close(x.Context()))
	})
}

// A policy that says no further try is heeded, for calls to the broker and to
// the key provider.
func TestBatcherWithoutRetry(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		calls := 0
		b := x.batching(&queue.BatcherOptions{Retry: backoff.Never{}}, func(m []*driver.Message) []driver.SendResult {
			calls++
			return []driver.SendResult{{Err: driver.Errorf(driver.Unavailable, "connection reset")}}
		})
		if _, err := b.Send(x.Context(), &queue.Message{Body: []byte("a")}); !errors.Is(err, queue.ErrUnavailable) {
			x.Errorf("Send = %v", err)
		}
		x.Must(b.Close(x.Context()))
		if calls != 1 {
			x.Errorf("%d calls, want 1", calls)
		}
	})
}

// A message that is refused before any call says nothing of the broker: it does not
// end a row of failures.
func TestBatcherCountsCallsOnly(t *testing.T) {
	inBubble(t, func(x *fixture, _ *queue.Options) {
		x.Broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{MaxBody: 1000}})
	}, func(x *fixture) {
		var states []backoff.State
		b := x.batching(&queue.BatcherOptions{
			InFlight: 1, MaxAttempts: 1,
			Breaker: backoff.BreakerOptions{Failures: 2, OnChange: func(s backoff.State) { states = append(states, s) }},
		}, func(m []*driver.Message) []driver.SendResult {
			return []driver.SendResult{{Err: driver.Errorf(driver.Unavailable, "connection reset")}}
		})
		for _, step := range []struct {
			size int
			want error
		}{{10, queue.ErrUnavailable}, {2000, queue.ErrMessageTooLarge}, {10, queue.ErrUnavailable}} {
			if _, err := b.Send(x.Context(), &queue.Message{Body: make([]byte, step.size)}); !errors.Is(err, step.want) {
				x.Errorf("Send of %d bytes: %v, want %v", step.size, err, step.want)
			}
		}
		if !slices.Equal(states, []backoff.State{backoff.Open}) {
			x.Errorf("the breaker went through %v, want open after two failures in a row", states)
		}
		x.Must(b.Close(x.Context()))
	})
}

// A broker that is back after a long outage gets the waiting messages within seconds.
func TestBatcherIsBackAfterALongOutage(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		const outage = 2 * time.Minute // less than half of the fixture's MaxMessageAge
		begin := time.Now()
		b := x.batching(&queue.BatcherOptions{}, func(m []*driver.Message) []driver.SendResult {
			if time.Since(begin) < outage {
				return slices.Repeat([]driver.SendResult{{Err: queuetest.Unavailable()}}, len(m))
			}
			return nil
		})
		if _, err := b.Send(x.Context(), &queue.Message{Body: []byte("a")}); err != nil {
			x.Fatal(err)
		}
		if late := time.Since(begin) - outage; late > 15*time.Second {
			x.Errorf("sent %s after the end of the outage, want at most the 8 s of the breaker and the delay of a retry", late)
		}
		x.Must(b.Close(x.Context()))
	})
}

// A key provider that is away for a while costs a Batcher no message, whichever of its calls
// fails: what waited is sent in order, without gaps, once the provider is back.
func TestBatcherOutlastsTheKeyProvider(t *testing.T) {
	var provider *countingProvider
	counted := func(x *fixture, o *queue.Options) {
		provider = &countingProvider{Provider: x.Ring}
		o.Keys = provider
	}
	for name, outage := range map[string]time.Duration{"short": 5 * time.Second, "long": time.Minute, "without end": time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, counted, func(x *fixture) {
				b, err := queue.NewBatcher(x.Sender(orders), &queue.BatcherOptions{MaxMessages: 2, MaxAttempts: 8})
				x.Must(err)
				x.Wait(2 * time.Hour) // what the cache holds of keys is too old to be used
				provider.broken.Store(true)
				begin, calls := time.Now(), provider.calls.Load()
				const n = 6
				var errs []error
				for i := range n {
					x.Must(b.SendAsync(x.Context(), &queue.Message{ID: fmt.Sprint(i), SessionID: "s", Body: []byte("a")}, func(r queue.SendResult) {
						errs = append(errs, r.Err)
					}))
				}
				time.AfterFunc(outage, func() { provider.broken.Store(false) })
				x.Must(b.Flush(x.Context()))
				if n := provider.calls.Load() - calls; n > 60 {
					x.Errorf("%d calls to the provider", n)
				}
				if outage == time.Hour {
					for i, err := range errs {
						if !errors.Is(err, queue.ErrKeyProvider) && !(i > 0 && errors.Is(err, queue.ErrNotSent)) {
							x.Errorf("message %d: %v, want ErrKeyProvider", i, err)
						}
					}
					x.Must(b.Close(x.Context()))
					x.Wait(time.Hour) // for the provider
					return
				}
				if late := time.Since(begin) - outage; late > 31*time.Second {
					x.Errorf("sent %s after the provider was back", late)
				}
				for i, err := range errs {
					if err != nil {
						x.Errorf("message %d: %v", i, err)
					}
				}
				r := x.Receiver(orders, nil)
				s, err := r.NextSession(x.Context())
				x.Must(err)
				for i := range n {
					d, err := s.ReceiveOne(x.Context())
					x.Must(err)
					if d.ID != fmt.Sprint(i) || d.Gap {
						x.Errorf("message %s with gap %t, want %d without", d.ID, d.Gap, i)
					}
					x.Must(d.Complete(x.Context()))
				}
				x.Must(s.Close(x.Context()))
				x.Must(b.Close(x.Context()))
			})
		})
	}
}
