package smkeys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/worker"
)

// line is a sender and a processor that share nothing but the broker and the
// secret store, each with a cache of its own.
type line struct {
	broker   *memqueue.Broker
	sender   *queue.Sender
	receiver *queue.Receiver
	rejected atomic.Int64
}

func newLine(t *testing.T, s *server) *line {
	t.Helper()
	return newLineOf(t, s, nil)
}

func newLineOf(t *testing.T, s *server, o *Options) *line {
	t.Helper()
	l := &line{broker: memqueue.New(nil)}
	client := func() *queue.Client {
		c, err := queue.New(l.broker, &queue.Options{
			Crypto:     queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject, MaxMessageAge: 24 * time.Hour},
			Keys:       cached(t, s.provider(t, "k", o)),
			Logger:     slog.New(slog.DiscardHandler),
			OnRejected: func(context.Context, *queue.RejectedError) { l.rejected.Add(1) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var err error
	if l.sender, err = client().Sender(t.Context(), "pulls", nil); err != nil {
		t.Fatal(err)
	}
	if l.receiver, err = client().Receiver(t.Context(), "pulls", &queue.ReceiverOptions{Wait: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	return l
}

// process runs a processor until stop is called.
func (l *line) process(t *testing.T, h worker.HandlerFunc) (stop func()) {
	t.Helper()
	p, err := worker.New(&worker.Options{Concurrency: 4})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Handle(l.receiver, h, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func (l *line) deadLetters(t *testing.T) int64 {
	t.Helper()
	s, err := l.receiver.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.DeadLetters
}

// Keys are rotated three times while messages flow, in the order of the manual
// (distribute, make current, keep, retire), and not one message fails.
func TestRotationInFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		for i, id := range []string{"a", "b", "c", "d"} {
			s.putBinary("k/"+id, "v", secretOf(byte(i+1)), stageCurrent)
		}
		s.put("k", "1", "a", stageCurrent)
		l := newLine(t, s)
		var mu sync.Mutex
		underKey := make(map[keys.ID]int)
		handled := make(map[string]bool)
		stop := l.process(t, func(_ context.Context, d *queue.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			underKey[d.KeyID]++
			handled[d.ID] = true
			return nil
		})
		rotate := func(version, id string) {
			s.put("k", version, id, stagePending)
			time.Sleep(time.Minute) // the caches' time and more
			s.promote("k", version)
			time.Sleep(time.Minute)
		}
		sent := 0
		flowing, finish := context.WithCancel(t.Context())
		var sender sync.WaitGroup
		sender.Go(func() {
			for flowing.Err() == nil {
				if _, err := l.sender.Send(t.Context(), &queue.Message{ID: fmt.Sprint(sent), Body: []byte("payload")}); err != nil {
					t.Errorf("send: %v", err)
				}
				sent++
				time.Sleep(100 * time.Millisecond)
			}
		})
		rotate("2", "b")
		rotate("3", "c")
		s.remove("k/a")
		rotate("4", "d")
		s.remove("k/b")
		finish()
		sender.Wait()
		time.Sleep(time.Second)
		stop()
		if len(handled) != sent || l.rejected.Load() != 0 || l.deadLetters(t) != 0 {
			t.Errorf("%d sent, %d handled, %d rejected, %d dead letters", sent, len(handled), l.rejected.Load(), l.deadLetters(t))
		}
		for _, id := range []keys.ID{"a", "b", "c", "d"} {
			if underKey[id] == 0 {
				t.Errorf("no message under key %s: %v", id, underKey)
			}
		}
		t.Logf("%d messages, %v, %d calls to the service", sent, underKey, s.total())
	})
}

// While the service does not answer, and the cached keys are past their time,
// nothing is fetched: no delivery count runs out and nothing is dead-lettered.
// When it is back everything is handled.
func TestUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.put("k", "1", "a", stageCurrent)
		s.putBinary("k/a", "1", secretOf(1), stageCurrent)
		l := newLine(t, s)
		const n = 50
		for i := range n {
			if _, err := l.sender.Send(t.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("payload")}); err != nil {
				t.Fatal(err)
			}
		}
		s.fail("InternalServiceError")
		var mu sync.Mutex
		counts := make(map[string]int)
		stop := l.process(t, func(_ context.Context, d *queue.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			counts[d.ID] = d.Count
			return nil
		})
		time.Sleep(2 * time.Hour)
		mu.Lock()
		if len(counts) != 0 {
			t.Errorf("%d messages were handled without a key", len(counts))
		}
		mu.Unlock()
		if _, err := l.sender.Send(t.Context(), &queue.Message{Body: []byte("payload")}); !errors.Is(err, queue.ErrEncryptionFailed) || !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("a send without a key: %v", err)
		}
		if d := l.deadLetters(t); d != 0 {
			t.Errorf("%d dead letters during the outage", d)
		}
		s.fail("")
		time.Sleep(10 * time.Minute)
		stop()
		most := 0
		for _, c := range counts {
			most = max(most, c)
		}
		if len(counts) != n || l.deadLetters(t) != 0 || most > 5 {
			t.Errorf("%d of %d handled, %d dead letters, up to %d deliveries", len(counts), n, l.deadLetters(t), most)
		}
		t.Logf("2 h of outage: %d messages handled afterwards, at most %d deliveries, %d calls to the service", len(counts), most, s.total())
	})
}

