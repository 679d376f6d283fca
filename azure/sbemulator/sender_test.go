package sbemulator_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/azure/sbemulator"
)

// TestCredit sends more over one link than its first credit and the session's
// first window allow.
func TestCredit(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	const workers, each = 8, 400
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

func TestBatch(t *testing.T) {
	s := start(t, nil, sessional())
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	batch := must[*azservicebus.MessageBatch](t)(sender.NewMessageBatch(within(t), nil))
	for i := range 100 {
		if err := batch.AddMessage(inSession("a", number(i)), nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := sender.SendMessageBatch(within(t), batch, nil); err != nil {
		t.Fatal(err)
	}
	for i, m := range many(t, accept(t, c, "a"), 100) {
		if string(m.Body) != number(i) || m.MessageID == "" {
			t.Errorf("message %d is %s, ID %q", i, m.Body, m.MessageID)
		}
	}
	// All or nothing: one message without a session spoils the batch.
	batch = must[*azservicebus.MessageBatch](t)(sender.NewMessageBatch(within(t), nil))
	for _, m := range []*azservicebus.Message{inSession("b", "good"), text("bad")} {
		if err := batch.AddMessage(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	wantCondition(t, sender.SendMessageBatch(within(t), batch, nil), "amqp:not-allowed")
	wantStored(t, s, "q", 100)
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

func TestQueueFull(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{MaxBytes: 1000})
	c := connect(t, s)
	send(t, c, "q", text(strings.Repeat("x", 500)))
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	wantCondition(t, sender.SendMessage(within(t), text(strings.Repeat("x", 500)), nil), "amqp:resource-limit-exceeded")
	r := receiver(t, c, "q", nil)
	if err := r.DeadLetterMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, sender.SendMessage(within(t), text(strings.Repeat("x", 500)), nil), "amqp:resource-limit-exceeded") // dead letters count
	dr := receiver(t, c, "q", deadLetters)
	if err := dr.CompleteMessage(within(t), one(t, dr), nil); err != nil {
		t.Fatal(err)
	}
	if err := sender.SendMessage(within(t), text(strings.Repeat("x", 500)), nil); err != nil {
		t.Error(err)
	}
}

// TestAnyMessage sends what azservicebus has no field for.
func TestAnyMessage(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	for _, m := range []*azservicebus.AMQPAnnotatedMessage{
		{Body: azservicebus.AMQPAnnotatedMessageBody{Value: map[string]any{"k": int32(1)}}},
		{Body: azservicebus.AMQPAnnotatedMessageBody{Sequence: [][]any{{"a", int64(1)}, {"b"}}}},
		{Body: azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("a"), []byte("b")}},
			Properties:         &azservicebus.AMQPAnnotatedMessageProperties{MessageID: uint64(7), UserID: []byte("u")},
			MessageAnnotations: map[any]any{"x-opt-sequence-number": "forged", "x-opt-enqueued-time": int32(1), "own": "kept"},
			Header:             &azservicebus.AMQPAnnotatedMessageHeader{Priority: 9, DeliveryCount: 77},
			Footer:             map[any]any{"f": "v"}},
	} {
		if err := sender.SendAMQPAnnotatedMessage(within(t), m, nil); err != nil {
			t.Fatal(err)
		}
	}
	m := many(t, receiver(t, c, "q", nil), 3)
	if v, _ := m[0].RawAMQPMessage.Body.Value.(map[string]any); v["k"] != int32(1) {
		t.Errorf("value %v", m[0].RawAMQPMessage.Body.Value)
	}
	if v := m[1].RawAMQPMessage.Body.Sequence; len(v) != 2 || v[0][1] != int64(1) {
		t.Errorf("sequence %v", v)
	}
	raw := m[2].RawAMQPMessage
	if len(raw.Body.Data) != 2 || raw.Properties.MessageID != uint64(7) || raw.MessageAnnotations["own"] != "kept" ||
		raw.Header.Priority != 9 || m[2].DeliveryCount != 1 || *m[2].SequenceNumber != 3 || raw.Footer["f"] != "v" {
		t.Errorf("message %+v", raw)
	}
}

func TestInvalidMessages(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	long := strings.Repeat("x", 129)
	for name, m := range map[string]*azservicebus.AMQPAnnotatedMessage{
		"message ID": {Properties: &azservicebus.AMQPAnnotatedMessageProperties{MessageID: long}},
		"session ID": {Properties: &azservicebus.AMQPAnnotatedMessageProperties{GroupID: &long}},
		"schedule":   {MessageAnnotations: map[any]any{"x-opt-scheduled-enqueue-time": "soon"}},
		"partition":  {MessageAnnotations: map[any]any{"x-opt-partition-key": int64(1)}},
	} {
		m.Body.Data = [][]byte{nil}
		t.Run(name, func(t *testing.T) {
			wantCondition(t, sender.SendAMQPAnnotatedMessage(within(t), m, nil), "amqp:not-allowed")
		})
	}
	wantStored(t, s, "q", 0)
}

func TestUnknownQueue(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("none", nil))
	wantCode(t, sender.SendMessage(within(t), text("x"), nil), azservicebus.CodeNotFound)
	_, err := receiver(t, c, "none", nil).ReceiveMessages(within(t), 1, nil)
	wantCode(t, err, azservicebus.CodeNotFound)
	sender = must[*azservicebus.Sender](t)(c.NewSender("q/$DeadLetterQueue", nil))
	wantCondition(t, sender.SendMessage(within(t), text("x"), nil), "amqp:not-allowed")
}

func TestAutoCreate(t *testing.T) {
	s := start(t, &sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{MaxDeliveryCount: 1}}, nil)
	c := connect(t, s)
	send(t, c, "Made/Here", text("x"))
	r := receiver(t, c, "made/here", nil)
	if err := r.AbandonMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "Made/Here/$DeadLetterQueue", 1)
	if got := strings.Join(s.Queues(), " "); got != "Made/Here q" {
		t.Errorf("queues %s", got)
	}
	sender := must[*azservicebus.Sender](t)(c.NewSender("no spaces", nil))
	wantCode(t, sender.SendMessage(within(t), text("x"), nil), azservicebus.CodeNotFound)
}

func TestDeleteQueue(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	m := one(t, r)
	if err := s.DeleteQueue("q"); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteQueue("q"); !errors.Is(err, sbemulator.ErrQueueNotFound) {
		t.Error("deleted twice:", err)
	}
	if err := r.CompleteMessage(briefly(t), m, nil); err == nil {
		t.Error("completed a message of a deleted queue")
	}
	if err := s.CreateQueue("q", nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "q", 0)
}

func TestQueueOptions(t *testing.T) {
	s := start(t, nil, nil)
	if err := s.CreateQueue("Q", nil); !errors.Is(err, sbemulator.ErrQueueExists) {
		t.Error("names differ by case:", err)
	}
	for _, name := range []string{"", "/q", "q/", "a b", "q\x00", "ä", strings.Repeat("x", 261), "a$b"} {
		if err := s.CreateQueue(name, nil); !errors.Is(err, sbemulator.ErrInvalidName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, o := range []sbemulator.QueueOptions{
		{LockDuration: -1}, {LockDuration: 301e9}, {MaxDeliveryCount: -1}, {DefaultTTL: -1},
		{DuplicateDetectionWindow: -1}, {MaxMessageSize: -1}, {MaxMessageSize: 100<<20 + 1}, {MaxBytes: -1},
	} {
		if err := s.CreateQueue("x", &o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
