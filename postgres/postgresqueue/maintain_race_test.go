package postgresqueue_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// TestMaintainBesideSends: maintain removes old states of sessions, and none of a session that
// gets a message at that moment.
func TestMaintainBesideSends(t *testing.T) {
	t.Parallel()
	const sessions = 256
	rawURL, schema := newSchema(t, "&max_conns=12")
	b := open(t, rawURL, nil)
	opened, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	count := func(query string) (n int) {
		t.Helper()
		if err := c.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	removed := 0
	for round := range soak(8, 100) {
		sql(t, fmt.Sprintf(`INSERT INTO %s.session (queue, id, touched, state)
			SELECT q.id, 's' || g, timestamptz '2000-01-01' + g * interval '1 second', 'state'
			FROM %[1]s.queue q, generate_series(1, %d) g`, schema, sessions))
		maintainBeside(t, b, opened, sessions)
		lost := count(`SELECT count(*) FROM ` + schema + `.message m
			WHERE NOT EXISTS (SELECT 1 FROM ` + schema + `.session s WHERE s.queue = m.queue AND s.id = m.session)`)
		if lost > 0 {
			t.Fatalf("round %d: %d sessions with a message have no row any more", round, lost)
		}
		removed += sessions - count(`SELECT count(*) FROM `+schema+`.session WHERE state IS NOT NULL`)
		sql(t, `TRUNCATE `+schema+`.message, `+schema+`.content, `+schema+`.session, `+schema+`.tally`)
	}
	if removed == 0 {
		t.Error("maintain removed no state in any round: the test shows nothing")
	}
}

// maintainBeside sends a message to each session while others call Maintain.
func maintainBeside(t *testing.T, b *postgresqueue.Broker, q driver.Queue, sessions int) {
	t.Helper()
	const senders = 4
	done := make(chan struct{})
	var maintaining, sending sync.WaitGroup
	for range 4 {
		maintaining.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := b.Maintain(context.Background()); err != nil {
					t.Errorf("Maintain: %v", err)
					return
				}
			}
		})
	}
	for sender := range senders {
		sending.Go(func() {
			// The newest first: maintain begins with the oldest.
			for i := sessions - sender; i > 0; i -= senders {
				m := &driver.Message{ID: "m", SessionID: fmt.Sprint("s", i), TTL: time.Hour}
				if r := q.Send(context.Background(), []*driver.Message{m}); r[0].Err != nil {
					t.Errorf("Send: %v", r[0].Err)
					return
				}
			}
		})
	}
	sending.Wait()
	close(done)
	maintaining.Wait()
}