// The wrong secret is put under a key's ID before the receiver starts. Its messages wait, and
// are handled once the secret is corrected, without a restart.
func TestCorrectedSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.put("k", "1", "a", stageCurrent)
		s.putBinary("k/a", "1", secretOf(1), stageCurrent)
		l := newLine(t, s)
		const n = 100 // more than the failures after which receiving pauses
		for i := range n {
			if _, err := l.sender.Send(t.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("payload")}); err != nil {
				t.Fatal(err)
			}
		}
		s.putBinary("k/a", "2", secretOf(2), stageCurrent)
		var handled atomic.Int64
		stop := l.process(t, func(context.Context, *queue.Delivery) error {
			handled.Add(1)
			return nil
		})
		time.Sleep(2 * time.Hour)
		if handled.Load() != 0 || l.deadLetters(t) != 0 {
			t.Errorf("%d handled, %d dead letters under the wrong secret", handled.Load(), l.deadLetters(t))
		}
		s.putBinary("k/a", "3", secretOf(1), stageCurrent)
		time.Sleep(10 * time.Minute)
		stop()
		if handled.Load() != n || l.deadLetters(t) != 0 {
			t.Errorf("%d of %d handled after the correction, %d dead letters", handled.Load(), n, l.deadLetters(t))
		}
	})
}

// If the pointer, or the one secret of all keys, is deleted by mistake, nothing tells
// whether a key is there: messages wait until it is restored, as they do while the
// service does not answer.
func TestDeletedByMistake(t *testing.T) {
	for layout, name := range map[Layout]string{Secrets: "secrets", Versions: "versions"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				if layout == Secrets {
					s.put("k", "1", "a", stageCurrent)
					s.putBinary("k/a", "1", secretOf(1), stageCurrent)
				} else {
					s.putBinary("k", "11111111-0000-4000-8000-000000000001", secretOf(1), stageCurrent)
				}
				l := newLineOf(t, s, &Options{Layout: layout})
				var mu sync.Mutex
				counts := make(map[string]int)
				stop := l.process(t, func(_ context.Context, d *queue.Delivery) error {
					mu.Lock()
					defer mu.Unlock()
					counts[d.ID] = d.Count
					return nil
				})
				const n = 20
				for i := range n {
					m := &queue.Message{ID: fmt.Sprint(i), Body: []byte("payload")}
					if i > 0 {
						m.NotBefore = time.Now().Add(2 * time.Minute) // past the caches' time
					}
					if _, err := l.sender.Send(t.Context(), m); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				s.remove("k")
				time.Sleep(2 * time.Hour)
				if _, err := l.sender.Send(t.Context(), &queue.Message{Body: []byte("payload")}); !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrNotFound) {
					t.Errorf("a send without a pointer: %v", err)
				}
				if d := l.deadLetters(t); d != 0 {
					t.Errorf("%d dead letters", d)
				}
				s.restore("k")
				time.Sleep(10 * time.Minute)
				stop()
				if len(counts) != n || l.deadLetters(t) != 0 {
					t.Errorf("%d of %d handled, %d dead letters", len(counts), n, l.deadLetters(t))
				}
			})
		})
	}
}

