package sqsqueue

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

func deadLetters(t *testing.T, q driver.Queue) driver.Queue {
	t.Helper()
	d, err := q.DeadLetters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A dead letter is the stored message with everything it had, and why.
func TestDeadLetter(t *testing.T) {
	for _, fifo := range []bool{false, true} {
		t.Run(fmt.Sprintf("fifo=%t", fifo), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSQS()
				suffix, session := "", ""
				if fifo {
					suffix, session = ".fifo", "s"
				}
				f.create("d"+suffix, nil)
				f.create("q"+suffix, fakeRedrive("d"+suffix, 100))
				q := open(t, connect(t, f, nil), "q", nil)
				m := &driver.Message{
					ID: "id", SessionID: session, CorrelationID: "c", ContentType: "text/plain",
					Attributes: map[string]string{}, Body: []byte("QRE1\x01\x00"), Sealed: true,
				}
				for i := range 10 {
					m.Attributes[fmt.Sprintf("a%d", i)] = "v"
				}
				if r := q.Send(t.Context(), []*driver.Message{m}); r[0].Err != nil {
					t.Fatal(r[0].Err)
				}
				d := receive(t, q, 1, time.Second)
				stored := f.depth("q" + suffix)[0]
				settle(t, q, driver.MoveToDeadLetter, d...)
				if left := f.depth("q" + suffix); left != nil {
					t.Fatalf("left in the queue: %v", left)
				}
				if moved := f.depth("d" + suffix); len(moved) != 1 || moved[0] != stored {
					t.Fatalf("moved %v, was %q", moved, stored)
				}
				dlq := deadLetters(t, q)
				got := receive(t, dlq, 1, time.Second)[0]
				if got.ID != m.ID || got.SessionID != session || got.CorrelationID != "c" || got.ContentType != "text/plain" ||
					fmt.Sprint(got.Attributes) != fmt.Sprint(m.Attributes) || string(got.Body) != string(m.Body) || !got.Sealed {
					t.Errorf("got %+v", got.Message)
				}
				if l := got.DeadLetter; l == nil || l.Reason != "test" || l.Description != "a test" || l.Queue != "q" || !l.At.Equal(time.Now().UTC()) {
					t.Errorf("why: %+v", l)
				}
				wantError(t, settleErrors(dlq, driver.MoveToDeadLetter, got)[0], errors.ErrUnsupported)
				settle(t, dlq, driver.Complete, got)
				wantError(t, dlq.Send(t.Context(), []*driver.Message{m})[0].Err, errors.ErrUnsupported)
				_, err := dlq.AcceptSession(t.Context(), "", 0)
				wantError(t, err, errors.ErrUnsupported)
				_, err = dlq.DeadLetters(t.Context())
				wantError(t, err, errors.ErrUnsupported)
			})
		})
	}
}

// Until the dead-letter queue has confirmed the copy nothing is deleted.
func TestDeadLetterIsConfirmedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("d", nil)
		f.create("q", fakeRedrive("d", 100))
		q := open(t, connect(t, f, nil), "q", nil)
		send(t, q, "m")
		d := receiveBodies(t, q, 1, 0, "m")
		f.refuse = func(action, _ string) string {
			if action == "SendMessageBatch" {
				return "InternalError"
			}
			return ""
		}
		wantError(t, settleErrors(q, driver.MoveToDeadLetter, d...)[0], driver.ErrUnavailable)
		if len(f.depth("q")) != 1 || len(f.depth("d")) != 0 {
			t.Fatalf("queue %v, dead letters %v", f.depth("q"), f.depth("d"))
		}
		f.refuse = func(action, _ string) string {
			if action == "DeleteMessageBatch" {
				return "InternalError"
			}
			return ""
		}
		wantError(t, settleErrors(q, driver.MoveToDeadLetter, d...)[0], driver.ErrUnavailable)
		if len(f.depth("q")) != 1 || len(f.depth("d")) != 1 {
			t.Fatalf("queue %v, dead letters %v: a crash in between may leave two, never none", f.depth("q"), f.depth("d"))
		}
		f.refuse = nil
		settle(t, q, driver.MoveToDeadLetter, d...) // the delivery is still this holder's
	})
}

