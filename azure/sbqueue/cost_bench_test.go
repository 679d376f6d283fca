package sbqueue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
)

// mover sends n messages, receives them and completes them.
type mover interface {
	move(ctx context.Context, n int) error
}

// BenchmarkCost is what a message costs by this driver and by the SDK alone, in
// pairs that take turns to be first, with the emulator in another process. The
// ratios are medians over the pairs: 1.10 is 10 % more.
func BenchmarkCost(b *testing.B) {
	for _, size := range []int{1, 50} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			connection := elsewhere(b)
			pair := [2]mover{newBare(b, connection), newDriven(b, connection)}
			block := 100 / size
			once := func(m mover) spent {
				var s spent
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				begin := time.Now()
				for range block {
					if err := m.move(b.Context(), size); err != nil {
						b.Fatal(err)
					}
				}
				s.time = float64(time.Since(begin))
				runtime.ReadMemStats(&after)
				s.allocations = float64(after.Mallocs - before.Mallocs)
				s.bytes = float64(after.TotalAlloc - before.TotalAlloc)
				return s
			}
			for _, m := range pair { // what is done for the first time does not count
				once(m)
			}
			var all [2][]spent
			round := 0
			for b.Loop() {
				for i := range 2 {
					kind := (i + round) % 2
					all[kind] = append(all[kind], once(pair[kind]))
				}
				round++
			}
			messages := float64(block * size)
			report := func(name string, of func(spent) float64) {
				var ratios, bare, driven []float64
				for i := range all[0] {
					x, y := of(all[0][i]), of(all[1][i])
					ratios, bare, driven = append(ratios, y/x), append(bare, x/messages), append(driven, y/messages)
				}
				b.ReportMetric(median(ratios), name+"-ratio")
				b.ReportMetric(median(bare), name+"/msg-sdk")
				b.ReportMetric(median(driven), name+"/msg")
			}
			report("ns", func(s spent) float64 { return s.time })
			report("allocs", func(s spent) float64 { return s.allocations })
			report("bytes", func(s spent) float64 { return s.bytes })
		})
	}
}

type spent struct{ time, allocations, bytes float64 }

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// What both send.
var (
	benchBody        = bytes.Repeat([]byte("0123456789abcdef"), 512)
	benchType        = "application/json"
	benchID          = "0193e7c5-0000-7000-8000-000000000000"
	benchAttribute   = "event"
	benchAttributeIs = "pull_request"
)

// bare moves messages by the SDK alone.
type bare struct {
	s *azservicebus.Sender
	r *azservicebus.Receiver
}

func newBare(b *testing.B, connection string) *bare {
	b.Helper()
	c, err := azservicebus.NewClientFromConnectionString(connection, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close(context.Background()) })
	s, err := c.NewSender("bare", nil)
	if err != nil {
		b.Fatal(err)
	}
	r, err := c.NewReceiverForQueue("bare", nil)
	if err != nil {
		b.Fatal(err)
	}
	return &bare{s, r}
}

func (x *bare) message() *azservicebus.Message {
	return &azservicebus.Message{
		MessageID: &benchID, ContentType: &benchType, Body: benchBody,
		ApplicationProperties: map[string]any{benchAttribute: benchAttributeIs},
	}
}

func (x *bare) move(ctx context.Context, n int) error {
	if n == 1 {
		if err := x.s.SendMessage(ctx, x.message(), nil); err != nil {
			return err
		}
	} else if err := x.sendBatches(ctx, n); err != nil {
		return err
	}
	for got := 0; got < n; {
		rctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		list, err := x.r.ReceiveMessages(rctx, n-got, nil)
		cancel()
		if err != nil {
			return err
		}
		for _, m := range list {
			if m.MessageID != benchID || len(m.Body) != len(benchBody) || m.ApplicationProperties[benchAttribute] != benchAttributeIs {
				return errors.New("another message came")
			}
		}
		if err := x.complete(ctx, list); err != nil {
			return err
		}
		got += len(list)
	}
	return nil
}

func (x *bare) sendBatches(ctx context.Context, n int) error {
	batch, err := x.s.NewMessageBatch(ctx, nil)
	for range n {
		if err != nil {
			return err
		}
		err = batch.AddMessage(x.message(), nil)
		if errors.Is(err, azservicebus.ErrMessageTooLarge) {
			if err = x.s.SendMessageBatch(ctx, batch, nil); err != nil {
				return err
			}
			if batch, err = x.s.NewMessageBatch(ctx, nil); err != nil {
				return err
			}
			err = batch.AddMessage(x.message(), nil)
		}
	}
	if err != nil {
		return err
	}
	return x.s.SendMessageBatch(ctx, batch, nil)
}

// complete completes up to 16 at once, as the driver does.
func (x *bare) complete(ctx context.Context, list []*azservicebus.ReceivedMessage) error {
	if len(list) == 1 {
		return x.r.CompleteMessage(ctx, list[0], nil)
	}
	const width = 16
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for first := range min(width, len(list)) {
		wg.Go(func() {
			for i := first; i < len(list); i += width {
				errs[i] = x.r.CompleteMessage(ctx, list[i], nil)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// driven moves messages by the driver. Its slices are the caller's business.
type driven struct {
	q        driver.Queue
	messages []*driver.Message
	settling []driver.Settlement
}

func newDriven(b *testing.B, connection string) *driven {
	b.Helper()
	p, err := sbqueue.FromConnectionString(connection, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close(context.Background()) })
	q, err := p.Open(b.Context(), "driven", nil)
	if err != nil {
		b.Fatal(err)
	}
	return &driven{q: q}
}

func (x *driven) move(ctx context.Context, n int) error {
	x.messages = x.messages[:0]
	for range n {
		x.messages = append(x.messages, &driver.Message{
			ID: benchID, ContentType: benchType, Body: benchBody, Attributes: map[string]string{benchAttribute: benchAttributeIs},
		})
	}
	messages := x.messages
	limit := x.q.Capabilities().MaxBatchBytes
	for len(messages) > 0 {
		size, k := 0, 0
		for ; k < len(messages); k++ {
			if size += x.q.Size(messages[k]); size > limit {
				break
			}
		}
		for _, r := range x.q.Send(ctx, messages[:k]) {
			if r.Err != nil {
				return r.Err
			}
		}
		messages = messages[k:]
	}
	for got := 0; got < n; {
		list, err := x.q.Receive(ctx, n-got, 20*time.Second)
		if err != nil {
			return err
		}
		x.settling = x.settling[:0]
		for _, d := range list {
			if d.ID != benchID || len(d.Body) != len(benchBody) || d.Attributes[benchAttribute] != benchAttributeIs {
				return errors.New("another message came")
			}
			x.settling = append(x.settling, driver.Settlement{Delivery: d, Kind: driver.Complete})
		}
		for _, err := range x.q.Settle(ctx, x.settling) {
			if err != nil {
				return err
			}
		}
		got += len(list)
	}
	return nil
}