// floodCalls is the most that a flood of messages under forged key IDs may cost
// at Secrets Manager: the three stages of the pointer, once for each of the
// cache's list times that the flood lasts, and the fetch of the genuine key.
const floodCalls = 12

// 100,000 messages with random key IDs cost a handful of calls, and a genuine
// message among them is delivered.
func TestFloodOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.put("k", "1", "a", stageCurrent)
		s.putBinary("k/a", "1", secretOf(1), stageCurrent)
		l := newLine(t, s)
		if _, err := l.sender.Send(t.Context(), &queue.Message{ID: "genuine", Body: []byte("payload")}); err != nil {
			t.Fatal(err)
		}
		q, err := l.broker.Open(t.Context(), "pulls", nil)
		if err != nil {
			t.Fatal(err)
		}
		// A forged envelope is a genuine one with another key ID of its length.
		d, err := q.Receive(t.Context(), 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		const at = 80 // of the key ID, with no void ranges (qre1, Section 2.1)
		if head := string(d[0].Body[at-1 : at+1]); head != "\x01a" {
			t.Fatalf("the key ID is not where it was: %q", head)
		}
		const flood = 100_000
		batch := make([]*driver.Message, 0, 100)
		for i := range flood {
			id := fmt.Sprintf("forged-%d", i)
			body := append([]byte{}, d[0].Body[:at-1]...)
			body = append(append(append(body, byte(len(id))), id...), d[0].Body[at+1:]...)
			if batch = append(batch, &driver.Message{ID: id, Body: body, Sealed: true}); len(batch) == cap(batch) {
				for _, r := range q.Send(t.Context(), batch) {
					if r.Err != nil {
						t.Fatal(r.Err)
					}
				}
				batch = batch[:0]
			}
		}
		if err := q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.Abandon}})[0]; err != nil {
			t.Fatal(err)
		}
		before := s.total()
		delivered := 0
		for l.rejected.Load() < flood {
			good, err := l.receiver.Receive(t.Context(), 1000)
			if err != nil && !errors.Is(err, queue.ErrNoMessage) {
				t.Fatal(err)
			}
			for _, d := range good {
				if d.ID != "genuine" {
					t.Fatalf("delivered %s", d.ID)
				}
				delivered++
				if err := d.Complete(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		calls := s.total() - before
		if delivered != 1 || calls > floodCalls {
			t.Errorf("%d genuine messages delivered, %d calls for %d forged ones, want at most %d", delivered, calls, l.rejected.Load(), floodCalls)
		}
		if n := l.deadLetters(t); n != 0 {
			t.Errorf("%d dead letters: a key that is not known yet may come", n)
		}
		t.Logf("%d forged messages: %d calls", l.rejected.Load(), calls)
	})
}

// Nothing of a secret is in what a caller may log.
func TestNoLeak(t *testing.T) {
	s := newServer()
	s.put("k", "1", "a", stageCurrent)
	s.putBinary("k/a", "1", secretOf('S'), stageCurrent)
	p := s.provider(t, "k", nil)
	k, err := p.GetKey(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", p, p, p, k); strings.Contains(text, "SSSS") || strings.Contains(text, "83 83 83") {
		t.Error("a secret is printed")
	}
}
