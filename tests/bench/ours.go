package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// protection is how a client of this library protects messages.
type protection struct {
	sealed bool
	store  replay.Store // nil means that replays are not tracked
}

// options are those of a client, which logs nothing: nor do the peers.
func (p protection) options() (*queue.Options, error) {
	quiet := slog.New(slog.DiscardHandler)
	if !p.sealed {
		return &queue.Options{Logger: quiet}, nil
	}
	key, err := keys.Generate(keyName, nil)
	if err != nil {
		return nil, err
	}
	ring, err := keys.NewRing(key)
	if err == nil {
		err = ring.SetCurrent(keyName)
	}
	if err != nil {
		return nil, err
	}
	o := queue.Strict(ring, p.store)
	o.Logger = quiet
	if p.store == nil {
		o.Crypto.TrackReplays, o.Crypto.MaxMessageAge = false, time.Hour
	}
	return o, nil
}

// ours is this library over a broker.
type ours struct {
	corpus   *corpus
	client   *queue.Client
	sender   *queue.Sender
	receiver *queue.Receiver
	turn     sync.Mutex // guards what follows
	serial   int
}

// openOurs opens both ends of a queue, which the client's Close closes.
func openOurs(ctx context.Context, c *corpus, b driver.Broker, p protection) (*ours, error) {
	o, err := p.options()
	if err != nil {
		return nil, errors.Join(err, b.Close(ctx))
	}
	client, err := queue.New(b, o)
	if err != nil {
		return nil, errors.Join(err, b.Close(ctx))
	}
	w := &ours{corpus: c, client: client}
	if w.sender, err = client.Sender(ctx, someName, nil); err == nil {
		w.receiver, err = client.Receiver(ctx, someName, nil)
	}
	if err != nil {
		return nil, errors.Join(err, client.Close(ctx))
	}
	return w, nil
}

func (w *ours) close(ctx context.Context) error { return w.client.Close(ctx) }

// message makes the next message.
func (w *ours) message() *queue.Message {
	w.turn.Lock()
	defer w.turn.Unlock()
	w.serial++
	return &queue.Message{
		ContentType: "application/json",
		Attributes:  map[string]string{"event": "pull_request", "action": "opened"},
		Body:        w.corpus.body(w.serial),
	}
}

func (w *ours) send(ctx context.Context) error {
	_, err := w.sender.Send(ctx, w.message())
	return err
}

func (w *ours) handle(ctx context.Context) error {
	d, err := w.receiver.ReceiveOne(ctx)
	if err != nil {
		return err
	}
	return d.Complete(ctx)
}

// sendBatch sends n messages in one call.
func (w *ours) sendBatch(ctx context.Context, n int) error {
	batch := make([]*queue.Message, n)
	for i := range batch {
		batch[i] = w.message()
	}
	_, err := w.sender.SendBatch(ctx, batch)
	return err
}

// handleBatch receives up to n messages and completes them, each on its own.
func (w *ours) handleBatch(ctx context.Context, n int) (int, error) {
	list, err := w.receiver.Receive(ctx, n)
	if err != nil {
		return 0, err
	}
	for _, d := range list {
		if err := d.Complete(ctx); err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

// together runs f in that many goroutines, each its share of n times, and returns the
// first error.
func together(workers, n int, f func() error) error {
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range (n + w) / workers { // the shares add up to n
				if errs[w] = f(); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// sideBySide runs two halves of a way at once.
func sideBySide(a, b func() error) error {
	var first error
	var wg sync.WaitGroup
	wg.Go(func() { first = a() })
	second := b()
	wg.Wait()
	return errors.Join(first, second)
}

// wrong says that a way moved another number of messages than it was to.
func wrong(got, want int) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%d messages came back, want %d", got, want)
}
