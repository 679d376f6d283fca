package sbemulator_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

var frozen = &sbemulator.Options{FrozenClock: true}

func advance(t *testing.T, s *sbemulator.Server, d time.Duration) {
	t.Helper()
	if err := s.Advance(d); err != nil {
		t.Fatal(err)
	}
}

func TestLockExpiry(t *testing.T) {
	s := start(t, frozen, &sbemulator.QueueOptions{LockDuration: 10 * time.Second, MaxDeliveryCount: 2})
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	m := one(t, r)
	advance(t, s, 10*time.Second-time.Nanosecond)
	if got := wantStored(t, s, "q", 1); !got[0].Locked {
		t.Error("unlocked before its time")
	}
	advance(t, s, time.Nanosecond)
	wantCode(t, r.CompleteMessage(within(t), m, nil), azservicebus.CodeLockLost)
	again := one(t, r)
	if again.DeliveryCount != 2 || again.LockToken == m.LockToken {
		t.Errorf("delivery count %d, same token: %v", again.DeliveryCount, again.LockToken == m.LockToken)
	}
	wantCode(t, r.RenewMessageLock(within(t), m, nil), azservicebus.CodeLockLost)
	advance(t, s, 10*time.Second)
	d := wantStored(t, s, "q/$DeadLetterQueue", 1)
	if d[0].ApplicationProperties["DeadLetterReason"] != "MaxDeliveryCountExceeded" || d[0].DeliveryCount != 2 {
		t.Errorf("dead letter %+v", d[0])
	}
}

func TestLockRenewal(t *testing.T) {
	s := start(t, frozen, &sbemulator.QueueOptions{LockDuration: 10 * time.Second})
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	m := one(t, r)
	for range 5 {
		advance(t, s, 9*time.Second)
		was := *m.LockedUntil
		if err := r.RenewMessageLock(within(t), m, nil); err != nil {
			t.Fatal(err)
		}
		if d := m.LockedUntil.Sub(was); d != 9*time.Second {
			t.Errorf("renewed by %v", d)
		}
	}
	if err := r.CompleteMessage(within(t), m, nil); err != nil {
		t.Error(err)
	}
	wantCode(t, r.RenewMessageLock(within(t), m, nil), azservicebus.CodeLockLost)
}

func TestExpireLock(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	m := one(t, r)
	if err := s.ExpireLock("Q", *m.SequenceNumber); err != nil {
		t.Fatal(err)
	}
	if err := s.ExpireLock("q", *m.SequenceNumber); !errors.Is(err, sbemulator.ErrMessageNotFound) {
		t.Error("an unlocked message:", err)
	}
	if err := s.ExpireLock("none", 1); !errors.Is(err, sbemulator.ErrQueueNotFound) {
		t.Error("an unknown queue:", err)
	}
	wantCode(t, r.CompleteMessage(within(t), m, nil), azservicebus.CodeLockLost)
}

// TestSettleByToken settles over $management what was received over a link that
// is gone: the token alone identifies it.
func TestSettleByToken(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	send(t, c, "q", text("a"), text("b"), text("c"), text("d"))
	r := receiver(t, c, "q", nil)
	m := many(t, r, 4)
	if n := s.DropConnections(); n != 1 {
		t.Errorf("%d connections dropped", n)
	}
	again := receiver(t, connect(t, s), "q", nil)
	byToken := func(i int) *azservicebus.ReceivedMessage {
		return &azservicebus.ReceivedMessage{LockToken: m[i].LockToken}
	}
	ctx := within(t)
	for name, err := range map[string]error{
		"complete":    again.CompleteMessage(ctx, byToken(0), nil),
		"abandon":     again.AbandonMessage(ctx, byToken(1), nil),
		"dead-letter": again.DeadLetterMessage(ctx, byToken(2), &azservicebus.DeadLetterOptions{Reason: new("r")}),
		"defer":       again.DeferMessage(ctx, byToken(3), nil),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range m {
		wantCode(t, again.CompleteMessage(ctx, byToken(i), nil), azservicebus.CodeLockLost)
	}
	left := wantStored(t, s, "q", 2)
	if string(left[0].Body) != "b" || left[0].Locked || left[0].DeliveryCount != 1 || left[1].State != sbemulator.Deferred {
		t.Errorf("left %+v", left)
	}
	if d := wantStored(t, s, "q/$DeadLetterQueue", 1); d[0].ApplicationProperties["DeadLetterReason"] != "r" {
		t.Errorf("dead letter %+v", d[0])
	}
}

// TestReleaseIsNotCounted: the client gives back what arrives while no call receives,
// and that counts as no delivery.
func TestReleaseIsNotCounted(t *testing.T) {
	s := start(t, nil, nil)
	c := connect(t, s)
	r := receiver(t, c, "q", nil)
	none(t, r) // a credit stays out
	send(t, c, "q", text("x"))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for { // until the client has released it, or still holds it: both are seen as an unlocked message with no failure
		m := wantStored(t, s, "q", 1)
		if !m[0].Locked {
			if m[0].DeliveryCount != 0 {
				t.Errorf("%d deliveries counted", m[0].DeliveryCount)
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatal("the message was not released")
		}
	}
	if m := one(t, receiver(t, c, "q", nil)); m.DeliveryCount != 1 {
		t.Errorf("delivery count %d", m.DeliveryCount)
	}
}

// TestLockTokenOrder: the delivery tag is the token as .NET writes a GUID, whose
// first three fields are little-endian.
func TestLockTokenOrder(t *testing.T) {
	s := start(t, nil, nil)
	if _, err := s.Insert("q", &sbemulator.Message{}); err != nil {
		t.Fatal(err)
	}
	p := open(t, s, 64<<10, 100)
	p.attach(0, true)
	p.credit(0, 1)
	perf, payload := p.read()
	tr, ok := perf.(*wire.Transfer)
	if !ok {
		t.Fatalf("%T", perf)
	}
	m, err := wire.ParseMessage(payload)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := m.DeliveryAnnotations.Get("x-opt-lock-token")
	u, ok := v.(wire.UUID)
	want := []byte{u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]}
	if !ok || !bytes.Equal(tr.DeliveryTag, want) {
		t.Errorf("tag % x of token % x", tr.DeliveryTag, u)
	}
}
