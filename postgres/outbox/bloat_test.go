package outbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
)

// TestHeldSnapshot: while a transaction elsewhere keeps VACUUM from removing rows, the
// table that forwarders look through stays short. Each message leaves two dead rows there.
func TestHeldSnapshot(t *testing.T) {
	t.Parallel()
	const batch = 1000
	batches := soak(30, 300)
	x := newFixture(t, nil)
	other, err := pgx.Connect(t.Context(), x.server())
	x.must(err)
	defer func() { _ = other.Close(context.Background()) }()
	report, err := other.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	x.must(err)
	var n int
	x.must(report.QueryRow(t.Context(), `SELECT count(*) FROM pg_class`).Scan(&n))
	x.forward(x.box, discard{x.Broker}, nil)
	for i := range batches {
		var list []*queue.Message
		for k := range batch {
			list = append(list, &queue.Message{ID: fmt.Sprint(i*batch + k)})
		}
		x.put(nil, list...)
	}
	x.until("empty", drained)
	// In bytes; a row has some 115. Without maintain it would be all of them.
	const limit = 3 << 20
	size := 0
	for deadline := time.Now().Add(testTimeout); time.Now().Before(deadline); {
		x.must(x.box.Broker().Maintain(t.Context()))
		if size = value[int](x, `SELECT pg_relation_size('`+x.schema+`.message')`); size < limit {
			break
		}
	}
	if dead := batches * batch * 2 * 115; size >= limit || dead < limit {
		t.Errorf("the table has %d bytes, and its dead rows alone would have %d: want less than %d", size, dead, limit)
	}
	x.must(report.Rollback(t.Context()))
}

// discard is a broker that confirms and keeps nothing.
type discard struct{ driver.Broker }

type discardQueue struct{ driver.Queue }

func (b discard) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return discardQueue{q}, err
}

func (discardQueue) Send(_ context.Context, m []*driver.Message) []driver.SendResult {
	return make([]driver.SendResult, len(m))
}
