package sbemulator_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

func whole() *azservicebus.Message {
	return &azservicebus.Message{
		Body: []byte("body"), MessageID: to.Ptr("id"), SessionID: to.Ptr("session"), CorrelationID: to.Ptr("corr"),
		ContentType: to.Ptr("text/plain"), Subject: to.Ptr("subject"), To: to.Ptr("to"), ReplyTo: to.Ptr("reply"),
		ApplicationProperties: map[string]any{
			"string": "s", "int": int32(1), "bool": true, "bytes": []byte{0, 1}, "time": time.UnixMilli(5).UTC(),
		},
	}
}

func TestStoredMessages(t *testing.T) {
	s := start(t, frozen, nil)
	c := connect(t, s)
	send(t, c, "q", whole())
	m := wantStored(t, s, "q", 1)[0]
	want := sbemulator.Message{
		SequenceNumber: 1, EnqueuedAt: s.Now(), MessageID: "id", SessionID: to.Ptr("session"), CorrelationID: "corr",
		ContentType: "text/plain", Subject: "subject", To: "to", ReplyTo: "reply", Body: []byte("body"),
		ApplicationProperties: whole().ApplicationProperties,
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("stored %+v\nwant   %+v", m, want)
	}
	m.Body[0] = 'X'
	m.ApplicationProperties["string"] = "X"
	if m := wantStored(t, s, "q", 1)[0]; string(m.Body) != "body" || m.ApplicationProperties["string"] != "s" {
		t.Error("the store was changed through a copy")
	}
}

// TestAlter: each part that is changed arrives changed, and nothing else is.
func TestAlter(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(*sbemulator.Message)
		want func(*azservicebus.ReceivedMessage)
	}{
		"nothing":        {func(*sbemulator.Message) {}, func(*azservicebus.ReceivedMessage) {}},
		"body":           {func(m *sbemulator.Message) { m.Body = []byte("forged") }, func(m *azservicebus.ReceivedMessage) { m.Body = []byte("forged") }},
		"empty body":     {func(m *sbemulator.Message) { m.Body = nil }, func(m *azservicebus.ReceivedMessage) { m.Body = []byte{} }},
		"message ID":     {func(m *sbemulator.Message) { m.MessageID = "other" }, func(m *azservicebus.ReceivedMessage) { m.MessageID = "other" }},
		"no message ID":  {func(m *sbemulator.Message) { m.MessageID = "" }, func(m *azservicebus.ReceivedMessage) { m.MessageID = "" }},
		"session ID":     {func(m *sbemulator.Message) { m.SessionID = to.Ptr("other") }, func(m *azservicebus.ReceivedMessage) { m.SessionID = to.Ptr("other") }},
		"no session ID":  {func(m *sbemulator.Message) { m.SessionID = nil }, func(m *azservicebus.ReceivedMessage) { m.SessionID = nil }},
		"correlation ID": {func(m *sbemulator.Message) { m.CorrelationID = "other" }, func(m *azservicebus.ReceivedMessage) { m.CorrelationID = to.Ptr("other") }},
		"content type":   {func(m *sbemulator.Message) { m.ContentType = "" }, func(m *azservicebus.ReceivedMessage) { m.ContentType = nil }},
		"subject":        {func(m *sbemulator.Message) { m.Subject = "other" }, func(m *azservicebus.ReceivedMessage) { m.Subject = to.Ptr("other") }},
		"an attribute": {func(m *sbemulator.Message) { m.ApplicationProperties["string"] = "other" },
			func(m *azservicebus.ReceivedMessage) { m.ApplicationProperties["string"] = "other" }},
		"an attribute added": {func(m *sbemulator.Message) { m.ApplicationProperties["new"] = int64(1) },
			func(m *azservicebus.ReceivedMessage) { m.ApplicationProperties["new"] = int64(1) }},
		"an attribute removed": {func(m *sbemulator.Message) { delete(m.ApplicationProperties, "string") },
			func(m *azservicebus.ReceivedMessage) { delete(m.ApplicationProperties, "string") }},
		"no attributes": {func(m *sbemulator.Message) { m.ApplicationProperties = nil },
			func(m *azservicebus.ReceivedMessage) { m.ApplicationProperties = nil }},
		"delivery count": {func(m *sbemulator.Message) { m.DeliveryCount = 6 }, func(m *azservicebus.ReceivedMessage) { m.DeliveryCount = 7 }},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, nil, nil)
			c := connect(t, s)
			send(t, c, "q", whole())
			r := receiver(t, c, "q", nil)
			want := must[[]*azservicebus.ReceivedMessage](t)(r.PeekMessages(within(t), 1, nil))[0]
			if err := s.Alter("q", 1, change.do); err != nil {
				t.Fatal(err)
			}
			change.want(want)
			got := one(t, r)
			for _, m := range []*azservicebus.ReceivedMessage{got, want} {
				m.RawAMQPMessage, m.LockToken, m.LockedUntil = nil, [16]byte{}, nil
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("received %+v\nwant     %+v", got, want)
			}
		})
	}
}

