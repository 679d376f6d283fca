package sbemulator_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

func TestSendReceiveComplete(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	body := make([]byte, 256)
	for i := range body {
		body[i] = byte(i)
	}
	before := time.Now().Add(-time.Second)
	send(t, c, "q", &azservicebus.Message{
		Body: body, MessageID: to.Ptr("id"), ContentType: to.Ptr("application/octet-stream"),
		CorrelationID: to.Ptr("corr"), Subject: to.Ptr("subject"), To: to.Ptr("to"), ReplyTo: to.Ptr("reply"),
		TimeToLive: to.Ptr(time.Hour), PartitionKey: to.Ptr("id"),
		ApplicationProperties: map[string]any{"s": "v", "n": int64(7), "b": true},
	})
	r := receiver(t, c, "q", nil)
	m := one(t, r)
	if !bytes.Equal(m.Body, body) || m.MessageID != "id" || *m.ContentType != "application/octet-stream" ||
		*m.CorrelationID != "corr" || *m.Subject != "subject" || *m.To != "to" || *m.ReplyTo != "reply" ||
		*m.TimeToLive != time.Hour || *m.PartitionKey != "id" {
		t.Errorf("message %+v", m)
	}
	if p := m.ApplicationProperties; p["s"] != "v" || p["n"] != int64(7) || p["b"] != true || len(p) != 3 {
		t.Errorf("application properties %v", p)
	}
	if m.DeliveryCount != 1 || *m.SequenceNumber != 1 || m.EnqueuedTime.Before(before) || m.State != azservicebus.MessageStateActive {
		t.Errorf("delivery %d, number %d, enqueued %v, state %d", m.DeliveryCount, *m.SequenceNumber, m.EnqueuedTime, m.State)
	}
	if d := time.Until(*m.LockedUntil); d < 50*time.Second || d > time.Minute {
		t.Errorf("locked for %v, want a minute", d)
	}
	if err := r.CompleteMessage(within(t), m, nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "q", 0)
}

func TestOrderAndCreditTopUp(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	r := receiver(t, c, "q", nil)
	none(t, r) // leaves a credit behind
	for i := range 5 {
		send(t, c, "q", text(number(i)))
	}
	for i, m := range many(t, r, 5) {
		if string(m.Body) != number(i) {
			t.Errorf("message %d is %s", i, m.Body)
		}
		if err := r.CompleteMessage(within(t), m, nil); err != nil {
			t.Error(err)
		}
	}
	wantStored(t, s, "q", 0)
}

func TestReceiveAndDelete(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("a"), text("b"))
	r := receiver(t, c, "q", destructive)
	if m := one(t, r); string(m.Body) != "a" || m.DeliveryCount != 1 {
		t.Errorf("%s, delivery %d", m.Body, m.DeliveryCount)
	}
	if m := wantStored(t, s, "q", 1); string(m[0].Body) != "b" {
		t.Errorf("left is %s", m[0].Body)
	}
}

func TestAbandon(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{MaxDeliveryCount: 3})
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	for n := range 3 {
		m := one(t, r)
		if m.DeliveryCount != uint32(n+1) || *m.SequenceNumber != 1 {
			t.Errorf("delivery %d has count %d and number %d", n+1, m.DeliveryCount, *m.SequenceNumber)
		}
		if n > 0 && m.ApplicationProperties["tried"] != int64(n-1) {
			t.Errorf("properties %v", m.ApplicationProperties)
		}
		o := &azservicebus.AbandonMessageOptions{PropertiesToModify: map[string]any{"tried": int64(n)}}
		if err := r.AbandonMessage(within(t), m, o); err != nil {
			t.Fatal(err)
		}
	}
	none(t, r)
	d := one(t, receiver(t, c, "q", deadLetters))
	if *d.DeadLetterReason != "MaxDeliveryCountExceeded" || d.DeadLetterSource != nil || string(d.Body) != "x" ||
		*d.SequenceNumber != 1 || d.ApplicationProperties["tried"] != int64(2) {
		t.Errorf("dead letter %+v", d)
	}
}

