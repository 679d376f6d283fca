package memqueue

import (
	"context"
	"sync"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

// TestPeekBesideDeadLettering: a message gets another place among the dead letters, which is
// not read for a cursor when the store is not locked any more.
func TestPeekBesideDeadLettering(t *testing.T) {
	ctx := context.Background()
	q, err := New(nil).Open(ctx, "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 500
	for range n {
		if r := q.Send(ctx, []*driver.Message{{ID: "m", Body: []byte("x")}}); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
	}
	var peeking sync.WaitGroup
	peeking.Go(func() {
		for seen := -1; seen != 0; {
			list, _, err := q.Peek(ctx, "", 1)
			if err != nil {
				t.Error(err)
				return
			}
			seen = len(list)
		}
	})
	for range n {
		d, err := q.Receive(ctx, 1, 0)
		if err != nil || len(d) != 1 {
			t.Fatal(d, err)
		}
		s := driver.Settlement{Delivery: d[0], Kind: driver.MoveToDeadLetter, Reason: "r"}
		if err := q.Settle(ctx, []driver.Settlement{s})[0]; err != nil {
			t.Fatal(err)
		}
	}
	peeking.Wait()
}