// TestAlterSession moves a message between sessions in the store.
func TestAlterSession(t *testing.T) {
	s := start(t, nil, sessional())
	c := connect(t, s)
	send(t, c, "q", inSession("a", "1"), inSession("a", "2"))
	held := one(t, accept(t, c, "a"))
	if err := s.Alter("q", *held.SequenceNumber, func(m *sbemulator.Message) { m.SessionID = to.Ptr("b") }); err != nil {
		t.Fatal(err)
	}
	if m := one(t, accept(t, connect(t, s), "b")); string(m.Body) != "1" || *m.SequenceNumber != 1 {
		t.Errorf("received %s, number %d", m.Body, *m.SequenceNumber)
	}
}

func TestMoveDuplicateInsertRemove(t *testing.T) {
	s := start(t, nil, nil)
	if err := s.CreateQueue("other", nil); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s)
	send(t, c, "q", whole())
	copied := must[int64](t)(s.Duplicate("q", 1))
	if copied != 2 {
		t.Errorf("the copy has number %d", copied)
	}
	moved := must[int64](t)(s.Move("q", 1, "other"))
	a, b := one(t, receiver(t, c, "q", nil)), one(t, receiver(t, c, "other", nil))
	if string(a.Body) != "body" || string(b.Body) != "body" || a.MessageID != "id" || b.MessageID != "id" || *b.SequenceNumber != moved {
		t.Errorf("copy %+v\nmoved %+v", a, b)
	}
	dead := must[int64](t)(s.Move("other", moved, "q/$DeadLetterQueue"))
	if d := one(t, receiver(t, c, "q", deadLetters)); *d.SequenceNumber != dead || d.DeadLetterSource != nil {
		t.Errorf("dead letter %+v", d)
	}
	n := must[int64](t)(s.Insert("other", &sbemulator.Message{
		MessageID: "made", SessionID: to.Ptr(""), Body: []byte{0, 255}, ApplicationProperties: map[string]any{"k": 5}, DeliveryCount: 2,
	}))
	m := one(t, receiver(t, c, "other", destructive))
	if m.MessageID != "made" || *m.SessionID != "" || string(m.Body) != "\x00\xff" || m.ApplicationProperties["k"] != int64(5) ||
		m.DeliveryCount != 3 || *m.SequenceNumber != n {
		t.Errorf("inserted %+v", m)
	}
	if err := s.Remove("q", copied); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "q", 0)
	st := must[sbemulator.Stats](t)(s.Stats("q"))
	if st.DeadLetters != 1 || st.Locked != 0 || st.Active != 0 || st.Bytes <= 0 {
		t.Errorf("stats %+v", st)
	}
}

func TestStorageErrors(t *testing.T) {
	s := start(t, nil, nil)
	none := func(*sbemulator.Message) {}
	for name, err := range map[string]error{
		"messages": second(s.Messages("none")), "stats": second(s.Stats("none")), "alter": s.Alter("none", 1, none),
		"move": second(s.Move("none", 1, "q")), "duplicate": second(s.Duplicate("none", 1)),
		"insert": second(s.Insert("none", &sbemulator.Message{})), "remove": s.Remove("none", 1),
		"management": second(s.Messages("q/$management")), "cbs": second(s.Messages("$cbs")),
	} {
		if !errors.Is(err, sbemulator.ErrQueueNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"alter": s.Alter("q", 1, none), "move": second(s.Move("q", 1, "q")), "duplicate": second(s.Duplicate("q", 1)), "remove": s.Remove("q", 1),
	} {
		if !errors.Is(err, sbemulator.ErrMessageNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := must[int64](t)(s.Insert("q", &sbemulator.Message{}))
	if !errors.Is(second(s.Move("q", n, "none")), sbemulator.ErrQueueNotFound) {
		t.Error("moved to a queue that is not there")
	}
	odd := map[string]any{"k": struct{}{}}
	if second(s.Insert("q", &sbemulator.Message{ApplicationProperties: odd})) == nil {
		t.Error("a property of an unknown type was inserted")
	}
	if s.Alter("q", n, func(m *sbemulator.Message) { m.ApplicationProperties = odd }) == nil {
		t.Error("a property of an unknown type was set")
	}
	wantStored(t, s, "q", 1)
}

func second[T any](_ T, err error) error { return err }
