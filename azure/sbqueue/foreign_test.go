package sbqueue_test

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// sdk is another client of the namespace: Microsoft's own, which sends and shows
// messages with all that AMQP has.
func (n *namespace) sdk(t *testing.T) *azservicebus.Client {
	t.Helper()
	c, err := azservicebus.NewClientFromConnectionString(n.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(t.Context()) })
	return c
}

// sendRaw sends a message as another program would.
func (n *namespace) sendRaw(t *testing.T, m *azservicebus.AMQPAnnotatedMessage) {
	t.Helper()
	s, err := n.sdk(t).NewSender("q", nil)
	if err == nil {
		err = s.SendAMQPAnnotatedMessage(t.Context(), m, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// receiveRaw shows the next message as another program sees it.
func (n *namespace) receiveRaw(t *testing.T) *azservicebus.AMQPAnnotatedMessage {
	t.Helper()
	r, err := n.sdk(t).NewReceiverForQueue("q", nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := r.ReceiveMessages(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return all[0].RawAMQPMessage
}

// TestForeignBodies: the body of another sender's message arrives byte for byte,
// whichever section of AMQP it is in, or is undecodable. It never arrives empty.
func TestForeignBodies(t *testing.T) {
	t.Parallel()
	const text = `{"order":1}`
	n := start(t, nil, sbemulator.QueueOptions{})
	q := n.open(t)
	for name, c := range map[string]struct {
		body        azservicebus.AMQPAnnotatedMessageBody
		want        string // "": not empty
		undecodable bool
	}{
		"data":              {azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte(text)}}, text, false},
		"two data sections": {azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte(text[:5]), []byte(text[5:])}}, text, false},
		"text":              {azservicebus.AMQPAnnotatedMessageBody{Value: text}, text, false},
		"bytes":             {azservicebus.AMQPAnnotatedMessageBody{Value: []byte(text)}, text, false},
		"number":            {azservicebus.AMQPAnnotatedMessageBody{Value: int64(1)}, "", true},
		"map":               {azservicebus.AMQPAnnotatedMessageBody{Value: map[string]any{"order": int64(1)}}, "", true},
		"sequence":          {azservicebus.AMQPAnnotatedMessageBody{Sequence: [][]any{{"order", int64(1)}}}, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			n.sendRaw(t, &azservicebus.AMQPAnnotatedMessage{Body: c.body, Properties: &azservicebus.AMQPAnnotatedMessageProperties{MessageID: name}})
			d := receive(t, q, 1)[0]
			if d.Undecodable != c.undecodable || c.want != "" && string(d.Body) != c.want || len(d.Body) == 0 {
				t.Errorf("the body is %q, undecodable %t; want %q, %t", d.Body, d.Undecodable, c.want, c.undecodable)
			}
			if _, err := settle(t, q, d, driver.Complete); err != nil {
				t.Error(err)
			}
		})
	}
}

// foreign is a message with everything that a sender can put into one.
func foreign(body azservicebus.AMQPAnnotatedMessageBody) *azservicebus.AMQPAnnotatedMessage {
	text := func(s string) *string { return &s }
	created := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	return &azservicebus.AMQPAnnotatedMessage{
		Body:   body,
		Header: &azservicebus.AMQPAnnotatedMessageHeader{Durable: true, Priority: 7},
		Footer: map[any]any{"checksum": int64(9)},
		MessageAnnotations: map[any]any{
			"x-opt-jms-msg-type": int8(5),
		},
		ApplicationProperties: map[string]any{
			"number": int64(5), "bytes": []byte{0xff, 0}, "flag": true, "text": "t", "DeadLetterReason": "an attribute of the application",
		},
		Properties: &azservicebus.AMQPAnnotatedMessageProperties{
			MessageID: "foreign", CorrelationID: uint64(77), ContentType: text("application/json"), ContentEncoding: text("gzip"),
			Subject: text("subject"), To: text("to"), ReplyTo: text("reply"), ReplyToGroupID: text("replies"), CreationTime: &created,
		},
	}
}

