package queue_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/envelope"
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
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
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
