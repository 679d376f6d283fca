package postgresqueue_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// blockedSession makes n messages of one session due and keeps the session locked, by a
// SendTx whose transaction stays open until the test ends.
func blockedSession(t *testing.T, rawURL, schema string, n int) driver.Queue {
	t.Helper()
	q := openQueue(t, rawURL)
	var list []*driver.Message
	for i := range n {
		list = append(list, &driver.Message{ID: fmt.Sprint(i), SessionID: "blocked", NotBefore: time.Now().Add(time.Hour)})
	}
	send(t, q, list...)
	sql(t, `UPDATE `+schema+`.message SET due = now() - interval '1 minute'`)
	c, err := pgx.Connect(t.Context(), postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := q.SendTx(t.Context(), tx, []*driver.Message{{ID: "open", SessionID: "blocked"}}); err != nil {
		t.Fatal(err)
	}
	return q
}

// TestBlockedSession: more due messages than one sweep looks at, of a session that a
// transaction has locked, hold up no other session.
func TestBlockedSession(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "")
	q := blockedSession(t, rawURL, schema, 300)
	for i := range 3 {
		send(t, q, &driver.Message{ID: "other", SessionID: fmt.Sprint(i), NotBefore: time.Now().Add(time.Hour)})
	}
	sql(t, `UPDATE `+schema+`.message SET due = now() - interval '1 second' WHERE session <> 'blocked'`)
	if n, err := take(q, 10); n != 3 || err != nil {
		t.Errorf("took %d messages of other sessions, %v; want 3", n, err)
	}
}

// TestBlockedWait: a call that waits while a due message is locked asks the server a few
// times, not all the time.
func TestBlockedWait(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "")
	_ = blockedSession(t, rawURL, schema, 1)
	role := schema + "_counted"
	sql(t, `CREATE ROLE `+role+` LOGIN SUPERUSER`, `ALTER ROLE `+role+` SET track_functions = 'pl'`)
	b, err := postgresqueue.Open(t.Context(), strings.Replace(rawURL, "postgres@", role+"@", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	const wait = 2 * time.Second
	if got, err := q.Receive(t.Context(), 1, wait); len(got) != 0 || err != nil {
		t.Errorf("received %d messages, %v, of a session that is locked", len(got), err)
	}
	if err := b.Close(t.Context()); err != nil { // the server counts when a connection ends
		t.Fatal(err)
	}
	calls := func() int {
		return oneValue[int](t, postgres.Shared(t).URL("postgres", "postgres"),
			`SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE schemaname = '`+schema+`' AND funcname = 'next_due'`)
	}
	counted := calls()
	for deadline := time.Now().Add(time.Minute); counted == 0 && time.Now().Before(deadline); counted = calls() {
	}
	// 50 ms a look, and some at first.
	if counted == 0 || counted > 60 {
		t.Errorf("%d looks in %s, want 1 to 60", counted, wait)
	}
}
