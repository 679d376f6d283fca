package postgresqueue_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// TestSettleBesideRenew: settlements and renewals of the same messages in different orders
// wait for each other, and do not deadlock.
func TestSettleBesideRenew(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "")
	q := openQueue(t, rawURL)
	for i := range 3 {
		send(t, q, &driver.Message{ID: fmt.Sprint(i)})
	}
	list, err := q.Receive(t.Context(), 3, time.Minute)
	if err != nil || len(list) != 3 {
		t.Fatalf("received %d messages, %v", len(list), err)
	}
	admin := postgres.Shared(t).URL("postgres", "postgres")
	c, err := pgx.Connect(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Both calls wait for the second message.
	if _, err := tx.Exec(t.Context(), `SELECT FROM `+schema+`.message WHERE seq = `+list[1].BrokerID+` FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	waits := func(n int) {
		t.Helper()
		query := `SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%` + schema + `%'`
		for deadline := time.Now().Add(30 * time.Second); oneValue[int](t, admin, query) < n; {
			if time.Now().After(deadline) {
				t.Fatalf("%d calls do not wait for the message", n)
			}
		}
	}
	settled, renewed := make(chan []error, 1), make(chan []driver.RenewResult, 1)
	go func() {
		var all []driver.Settlement
		kinds := []driver.SettleKind{driver.Complete, driver.Complete, driver.Abandon}
		for i, d := range slices.Backward(list) {
			all = append(all, driver.Settlement{Delivery: d, Kind: kinds[i]})
		}
		settled <- q.Settle(t.Context(), all)
	}()
	waits(1)
	go func() {
		renewed <- q.Renew(t.Context(), list)
	}()
	waits(2)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, err := range <-settled {
		if err != nil {
			t.Errorf("settlement %d: %v", i, err)
		}
	}
	t.Log(<-renewed)
}