// On FIFO queues a repeated move is dropped by de-duplication, and the move of a
// redriven copy is not.
func TestDeadLetterDeduplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		q := fifo(t, f, 1, nil)[0]
		m := &driver.Message{ID: "id", SessionID: "a", Body: []byte("m"), DedupID: "first"}
		if r := q.Send(t.Context(), []*driver.Message{m}); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
		d := receiveBodies(t, q, 1, 0, "m")
		f.refuse = func(action, _ string) string {
			if action == "DeleteMessageBatch" {
				return "InternalError"
			}
			return ""
		}
		for range 3 {
			wantError(t, settleErrors(q, driver.MoveToDeadLetter, d...)[0], driver.ErrUnavailable)
		}
		f.refuse = nil
		settle(t, q, driver.MoveToDeadLetter, d...)
		dlq := deadLetters(t, q)
		dead := receiveBodies(t, dlq, 10, 0, "m")
		m.DedupID = "redrive"
		if r := q.Send(t.Context(), []*driver.Message{m}); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
		settle(t, dlq, driver.Complete, dead...)
		settle(t, q, driver.MoveToDeadLetter, receiveBodies(t, q, 1, 0, "m")...)
		receiveBodies(t, dlq, 10, 0, "m")
	})
}

func TestNoDeadLetterQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q", nil)
		q := open(t, connect(t, f, nil), "q", nil)
		if c := q.Capabilities(); c.DeadLetter != driver.None {
			t.Errorf("claims %s", c.DeadLetter)
		}
		_, err := q.DeadLetters(t.Context())
		wantError(t, err, driver.ErrNotFound)
		send(t, q, "m")
		d := receiveBodies(t, q, 1, 0, "m")
		err = settleErrors(q, driver.MoveToDeadLetter, d...)[0]
		wantError(t, err, driver.ErrNotFound)
		wantError(t, err, errors.ErrUnsupported)
		if len(f.depth("q")) != 1 {
			t.Fatal("the message is gone")
		}
		settle(t, q, driver.Complete, d...) // the lock is as it was
	})
}

func TestConfiguredDeadLetterQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("q.fifo", nil)
		f.create("q-dead.fifo", nil)
		q := open(t, connect(t, f, &Options{DeadLetterQueue: func(queue string) string { return queue + "-dead" }}), "q", nil)
		send(t, q, "a1")
		settle(t, q, driver.MoveToDeadLetter, receiveBodies(t, q, 1, 0, "a1")...)
		receiveBodies(t, deadLetters(t, q), 1, 0, "a1")
		s, err := q.Stats(t.Context())
		if err != nil || s.DeadLetters != 1 || s.Ready != 0 || !s.Approximate {
			t.Errorf("%+v, %v; want one dead letter and none ready, approximately", s, err)
		}
	})
}

// The broker's own redrive works beside it: its dead letters say so.
func TestBrokerRedrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("d", nil)
		f.create("q", fakeRedrive("d", 2))
		q := open(t, connect(t, f, nil), "q", nil)
		if n := q.Capabilities().MaxDeliveries; n != 2 {
			t.Errorf("MaxDeliveries %d", n)
		}
		send(t, q, "m")
		for range 2 {
			settle(t, q, driver.Abandon, receiveBodies(t, q, 1, 0, "m")...)
		}
		receiveBodies(t, q, 1, 0)
		d := receiveBodies(t, deadLetters(t, q), 1, 0, "m")
		if l := d[0].DeadLetter; l == nil || l.Reason != "max_deliveries" || l.Queue != "q" {
			t.Errorf("why: %+v", l)
		}
	})
}

// A foreign sender may use all ten attributes; one gives way to the reason, and
// comes back.
func TestDeadLetterOfForeignMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("d", nil)
		f.create("q", fakeRedrive("d", 100))
		attrs := make(map[string]types.MessageAttributeValue)
		for i := range 10 {
			attrs[fmt.Sprintf("n%d", i)] = types.MessageAttributeValue{DataType: aws.String("Number"), StringValue: aws.String(fmt.Sprint(i))}
		}
		_, err := f.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: aws.String("fake://q"), Entries: []types.SendMessageBatchRequestEntry{{
			Id: aws.String("0"), MessageBody: aws.String("m"), MessageAttributes: attrs}}})
		if err != nil {
			t.Fatal(err)
		}
		q := open(t, connect(t, f, nil), "q", nil)
		d := receiveBodies(t, q, 1, 0, "m")
		if d[0].ID != d[0].BrokerID || len(d[0].Attributes) != 10 {
			t.Fatalf("received %+v, want the BrokerID as ID and 10 attributes", d[0].Message)
		}
		errs := q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.MoveToDeadLetter,
			Reason: strings.Repeat("r", 500), Description: strings.Repeat("é", 5000)}})
		if errs[0] != nil {
			t.Fatal(errs[0])
		}
		dead := receiveBodies(t, deadLetters(t, q), 1, 0, "m")[0]
		if fmt.Sprint(dead.Attributes) != fmt.Sprint(d[0].Attributes) {
			t.Errorf("attributes %v, were %v", dead.Attributes, d[0].Attributes)
		}
		if len(dead.DeadLetter.Reason) != maxReason || len(dead.DeadLetter.Description) != maxDescription {
			t.Errorf("reason of %d bytes, description of %d", len(dead.DeadLetter.Reason), len(dead.DeadLetter.Description))
		}
	})
}

