package memqueue

import (
	"context"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

// TestRenewSessionLeavesTheDelivery: a session that is one message is renewed while its
// receiver reads that message.
func TestRenewSessionLeavesTheDelivery(t *testing.T) {
	ctx := context.Background()
	q, err := New(nil).Open(ctx, "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := q.Send(ctx, []*driver.Message{{ID: "m", Body: []byte("x")}}); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	s, err := q.AcceptSession(ctx, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.RenewSession(ctx); err != nil {
		t.Fatal(err)
	}
	before := s.LockedUntil()
	d, err := s.Receive(ctx, 1, 0)
	if err != nil || len(d) != 1 {
		t.Fatal(d, err)
	}
	renewed := make(chan error)
	go func() {
		until, err := s.RenewSession(ctx)
		if err == nil && !until.Equal(s.LockedUntil()) {
			t.Errorf("renewed until %s, and locked until %s", until, s.LockedUntil())
		}
		renewed <- err
	}()
	got := *d[0]
	if err := <-renewed; err != nil {
		t.Fatal(err)
	}
	if !got.LockedUntil.Equal(before) || s.LockedUntil().Before(before) {
		t.Errorf("the message was locked until %s and its session until %s", got.LockedUntil, before)
	}
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}
