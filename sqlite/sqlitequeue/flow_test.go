package sqlitequeue

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// While messages come, no Receive looks before it claims, however many there are at once:
// those that did would come to the writer later than the others, and in another group.
func TestReceiversOfAFlowDoNotLook(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // a Receive that looks waits for all of it
	defer cancel()
	b, q, closed := fresh(ctx, t)
	defer closed()
	const receivers = 8
	for i := range receivers + 1 {
		if err := q.Send(ctx, []*driver.Message{{ID: fmt.Sprint(i)}})[0].Err; err != nil {
			t.Fatal(err)
		}
	}
	receive := func() {
		if got, err := q.Receive(ctx, 1, 0); err != nil || len(got) != 1 {
			t.Errorf("%d messages, %v; want one", len(got), err)
		}
	}
	receive()
	var held, all sync.WaitGroup
	free := make(chan struct{})
	held.Add(readers)
	for range readers {
		all.Go(func() {
			_ = b.file.Read(ctx, func(*sqlitefile.Conn) error { held.Done(); <-free; return nil })
		})
	}
	held.Wait() // no connection is left to look with
	var flow sync.WaitGroup
	for range receivers {
		flow.Go(receive)
	}
	flow.Wait()
	close(free)
	all.Wait()
}