// A message that leaves no room for a long description keeps the beginning of it, and is
// dead-lettered all the same.
func TestDeadLetterWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		small := map[string]string{"MaximumMessageSize": "8192"}
		f.create("d", small)
		f.create("q", map[string]string{"MaximumMessageSize": "8192", "RedrivePolicy": fakeRedrive("d", 100)["RedrivePolicy"]})
		q := open(t, connect(t, f, nil), "q", nil)
		description := strings.Repeat("d", 4096)
		for size, want := range map[int]int{2000: 4096, 4600: leastDescription} {
			body := strings.Repeat("x", size)
			if r := q.Send(t.Context(), []*driver.Message{{ID: "m", Body: []byte(body)}}); r[0].Err != nil {
				t.Fatal(r[0].Err)
			}
			d := receiveBodies(t, q, 1, 0, body)
			if errs := q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.MoveToDeadLetter, Reason: "r", Description: description}}); errs[0] != nil {
				t.Fatal(errs[0])
			}
			dead := deadLetters(t, q)
			l := receiveBodies(t, dead, 1, 0, body)[0]
			if l.DeadLetter.Description != description[:want] {
				t.Errorf("a body of %d bytes: a description of %d, want %d", size, len(l.DeadLetter.Description), want)
			}
			if errs := dead.Settle(t.Context(), []driver.Settlement{{Delivery: l, Kind: driver.Complete}}); errs[0] != nil {
				t.Fatal(errs[0])
			}
		}
	})
}

// A dead-letter queue that is gone costs no message, and is looked for anew: it
// may come back under another URL.
func TestDeadLetterQueueIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("d", nil)
		f.create("q", fakeRedrive("d", 100))
		q := open(t, connect(t, f, nil), "q", nil)
		send(t, q, "1", "2")
		d := receiveBodies(t, q, 2, 0, "1", "2")
		settle(t, q, driver.MoveToDeadLetter, d[0])
		f.remove("d")
		wantError(t, settleErrors(q, driver.MoveToDeadLetter, d[1])[0], driver.ErrNotFound)
		if left := f.depth("q"); len(left) != 1 {
			t.Fatalf("left: %v", left)
		}
		f.move("d")
		settle(t, q, driver.MoveToDeadLetter, d[1])
		if got := f.depth("d"); fmt.Sprint(got) != "[2]" {
			t.Errorf("dead letters: %v", got)
		}
	})
}

// Without a redrive policy the configured queue is of the same kind: a standard
// queue would lose a message's session, and a FIFO queue would make one up.
func TestConfiguredDeadLetterQueueIsOfTheSameKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ queue, dead, other string }{
			{"q.fifo", "q-dead.fifo", "q-dead"},
			{"q", "q-dead", "q-dead.fifo"},
		} {
			f := newFakeSQS()
			f.create(c.queue, nil)
			f.create(c.other, nil)
			p := connect(t, f, &Options{DeadLetterQueue: func(queue string) string { return queue + "-dead" }})
			q := open(t, p, "q", nil)
			send(t, q, "a1")
			d := receiveBodies(t, q, 1, time.Second, "a1")
			wantError(t, settleErrors(q, driver.MoveToDeadLetter, d...)[0], driver.ErrNotFound)
			_, err := q.DeadLetters(t.Context())
			wantError(t, err, driver.ErrNotFound)
			f.create(c.dead, nil)
			settle(t, q, driver.MoveToDeadLetter, d...)
			if got := receive(t, deadLetters(t, q), 1, time.Second); len(got) != 1 || got[0].SessionID != d[0].SessionID || got[0].ID != d[0].ID {
				t.Errorf("%s: %+v", c.queue, got)
			}
			if s, err := q.Stats(t.Context()); err != nil || s.DeadLetters != 1 {
				t.Errorf("%s: %+v, %v", c.queue, s, err)
			}
			if n := len(f.depth(c.other)); n != 0 {
				t.Errorf("%s: %d messages in %s", c.queue, n, c.other)
			}
		}
		f := newFakeSQS()
		f.create("q", nil)
		f.create("o.fifo", nil)
		for dead, queue := range map[string]string{"d.fifo": "q", "q": "q", "o": "o"} { // the others: itself
			_, err := connect(t, f, &Options{DeadLetterQueue: func(string) string { return dead }}).Open(t.Context(), queue, nil)
			wantError(t, err, errors.ErrUnsupported)
		}
	})
}
