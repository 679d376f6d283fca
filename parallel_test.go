package queue_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
)

// slowCrypto is a CryptoProvider that takes a second for each message.
type slowCrypto struct{ queue.CryptoProvider }

func (c slowCrypto) Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, data []byte) (envelope.EncryptedMessage, error) {
	time.Sleep(time.Second) // of the bubble
	return c.CryptoProvider.Encrypt(ctx, id, h, plaintext, data)
}

func (c slowCrypto) Decrypt(ctx context.Context, m envelope.EncryptedMessage, data []byte) ([]byte, error) {
	time.Sleep(time.Second)
	return c.CryptoProvider.Decrypt(ctx, m, data)
}

// TestLargeBatchesSideBySide: as many messages are sealed and opened at a time as there are
// processors, and one of a batch that is small.
func TestLargeBatchesSideBySide(t *testing.T) {
	const n, processors = 4, 2
	fixturetest.Processors(t, processors)
	for size, want := range map[int]time.Duration{64 << 10 / n: n / processors * time.Second, 64<<10/n - 1: n * time.Second} {
		inBubble(t, func(x *fixture, o *queue.Options) {
			aes, err := queue.NewAESGCM(x.Ring)
			x.Must(err)
			o.CryptoProvider = slowCrypto{aes}
		}, func(x *fixture) {
			batch := make([]*queue.Message, n)
			for i := range batch {
				batch[i] = &queue.Message{ID: fmt.Sprint(i), Body: make([]byte, size)}
			}
			s, r := x.Sender(orders), x.Receiver(orders, nil)
			begin := time.Now()
			took := func(what string) {
				x.Helper()
				if got := time.Since(begin); got != want {
					x.Errorf("%s: %d messages of %d bytes take %s, want %s", what, n, size, got, want)
				}
				begin = time.Now()
			}
			_, err := s.SendBatch(x.Context(), batch)
			x.Must(err)
			took("SendBatch")
			if size*n < 64<<10 {
				return // sealed, they are larger
			}
			_, _, err = r.Peek(x.Context(), "", n)
			x.Must(err)
			took("Peek")
			got, err := r.Receive(x.Context(), n)
			x.Must(err)
			took("Receive")
			for i, d := range got {
				if d.ID != fmt.Sprint(i) {
					x.Errorf("message %d is %s", i, d.ID)
				}
			}
		})
	}
}

// panicking is a CryptoProvider that panics on one message of a call, while set.
type panicking struct {
	queue.CryptoProvider
	on *atomic.Bool
}

func (c panicking) Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, data []byte) (envelope.EncryptedMessage, error) {
	if c.on.Swap(false) {
		panic("a provider's mistake")
	}
	return c.CryptoProvider.Encrypt(ctx, id, h, plaintext, data)
}

func (c panicking) Decrypt(ctx context.Context, m envelope.EncryptedMessage, data []byte) ([]byte, error) {
	if c.on.Swap(false) {
		panic("a provider's mistake")
	}
	return c.CryptoProvider.Decrypt(ctx, m, data)
}

// TestPanicSideBySide: a panic of a CryptoProvider is the caller's, also of a large batch. Nothing
// is sent or delivered then, and later calls do what they should.
func TestPanicSideBySide(t *testing.T) {
	const n = 4
	fixturetest.Processors(t, 2)
	for _, size := range []int{100, 32 << 10} {
		var on atomic.Bool
		inBubble(t, func(x *fixture, o *queue.Options) {
			aes, err := queue.NewAESGCM(x.Ring)
			x.Must(err)
			o.CryptoProvider = panicking{aes, &on}
		}, func(x *fixture) {
			batch := make([]*queue.Message, n)
			for i := range batch {
				batch[i] = &queue.Message{ID: fmt.Sprint(i), Body: make([]byte, size)}
			}
			s, r := x.Sender(orders), x.Receiver(orders, nil)
			caught := func(what string, call func()) {
				defer func() {
					if got := recover(); got != "a provider's mistake" {
						x.Errorf("%s of %d bytes: panic %v, want the provider's", what, size, got)
					}
				}()
				on.Store(true)
				call()
			}
			caught("SendBatch", func() { _, _ = s.SendBatch(x.Context(), batch) })
			if left := len(x.Stored(orders)); left > 0 {
				x.Errorf("%d messages were sent", left)
			}
			_, err := s.SendBatch(x.Context(), batch)
			x.Must(err)
			caught("Peek", func() { _, _, _ = r.Peek(x.Context(), "", n) })
			caught("Receive", func() { _, _ = r.Receive(x.Context(), n) })
			x.Wait(time.Minute) // their locks are over
			got, err := r.Receive(x.Context(), n)
			if err != nil || len(got) != n {
				x.Errorf("%d of %d, %v", len(got), n, err)
			}
		})
	}
}

// leavingCrypto is a CryptoProvider that ends the goroutine that opens a message, while set.
type leavingCrypto struct {
	queue.CryptoProvider
	on *atomic.Bool
}

func (c leavingCrypto) Decrypt(ctx context.Context, m envelope.EncryptedMessage, data []byte) ([]byte, error) {
	if c.on.Load() {
		runtime.Goexit()
	}
	return c.CryptoProvider.Decrypt(ctx, m, data)
}

// TestGoexitSideBySide: a message whose examination did not come to an end is not delivered.
func TestGoexitSideBySide(t *testing.T) {
	const n = 4
	fixturetest.Processors(t, n)
	var on atomic.Bool
	inBubble(t, func(x *fixture, o *queue.Options) {
		aes, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		o.CryptoProvider = leavingCrypto{aes, &on}
	}, func(x *fixture) {
		batch := make([]*queue.Message, n)
		for i := range batch {
			batch[i] = &queue.Message{Body: make([]byte, 32<<10)}
		}
		_, err := x.Sender(orders).SendBatch(x.Context(), batch)
		x.Must(err)
		r := x.Receiver(orders, nil)
		on.Store(true)
		func() {
			defer func() {
				if recover() == nil {
					x.Error("Receive returned")
				}
			}()
			got, err := r.Receive(x.Context(), n)
			x.Errorf("Receive = %d messages, %v", len(got), err)
		}()
	})
}
