package postgresqueue_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/postgres"
)

var errNo = errors.New("no")

// TestSendTx: what is sent in a transaction comes with its commit, wakes a receiver that
// waits, and does not come after a rollback.
func TestSendTx(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "&poll=1m")
	q := openQueue(t, rawURL)
	other, err := open(t, rawURL, nil).Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	sql(t, `CREATE TABLE `+schema+`_orders (n int)`)
	c, err := pgx.Connect(t.Context(), postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	order := func(id string, end error) {
		t.Helper()
		err := pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `INSERT INTO `+schema+`_orders VALUES (1)`); err != nil {
				return err
			}
			if err := q.SendTx(t.Context(), tx, []*driver.Message{{ID: id, SessionID: "s"}, {ID: id + "'"}}); err != nil {
				return err
			}
			return end
		})
		if !errors.Is(err, end) {
			t.Fatal(err)
		}
	}
	order("undone", errNo)
	if got, err := other.Receive(t.Context(), 1, 0); len(got) != 0 || err != nil {
		t.Fatalf("received %d messages, %v, after a rollback", len(got), err)
	}
	received := make(chan int, 1)
	go func() {
		got, _ := other.Receive(context.Background(), 2, 30*time.Second)
		received <- len(got)
	}()
	order("done", nil)
	if n := <-received; n != 2 {
		t.Errorf("a receiver that waits has %d messages after the commit, want 2", n)
	}
	err = pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
		if err := tx.Rollback(t.Context()); err != nil {
			return err
		}
		return q.SendTx(t.Context(), tx, []*driver.Message{{ID: "late"}})
	})
	if !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("SendTx in a transaction that has ended: %v, want %v", err, driver.ErrInvalid)
	}
	err = pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT 1/0`); err == nil {
			t.Error("1/0 is no error")
		}
		return q.SendTx(t.Context(), tx, []*driver.Message{{ID: "late"}})
	})
	if !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), "roll it back") {
		t.Errorf("SendTx in a transaction that has failed: %v, want %v", err, driver.ErrInvalid)
	}
}