// wantForeign compares what another program sees with what it sent.
func wantForeign(t *testing.T, got, sent *azservicebus.AMQPAnnotatedMessage, without ...string) {
	t.Helper()
	if !reflect.DeepEqual(got.Body, sent.Body) {
		t.Errorf("the body is %+v, was %+v", got.Body, sent.Body)
	}
	for name, want := range sent.ApplicationProperties {
		if v := got.ApplicationProperties[name]; !reflect.DeepEqual(v, want) && !(len(without) > 0 && without[0] == name) {
			t.Errorf("property %s is %T %v, was %T %v", name, v, v, want, want)
		}
	}
	if v := got.MessageAnnotations["x-opt-jms-msg-type"]; v != int8(5) {
		t.Errorf("an annotation of the sender is %T %v", v, v)
	}
	if v := got.Footer["checksum"]; v != int64(9) {
		t.Errorf("the footer is %v", got.Footer)
	}
	if got.Header == nil || !got.Header.Durable || got.Header.Priority != 7 {
		t.Errorf("the header is %+v, was %+v", got.Header, sent.Header)
	}
	p, want := *got.Properties, *sent.Properties
	p.MessageID, p.AbsoluteExpiryTime = want.MessageID, nil
	if !p.CreationTime.Equal(*want.CreationTime) {
		t.Errorf("created %s, was %s", p.CreationTime, want.CreationTime)
	}
	p.CreationTime, p.GroupSequence, p.UserID = want.CreationTime, want.GroupSequence, want.UserID
	if !reflect.DeepEqual(p, want) {
		t.Errorf("the properties are %+v, were %+v", p, want)
	}
}

var foreignBodies = map[string]azservicebus.AMQPAnnotatedMessageBody{
	"data":     {Data: [][]byte{[]byte("a"), []byte("b")}},
	"text":     {Value: "text"},
	"map":      {Value: map[string]any{"order": int64(1)}},
	"sequence": {Sequence: [][]any{{"order", int64(1)}}},
}

// TestPostponedAsReceived: an abandon with a delay passes another sender's message on
// as it came, and not what the application made of its delivery.
func TestPostponedAsReceived(t *testing.T) {
	t.Parallel()
	for name, body := range foreignBodies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{})
			q := n.open(t)
			sent := foreign(body)
			n.sendRaw(t, sent)
			d := receive(t, q, 1)[0]
			if d.CorrelationID != "77" || d.Attributes["number"] != "5" || d.Attributes["bytes"] != "\xff\x00" ||
				d.Attributes["DeadLetterReason"] != "an attribute of the application" || d.DeadLetter != nil {
				t.Errorf("received %+v", d)
			}
			d.Attributes["text"], d.Attributes["more"], d.Body = "changed", "added", bytes.ToUpper(d.Body)
			s := driver.Settlement{Delivery: d, Kind: driver.Abandon, Delay: 10 * time.Millisecond}
			if err := q.Settle(t.Context(), []driver.Settlement{s})[0]; err != nil {
				t.Fatal(err)
			}
			got := n.receiveRaw(t)
			wantForeign(t, got, sent)
			if _, there := got.ApplicationProperties["more"]; there {
				t.Error("what the application added to its delivery was sent")
			}
		})
	}
}

