package queue_test

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/memqueue"
)

// BenchmarkMemory sends a message of 8 KiB through memqueue, receives it and completes it:
// flow=turns in one goroutine, flow=stream from one goroutine to another.
func BenchmarkMemory(b *testing.B) {
	for _, sealed := range []bool{false, true} {
		for _, batch := range []int{1, 100} {
			name := fmt.Sprintf("sealed=%t/batch=%d", sealed, batch)
			b.Run("flow=turns/"+name, func(b *testing.B) {
				w := newBenchWay(b, sealed, batch)
				b.ReportAllocs()
				for n := 0; n < b.N; n += batch {
					w.send()
					w.handle()
				}
			})
			b.Run("flow=stream/"+name, func(b *testing.B) {
				w := newBenchWay(b, sealed, batch)
				b.ReportAllocs()
				var wg sync.WaitGroup
				calls := (b.N + batch - 1) / batch
				wg.Go(func() {
					for range calls {
						w.send()
					}
				})
				for left := calls * batch; left > 0; {
					left -= w.handle()
				}
				wg.Wait()
			})
		}
	}
}

// benchWay sends to a queue in memory and handles what comes.
type benchWay struct {
	b        *testing.B
	sender   *queue.Sender
	receiver *queue.Receiver
	body     []byte
	batch    int
}

func newBenchWay(b *testing.B, sealed bool, batch int) *benchWay {
	b.Helper()
	o := &queue.Options{Keys: newRing(b, "k1"), Logger: slog.New(slog.DiscardHandler), Crypto: queue.CryptoConfig{Enabled: sealed}}
	c, err := queue.New(memqueue.New(nil), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(b.Context()) })
	w := &benchWay{b: b, body: make([]byte, 8<<10), batch: batch}
	if w.sender, err = c.Sender(b.Context(), orders, nil); err != nil {
		b.Fatal(err)
	}
	if w.receiver, err = c.Receiver(b.Context(), orders, nil); err != nil {
		b.Fatal(err)
	}
	return w
}

func (w *benchWay) message() *queue.Message {
	return &queue.Message{
		ContentType: "application/json", Attributes: map[string]string{"event": "pull_request", "action": "opened"}, Body: w.body,
	}
}

func (w *benchWay) send() {
	if w.batch == 1 {
		if _, err := w.sender.Send(w.b.Context(), w.message()); err != nil {
			w.b.Error(err)
		}
		return
	}
	all := make([]*queue.Message, w.batch)
	for i := range all {
		all[i] = w.message()
	}
	if _, err := w.sender.SendBatch(w.b.Context(), all); err != nil {
		w.b.Error(err)
	}
}

// handle receives up to a batch of messages and completes each.
func (w *benchWay) handle() int {
	list, err := w.receiver.Receive(w.b.Context(), w.batch)
	if err != nil {
		w.b.Fatal(err)
	}
	for _, d := range list {
		if err := d.Complete(w.b.Context()); err != nil {
			w.b.Fatal(err)
		}
	}
	return len(list)
}
