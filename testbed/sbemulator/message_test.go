package sbemulator_test

import (
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

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
		"binary ID":  {Properties: &azservicebus.AMQPAnnotatedMessageProperties{MessageID: []byte(long)}},
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

// TestMessageWithoutID: a message that is sent without an ID gets one, and is
// otherwise stored as it came.
func TestMessageWithoutID(t *testing.T) {
	s := start(t, nil, nil)
	p := open(t, s, 64<<10, 100)
	p.attach(0, false)
	p.attach(1, true)
	m := &wire.Message{Header: wire.Header{Priority: 4}}
	m.SetProperties(wire.Properties{Subject: new("s"), ContentType: new("text/plain"), Rest: [3]any{wire.Symbol("gzip"), nil, nil}})
	m.SetData([]byte("b"))
	for i, raw := range [][]byte{m.Append(nil), encoded("b")} {
		id := uint32(i)
		p.send(0, &wire.Transfer{DeliveryID: &id}, raw...)
		expect[*wire.Disposition](p)
	}
	p.credit(1, 2)
	seen := map[any]bool{}
	for i := range 2 {
		_, payload := nextTransfer(p)
		got, err := wire.ParseMessage(payload)
		if err != nil {
			t.Fatal(err)
		}
		id, _ := got.Properties.MessageID.(string)
		if len(id) != 32 || seen[id] {
			t.Errorf("message %d has the ID %q", i, id)
		}
		seen[id] = true
		if string(got.Body()) != "b" {
			t.Errorf("body %q", got.Body())
		}
		if i > 0 {
			continue
		}
		if pr := got.Properties; *pr.Subject != "s" || *pr.ContentType != "text/plain" || pr.Rest[0] != wire.Symbol("gzip") {
			t.Errorf("properties %+v", pr)
		}
	}
}

// nextTransfer reads up to the next transfer. Flows are passed over.
func nextTransfer(p *peer) (*wire.Transfer, []byte) {
	p.t.Helper()
	for {
		perf, payload := p.read()
		if tr, ok := perf.(*wire.Transfer); ok {
			return tr, payload
		}
		if _, ok := perf.(*wire.Flow); !ok {
			p.t.Fatalf("%T, want a transfer", perf)
		}
	}
}

// TestDeliveryCountOfFirstDelivery: the count of a first delivery is 0, not absent.
func TestDeliveryCountOfFirstDelivery(t *testing.T) {
	s := start(t, nil, nil)
	if _, err := s.Insert("q", &sbemulator.Message{Body: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	p := open(t, s, 64<<10, 100)
	p.attach(0, true)
	p.credit(0, 1)
	_, payload := nextTransfer(p)
	header, _, err := wire.Decode(payload)
	if err != nil {
		t.Fatal(err)
	}
	fields, _ := header.(wire.Described).Value.(wire.List)
	if len(fields) != 5 || fields[4] != uint32(0) {
		t.Errorf("header %v, want a delivery-count of 0 (messaging 3.2.1)", fields)
	}
}