// TestRedriveAsReceived: a dead letter that is sent again is passed on as it came, but
// for what its sender changed.
func TestRedriveAsReceived(t *testing.T) {
	t.Parallel()
	for name, body := range foreignBodies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{})
			q := n.open(t)
			sent := foreign(body)
			n.sendRaw(t, sent)
			if _, err := settle(t, q, receive(t, q, 1)[0], driver.MoveToDeadLetter); err != nil {
				t.Fatal(err)
			}
			dead, err := q.DeadLetters(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			d := receive(t, dead, 1)[0]
			if _, there := d.Attributes["DeadLetterReason"]; there || d.DeadLetter == nil || d.DeadLetter.Reason != "test" {
				t.Errorf("the dead letter is %+v, %+v", d.DeadLetter, d.Attributes)
			}
			m := d.Message
			m.DedupID = "again"
			send(t, q, &m)
			got := n.receiveRaw(t)
			wantForeign(t, got, sent, "DeadLetterReason") // the broker's in a dead letter, and over
			for _, name := range []string{"DeadLetterReason", "DeadLetterErrorDescription", "qrt-dead-queue", "qrt-dead-at"} {
				if v, there := got.ApplicationProperties[name]; there {
					t.Errorf("the message that was sent again has %s: %v", name, v)
				}
			}
		})
	}
}

// TestChangedOfReceived: what a caller changes in a message that was received goes out
// as changed, and nothing of what it replaces.
func TestChangedOfReceived(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	q := n.open(t)
	n.sendRaw(t, foreign(foreignBodies["map"]))
	d := receive(t, q, 1)[0]
	m := d.Clone()
	m.Body, m.Attributes, m.CorrelationID, m.ContentType, m.DedupID = []byte("new"), map[string]string{"number": "6"}, "", "", "again"
	send(t, q, &m)
	if _, err := settle(t, q, d, driver.Complete); err != nil {
		t.Fatal(err)
	}
	got := n.receiveRaw(t)
	p := got.ApplicationProperties
	if string(got.Body.Data[0]) != "new" || got.Body.Value != nil || p["number"] != "6" || p["flag"] != nil || p["DeadLetterReason"] != nil ||
		got.Properties.CorrelationID != nil || got.Properties.ContentType != nil {
		t.Errorf("sent %+v, %+v, %v", got.Body, got.Properties, p)
	}
}

// TestReservedAttributes: names that the broker gives a meaning are refused at Send,
// because it would replace or drop them.
func TestReservedAttributes(t *testing.T) {
	t.Parallel()
	q := start(t, nil, sbemulator.QueueOptions{}).open(t)
	for _, name := range []string{"DeadLetterReason", "DeadLetterErrorDescription", "qrt-x", "traceparent"} {
		r := q.Send(t.Context(), []*driver.Message{{ID: "a", Attributes: map[string]string{name: "v"}}})[0]
		if driver.KindOf(r.Err) != driver.Invalid {
			t.Errorf("Send with the attribute %s: %v, want Invalid", name, r.Err)
		}
	}
}

// TestUnreadable: a message that the SDK panics on ends nothing, and the others are
// received.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{LockDuration: time.Minute, MaxDeliveryCount: 3})
	q := n.open(t)
	n.sendRaw(t, &azservicebus.AMQPAnnotatedMessage{
		Body:                  azservicebus.AMQPAnnotatedMessageBody{Data: [][]byte{[]byte("x")}},
		ApplicationProperties: map[string]any{"DeadLetterReason": int64(5)},
		Properties:            &azservicebus.AMQPAnnotatedMessageProperties{MessageID: "unreadable"},
	})
	send(t, q, &driver.Message{ID: "a"}, &driver.Message{ID: "b"})
	left := map[string]bool{"a": true, "b": true}
	for deadline := time.Now().Add(2 * time.Minute); len(left) > 0 && time.Now().Before(deadline); {
		all, err := q.Receive(t.Context(), 10, time.Second)
		if err != nil && driver.KindOf(err) != driver.Unavailable {
			t.Fatalf("Receive: %v", err)
		}
		for _, d := range all {
			if _, err := settle(t, q, d, driver.Complete); err != nil {
				t.Errorf("Complete: %v", err)
			}
			delete(left, d.ID)
		}
		if len(all) > 0 || err != nil {
			continue
		}
		// Nothing is on its way. What was with the one that cannot be read is free when its
		// lock is over.
		if err := n.Advance(2 * time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if len(left) > 0 {
		t.Errorf("not received: %v", left)
	}
}
