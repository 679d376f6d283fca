package sbemulator_test

import (
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

func TestSchedule(t *testing.T) {
	s := start(t, frozen, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	at := s.Now().Add(time.Minute)
	numbers := must[[]int64](t)(sender.ScheduleMessages(within(t), []*azservicebus.Message{text("a"), text("b"), text("c")}, at, nil))
	if len(numbers) != 3 || numbers[0] != 1 || numbers[2] != 3 {
		t.Fatalf("numbers %v", numbers)
	}
	if err := sender.CancelScheduledMessages(within(t), numbers[1:2], nil); err != nil {
		t.Fatal(err)
	}
	wantCode(t, sender.CancelScheduledMessages(within(t), numbers[:2], nil), azservicebus.CodeNotFound)
	m := wantStored(t, s, "q", 2) // what could not be cancelled as a whole was not at all
	if m[0].State != sbemulator.Scheduled || m[0].ScheduledFor.UnixMilli() != at.UnixMilli() {
		t.Errorf("stored %+v", m[0])
	}
	r := receiver(t, c, "q", nil)
	p := must[[]*azservicebus.ReceivedMessage](t)(r.PeekMessages(within(t), 1, nil))
	if p[0].State != azservicebus.MessageStateScheduled || p[0].ScheduledEnqueueTime.UnixMilli() != at.UnixMilli() {
		t.Errorf("peeked %+v", p[0])
	}
	none(t, r)
	advance(t, s, time.Minute)
	got := many(t, receiver(t, c, "q", nil), 2)
	if string(got[0].Body) != "a" || string(got[1].Body) != "c" || *got[0].SequenceNumber != 4 ||
		got[0].EnqueuedTime.UnixMilli() != at.UnixMilli() {
		t.Errorf("due: %s with number %d, enqueued %v: it arrives anew", got[0].Body, *got[0].SequenceNumber, got[0].EnqueuedTime)
	}
	wantCode(t, sender.CancelScheduledMessages(within(t), numbers[2:], nil), azservicebus.CodeNotFound)
	wantCode(t, sender.CancelScheduledMessages(within(t), []int64{*got[0].SequenceNumber}, nil), azservicebus.CodeNotFound)
	wantStored(t, s, "q", 2) // what is due is not cancelled any more
}

// TestScheduleBySending: a message can carry its time itself.
func TestScheduleBySending(t *testing.T) {
	s := start(t, frozen, sessional())
	c := connect(t, s)
	later, past := inSession("a", "later"), inSession("a", "now")
	later.ScheduledEnqueueTime = to.Ptr(s.Now().Add(time.Minute))
	past.ScheduledEnqueueTime = to.Ptr(s.Now().Add(-time.Minute))
	send(t, c, "q", later, past)
	r := accept(t, c, "a")
	if m := one(t, r); string(m.Body) != "now" {
		t.Errorf("received %s", m.Body)
	}
	none(t, r)
	if err := r.RenewSessionLock(within(t), nil); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		advance(t, s, 9*time.Second)
		if err := r.RenewSessionLock(within(t), nil); err != nil {
			t.Fatal(err)
		}
	}
	if m := one(t, r); string(m.Body) != "later" {
		t.Errorf("received %s", m.Body)
	}
}

func TestSchedulePast(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	if n := must[[]int64](t)(sender.ScheduleMessages(within(t), []*azservicebus.Message{text("x")}, time.Now(), nil)); len(n) != 1 {
		t.Errorf("numbers %v", n)
	}
	if m := one(t, receiver(t, c, "q", nil)); string(m.Body) != "x" {
		t.Errorf("received %s", m.Body)
	}
}

func TestTTL(t *testing.T) {
	s := start(t, frozen, &sbemulator.QueueOptions{DefaultTTL: time.Minute, DeadLetterOnExpiry: true})
	if err := s.CreateQueue("drop", nil); err != nil {
		t.Fatal(err)
	}
	c := connect(t, s)
	ttl := func(body string, d time.Duration) *azservicebus.Message {
		return &azservicebus.Message{Body: []byte(body), TimeToLive: &d}
	}
	send(t, c, "q", ttl("short", 10*time.Second), ttl("cut", time.Hour), text("default"))
	send(t, c, "drop", ttl("short", 10*time.Second), ttl("long", time.Hour), text("for ever"))
	advance(t, s, 10*time.Second)
	d := one(t, receiver(t, c, "q", deadLetters))
	if string(d.Body) != "short" || *d.DeadLetterReason != "TTLExpiredException" || d.DeadLetterSource != nil {
		t.Errorf("dead letter %s, %v", d.Body, d.DeadLetterReason)
	}
	wantStored(t, s, "q", 2)
	if m := wantStored(t, s, "drop", 2); string(m[0].Body) != "long" {
		t.Errorf("left is %s", m[0].Body)
	}
	advance(t, s, 50*time.Second)
	wantStored(t, s, "q", 0)
	wantStored(t, s, "q/$DeadLetterQueue", 3)
	advance(t, s, time.Hour)
	wantStored(t, s, "drop", 1)
	wantStored(t, s, "drop/$DeadLetterQueue", 0)
}

// TestTTLOfLocked: a message does not expire in its receiver's hands, but when
// it comes back.
func TestTTLOfLocked(t *testing.T) {
	s := start(t, frozen, &sbemulator.QueueOptions{DefaultTTL: 10 * time.Second, DeadLetterOnExpiry: true, LockDuration: time.Minute})
	c := connect(t, s)
	send(t, c, "q", text("completed"), text("abandoned"), text("deferred"))
	r := receiver(t, c, "q", nil)
	m := many(t, r, 3)
	if err := r.DeferMessage(within(t), m[2], nil); err != nil {
		t.Fatal(err)
	}
	advance(t, s, 30*time.Second)
	wantStored(t, s, "q", 3)
	if err := r.CompleteMessage(within(t), m[0], nil); err != nil {
		t.Error(err)
	}
	if err := r.AbandonMessage(within(t), m[1], nil); err != nil {
		t.Error(err)
	}
	_, err := r.ReceiveDeferredMessages(within(t), []int64{*m[2].SequenceNumber}, nil)
	wantCode(t, err, azservicebus.CodeNotFound)
	d := wantStored(t, s, "q/$DeadLetterQueue", 2)
	if string(d[0].Body) != "abandoned" || string(d[1].Body) != "deferred" {
		t.Errorf("dead letters %s, %s", d[0].Body, d[1].Body)
	}
	wantStored(t, s, "q", 0)
}

func TestDuplicateDetection(t *testing.T) {
	s := start(t, frozen, &sbemulator.QueueOptions{DuplicateDetectionWindow: time.Minute})
	c := connect(t, s)
	id := func(id, body string) *azservicebus.Message {
		return &azservicebus.Message{Body: []byte(body), MessageID: &id}
	}
	send(t, c, "q", id("1", "first"), id("1", "again"), id("2", "other"), text("no ID"), text("no ID"))
	wantStored(t, s, "q", 4)
	r := receiver(t, c, "q", nil)
	if err := r.CompleteMessage(within(t), one(t, r), nil); err != nil {
		t.Fatal(err)
	}
	send(t, c, "q", id("1", "a completed one is remembered"))
	wantStored(t, s, "q", 3)
	advance(t, s, time.Minute)
	send(t, c, "q", id("1", "forgotten"))
	m := wantStored(t, s, "q", 4)
	if string(m[3].Body) != "forgotten" {
		t.Errorf("stored %s", m[3].Body)
	}
	sender := must[*azservicebus.Sender](t)(c.NewSender("q", nil))
	n := must[[]int64](t)(sender.ScheduleMessages(within(t), []*azservicebus.Message{id("1", "scheduled")}, s.Now().Add(time.Second), nil))
	if len(n) != 1 {
		t.Errorf("numbers %v", n)
	}
	wantStored(t, s, "q", 4)
}
