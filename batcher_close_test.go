package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
)

// TestCloseAnswersEachMessageOnce: what was confirmed is not answered again when Close gives up
// on the others, and each of those is named.
func TestCloseAnswersEachMessageOnce(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		open := make(chan struct{})
		s := &sends{begin: time.Now(), answer: func(call int, m *driver.Message) error {
			if call == 0 {
				<-open
			}
			if m.CorrelationID == "again" {
				return errThrottled
			}
			return nil
		}}
		b := x.batching(&queue.BatcherOptions{MaxMessages: 2, InFlight: 1, Retry: every(time.Hour), Breaker: steady}, s.send)
		answers := map[string][]queue.SendResult{}
		for _, name := range []string{"first", "confirmed", "again", "never sent"} {
			x.Must(b.SendAsync(x.Context(), &queue.Message{CorrelationID: name, Body: []byte("a")}, func(r queue.SendResult) { answers[name] = append(answers[name], r) }))
			synctest.Wait() // the first is sent, the others wait
		}
		close(open)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("Close: %v", err)
		}
		for name, want := range map[string]error{"first": nil, "confirmed": nil, "again": queue.ErrClosed, "never sent": queue.ErrClosed} {
			got := answers[name]
			if len(got) != 1 || !errors.Is(got[0].Err, want) || got[0].MessageID == "" {
				x.Errorf("%s: answered %+v, want an ID and %v, once", name, got, want)
			}
		}
		if s.count() != 2 {
			x.Errorf("calls of %v, want two", s.calls)
		}
	})
}

// TestSendBesideClose fails at once, however full the Batcher is and however long Close takes.
func TestSendBesideClose(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		open := make(chan struct{})
		b := x.batching(&queue.BatcherOptions{MaxPending: 2}, (&sends{answer: func(int, *driver.Message) error { <-open; return nil }}).send)
		x.Must(b.SendAsync(x.Context(), &queue.Message{Body: []byte("a")}, nil))
		closed := make(chan error)
		go func() { closed <- b.Close(x.Context()) }()
		synctest.Wait()
		for range 3 {
			ctx, cancel := context.WithTimeout(x.Context(), time.Second)
			x.failed("SendAsync", b.SendAsync(ctx, &queue.Message{Body: []byte("b")}, nil), queue.ErrClosed, "send")
			cancel()
		}
		close(open)
		x.Must(<-closed)
	})
}

// TestCallEndedByClose says nothing about the broker: the breaker does not change.
func TestCallEndedByClose(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		answer := func(int, *driver.Message) error {
			<-ctx.Done()
			time.Sleep(time.Nanosecond) // of the bubble: the call's own context has ended
			return driver.Errorf(driver.Unavailable, "connection closed")
		}
		breaker := backoff.BreakerOptions{Failures: 1, OnChange: func(s backoff.State) { x.Errorf("the breaker is %s", s) }}
		b := x.batching(&queue.BatcherOptions{Breaker: breaker}, (&sends{answer: answer}).send)
		x.Must(b.SendAsync(x.Context(), &queue.Message{Body: []byte("a")}, nil))
		synctest.Wait()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("Close: %v", err)
		}
	})
}

// choosyCrypto is a CryptoProvider whose service answers nothing about one plaintext.
type choosyCrypto struct {
	queue.CryptoProvider
	refused string
}

func (c *choosyCrypto) Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, data []byte) (envelope.EncryptedMessage, error) {
	if string(plaintext) == c.refused {
		return envelope.EncryptedMessage{}, fmt.Errorf("%w: 503", queue.ErrKeyProvider)
	}
	return c.CryptoProvider.Encrypt(ctx, id, h, plaintext, data)
}

// TestKeysForPartOfABatch: a batch that cannot be sealed in full waits, and at its last attempt
// what was sealed is sent.
func TestKeysForPartOfABatch(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		open := make(chan struct{})
		var last []byte
		s := &sends{begin: time.Now(), answer: func(call int, m *driver.Message) error {
			if call == 0 {
				<-open
			}
			last = bytes.Clone(m.Body)
			return nil
		}}
		aes, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		c, err := queue.New(&fixturetest.FaultyBroker{Broker: x.Broker, OnSend: s.send}, &queue.Options{
			Keys: x.Ring, CryptoProvider: &choosyCrypto{aes, "refused"}, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true},
		})
		x.Must(err)
		sender, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		b, err := queue.NewBatcher(sender, &queue.BatcherOptions{InFlight: 1, Retry: every(time.Millisecond), MaxAttempts: 3, Breaker: steady})
		x.Must(err)
		answers := map[string]error{}
		for _, body := range []string{"first", "sealed", "refused"} {
			x.Must(b.SendAsync(x.Context(), &queue.Message{ID: body, Body: []byte(body)}, func(r queue.SendResult) { answers[body] = r.Err }))
			synctest.Wait()
		}
		close(open)
		x.Must(b.Close(x.Context()))
		if answers["first"] != nil || answers["sealed"] != nil || !errors.Is(answers["refused"], queue.ErrKeyProvider) {
			x.Errorf("answers %v, want ErrKeyProvider for one", answers)
		}
		if len(s.at) != 2 || s.at[1] != 3*time.Second {
			x.Errorf("calls of %v at %v, want the second after 1 + 2 s", s.calls, s.at)
		}
		// What was sealed for nothing is void: a receiver neither waits for it nor misses it.
		x.Must(second(sender.Send(x.Context(), &queue.Message{Body: []byte("last")})))
		e, err := envelope.Parse(last)
		x.Must(err)
		void := uint64(0)
		for _, r := range e.Void {
			void += r.Last - r.First + 1
		}
		if e.Settled != e.Sequence-1 || void != e.Sequence-3 { // all but the two that were sent
			x.Errorf("sequence %d, settled %d, void %v; want all before it settled, and all but two void", e.Sequence, e.Settled, e.Void)
		}
	})
}

// TestBatcherTriesWhatDoesNotExpire as often as it may: a message in plain, and one whose life is
// that of the queue.
func TestBatcherTriesWhatDoesNotExpire(t *testing.T) {
	for name, crypto := range map[string]queue.CryptoConfig{
		"in plain":               {},
		"for as long as a queue": {Enabled: true, MaxMessageAge: queue.QueueRetention},
	} {
		inBubble(t, nil, func(x *fixture) {
			s := &sends{begin: time.Now(), answer: func(int, *driver.Message) error { return errThrottled }}
			c, err := queue.New(&fixturetest.FaultyBroker{Broker: x.Broker, OnSend: s.send}, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: crypto})
			x.Must(err)
			sender, err := c.Sender(x.Context(), orders, nil)
			x.Must(err)
			b, err := queue.NewBatcher(sender, &queue.BatcherOptions{Retry: every(time.Minute), MaxAttempts: 9, Breaker: steady})
			x.Must(err)
			_, err = b.Send(x.Context(), &queue.Message{Body: []byte("a")})
			x.failed(name, err, driver.ErrThrottled, "send")
			if s.count() != 9 {
				x.Errorf("%s: %d calls, want 9", name, s.count())
			}
			x.Must(b.Close(x.Context()))
		})
	}
}
