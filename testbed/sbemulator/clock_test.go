package sbemulator_test

import (
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

func TestAdvance(t *testing.T) {
	s := start(t, frozen, nil)
	now := s.Now()
	advance(t, s, time.Hour)
	if d := s.Now().Sub(now); d != time.Hour {
		t.Errorf("advanced by %v", d)
	}
	if err := s.Advance(-1); err == nil {
		t.Error("the clock went back")
	}
}

// TestLockExpiryBySystemClock: without a frozen clock time passes by itself.
func TestLockExpiryBySystemClock(t *testing.T) {
	s := start(t, nil, &sbemulator.QueueOptions{LockDuration: 20 * time.Millisecond})
	c := connect(t, s)
	send(t, c, "q", text("x"))
	r := receiver(t, c, "q", nil)
	first := one(t, r)
	if again := one(t, r); again.DeliveryCount < 2 {
		t.Errorf("delivery count %d", again.DeliveryCount)
	}
	wantCode(t, r.CompleteMessage(within(t), first, nil), azservicebus.CodeLockLost)
}
