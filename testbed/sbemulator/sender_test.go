package sbemulator_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// TestCredit sends more over one link than its first credit allows.
func TestCredit(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	const workers, each = 8, 200
	ctx := within(t)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if err := sender.SendMessage(ctx, text(number(w*each+i)), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantStored(t, s, "q", workers*each)
	r := receiver(t, c, "q", destructive)
	seen := map[string]bool{}
	for i, m := range many(t, r, workers*each) {
		if seen[string(m.Body)] || *m.SequenceNumber != int64(i+1) {
			t.Fatalf("message %d is %s with number %d, seen before: %v", i, m.Body, *m.SequenceNumber, seen[string(m.Body)])
		}
		seen[string(m.Body)] = true
	}
	wantStored(t, s, "q", 0)
}

// TestManyFrames sends and receives messages of many frames each.
func TestManyFrames(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{MaxMessageSize: 1 << 20})
	c := connect(t, s)
	bodies := [][]byte{nil, {1}, bytes.Repeat([]byte("x"), 64<<10-200), bytes.Repeat([]byte("y"), 64<<10), bytes.Repeat([]byte("0123456789"), 100_000)}
	for _, b := range bodies {
		send(t, c, "q", &azservicebus.Message{Body: b})
	}
	r := receiver(t, c, "q", nil)
	for i, m := range many(t, r, len(bodies)) {
		if !bytes.Equal(m.Body, bodies[i]) {
			t.Errorf("body %d: %d bytes, want %d", i, len(m.Body), len(bodies[i]))
		}
		if err := r.CompleteMessage(within(t), m, nil); err != nil {
			t.Error(err)
		}
	}
	p := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	batch := must[*azservicebus.MessageBatch](t)(p.NewMessageBatch(within(t), nil))
	for {
		if err := batch.AddMessage(&azservicebus.Message{Body: bodies[2]}, nil); err != nil {
			break
		}
	}
	if err := p.SendMessageBatch(within(t), batch, nil); err != nil || batch.NumMessages() < 15 {
		t.Fatalf("a batch of %d: %v", batch.NumMessages(), err)
	}
	wantStored(t, s, "q", int(batch.NumMessages()))
}

func TestMessageTooLarge(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{MaxMessageSize: 2000})
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	if err := sender.SendMessage(within(t), text(strings.Repeat("x", 2000)), nil); !errors.Is(err, azservicebus.ErrMessageTooLarge) {
		t.Errorf("too large by itself: %v", err)
	}
	batch := must[*azservicebus.MessageBatch](t)(sender.NewMessageBatch(within(t), nil))
	n := 0
	for ; batch.AddMessage(text(strings.Repeat("x", 500)), nil) == nil; n++ {
	}
	if n < 2 || n > 4 {
		t.Errorf("%d messages of 500 bytes in a batch of 2000", n)
	}
	if err := sender.SendMessage(within(t), text(strings.Repeat("x", 1800)), nil); err != nil {
		t.Error(err)
	}
	wantStored(t, s, "q", 1)
}
