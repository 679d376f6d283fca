package outbox_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/outbox"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
)

// What docs/outbox.md and docs/brokers/postgres.md show.

func placeOrder(ctx context.Context, db *pgx.Conn, sender *queue.Sender, box *outbox.Outbox, body []byte) error {
	p, err := sender.Prepare(ctx, &queue.Message{SessionID: "customer-9", Body: body})
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO orders (body) VALUES ($1)`, body); err != nil {
			return err
		}
		return box.Put(ctx, tx, p) // last: it locks the session until the commit
	})
}

func forwardOrders(ctx context.Context, box *outbox.Outbox, broker driver.Broker, o *outbox.ForwarderOptions) error {
	f, err := outbox.NewForwarder(ctx, box, broker, "orders", o)
	if err != nil {
		return err
	}
	return f.Run(ctx) // until ctx ends
}

func sendInOwnTransaction(ctx context.Context, tx pgx.Tx, sender *queue.Sender, orders *postgresqueue.Queue, body []byte) error {
	p, err := sender.Prepare(ctx, &queue.Message{SessionID: "order-17", Body: body})
	if err != nil {
		return err
	}
	// orders is the *postgresqueue.Queue that Broker.Open returns for p.Queue.
	if err := orders.SendTx(ctx, tx, []*driver.Message{&p.Message}); err != nil {
		return err // and roll back
	}
	return tx.Commit(ctx)
}

// TestPage: what the pages show works.
func TestPage(t *testing.T) {
	t.Parallel()
	x := newFixture(t, nil)
	// The page's names of tables, in a schema of this test.
	_, err := x.db.Exec(t.Context(), `SET search_path = `+x.schema+`_app; CREATE SCHEMA `+x.schema+`_app; CREATE TABLE orders (body bytea)`)
	x.must(err)
	x.must(placeOrder(t.Context(), x.db, x.sender, x.box, []byte("two coffees")))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- forwardOrders(ctx, x.box, x.Broker, nil) }()
	x.until("empty", drained)
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := value[int](x, `SELECT count(*) FROM orders`); n != 1 || len(x.ids()) != 1 {
		t.Errorf("%d orders and the messages %v, want one each", n, x.ids())
	}

	target, err := postgresqueue.Open(t.Context(), x.server()+"?schema="+x.schema+"_own", nil)
	x.must(err)
	defer func() { _ = target.Close(context.Background()) }()
	opened, err := target.Open(t.Context(), orders, nil)
	x.must(err)
	q, ok := opened.(*postgresqueue.Queue)
	if !ok {
		t.Fatalf("a queue is a %T", opened)
	}
	tx, err := x.db.Begin(t.Context())
	x.must(err)
	x.must(sendInOwnTransaction(t.Context(), tx, x.sender, q, []byte("one more")))
	if st, err := q.Stats(t.Context()); err != nil || st.Ready != 1 {
		t.Errorf("%+v, %v; want a message", st, err)
	}
}