func TestDeadLetter(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", &azservicebus.Message{Body: []byte("x"), MessageID: to.Ptr("id"), ApplicationProperties: map[string]any{"k": "v"}})
	r := receiver(t, c, "q", nil)
	err := r.DeadLetterMessage(within(t), one(t, r), &azservicebus.DeadLetterOptions{
		Reason: to.Ptr("authentication_failed"), ErrorDescription: to.Ptr("fixed text"), PropertiesToModify: map[string]any{"more": "m"},
	})
	if err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "q", 0)
	dr := receiver(t, c, "q", deadLetters)
	d := one(t, dr)
	if *d.DeadLetterReason != "authentication_failed" || *d.DeadLetterErrorDescription != "fixed text" || d.DeadLetterSource != nil ||
		d.MessageID != "id" || d.ApplicationProperties["k"] != "v" || d.ApplicationProperties["more"] != "m" || string(d.Body) != "x" {
		t.Errorf("dead letter %+v", d)
	}
	wantCondition(t, dr.DeadLetterMessage(within(t), d, nil), "amqp:not-allowed")
	if err := s.ExpireLock("q/$deadletterqueue", 1); err != nil { // the refusal left it locked
		t.Fatal(err)
	}
	if err := dr.CompleteMessage(within(t), one(t, dr), nil); err != nil {
		t.Error(err)
	}
	wantStored(t, s, "q/$DeadLetterQueue", 0)
}

func TestDefer(t *testing.T) {
	s := start(t, &sbemulator.Options{FrozenClock: true}, nil)
	c := connect(t, s)
	send(t, c, "q", text("later"), text("now"))
	r := receiver(t, c, "q", nil)
	m := one(t, r)
	if err := r.DeferMessage(within(t), m, &azservicebus.DeferMessageOptions{PropertiesToModify: map[string]any{"why": "w"}}); err != nil {
		t.Fatal(err)
	}
	if m := one(t, r); string(m.Body) != "now" {
		t.Errorf("received %s, want the message that is not deferred", m.Body)
	}
	if err := s.Advance(5 * time.Minute); err != nil { // for "now" to come back, and not the other
		t.Fatal(err)
	}
	numbers := []int64{*m.SequenceNumber}
	d := must[[]*azservicebus.ReceivedMessage](t)(r.ReceiveDeferredMessages(within(t), numbers, nil))
	if len(d) != 1 || string(d[0].Body) != "later" || d[0].State != azservicebus.MessageStateDeferred ||
		d[0].ApplicationProperties["why"] != "w" || d[0].LockedUntil == nil {
		t.Fatalf("deferred %+v", d)
	}
	if _, err := r.ReceiveDeferredMessages(within(t), numbers, nil); err == nil {
		t.Error("a deferred message was received twice")
	} else {
		wantCode(t, err, azservicebus.CodeNotFound)
	}
	if err := r.AbandonMessage(within(t), d[0], nil); err != nil {
		t.Fatal(err)
	}
	d = must[[]*azservicebus.ReceivedMessage](t)(r.ReceiveDeferredMessages(within(t), numbers, nil))
	if d[0].DeliveryCount != 2 {
		t.Errorf("delivery count %d after an abandon", d[0].DeliveryCount)
	}
	if err := r.CompleteMessage(within(t), d[0], nil); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, "q", 1)
}

func TestPeek(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("a"), text("b"), text("c"))
	r := receiver(t, c, "q", nil)
	locked := one(t, r)
	if err := r.DeferMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	peek := func(n int) string {
		t.Helper()
		var out []byte
		for _, m := range must[[]*azservicebus.ReceivedMessage](t)(r.PeekMessages(within(t), n, nil)) {
			out = append(out, m.Body...)
			if string(m.Body) == "b" && m.State != azservicebus.MessageStateDeferred {
				t.Errorf("state of b: %d", m.State)
			}
		}
		return string(out)
	}
	if got := peek(2) + "," + peek(5) + "," + peek(5); got != "ab,c," {
		t.Errorf("peeked %s", got)
	}
	from := must[[]*azservicebus.ReceivedMessage](t)(r.PeekMessages(within(t), 5, &azservicebus.PeekMessagesOptions{FromSequenceNumber: to.Ptr(int64(3))}))
	if len(from) != 1 || string(from[0].Body) != "c" {
		t.Errorf("peeked %d messages from number 3", len(from))
	}
	if err := r.CompleteMessage(within(t), locked, nil); err != nil {
		t.Error("peeking touched a lock:", err)
	}
}

// TestRoundRobin: two receivers that both want messages both get some.
func TestRoundRobin(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	a, b := receiver(t, c, "q", nil), receiver(t, c, "q", nil)
	none(t, a)
	none(t, b)
	send(t, c, "q", text("1"), text("2"))
	if string(one(t, a).Body) == string(one(t, b).Body) {
		t.Error("two receivers hold one message")
	}
}
