package postgresqueue_test

import (
	"context"
	stdsql "database/sql"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// openQueue opens a queue by its own type.
func openQueue(t *testing.T, rawURL string) *postgresqueue.Queue {
	t.Helper()
	opened, err := open(t, rawURL, nil).Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	q, ok := opened.(*postgresqueue.Queue)
	if !ok {
		t.Fatalf("a queue is a %T", opened)
	}
	return q
}

// awkward are messages that text could change on its way.
func awkward() []*driver.Message {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	var list []*driver.Message
	for i, s := range []string{`plain`, `"quoted"`, `\`, `\\x00`, `{a,b}`, `NULL`, " \t\n", `'); DROP TABLE message; --`, "ž𝄞", `"\"`} {
		list = append(list, &driver.Message{
			ID: fmt.Sprint(i), SessionID: s, CorrelationID: s, ContentType: s, DedupID: s + "d", Body: all[:i*20],
			Attributes: map[string]string{"a": s}, Trace: map[string]string{"traceparent": s}, Sealed: i%2 == 0,
			TTL: time.Hour + time.Duration(i),
		})
	}
	list[3].NotBefore = time.Now().Add(-time.Hour)
	return list
}

// TestSendSQLTx: what is sent in a transaction of database/sql comes with its commit, as
// what is sent in one of pgx does, and does not come after a rollback.
func TestSendSQLTx(t *testing.T) {
	t.Parallel()
	rawURL, _ := newSchema(t, "")
	q := openQueue(t, rawURL)
	db, err := stdsql.Open("pgx", postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	send := func(m []*driver.Message, end func(*stdsql.Tx) error) {
		t.Helper()
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(q.SendSQLTx(t.Context(), tx, m), end(tx)); err != nil {
			t.Fatal(err)
		}
	}
	receive := func() map[string]driver.Message {
		t.Helper()
		got := make(map[string]driver.Message)
		for {
			list, err := q.Receive(t.Context(), 100, 0)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 0 {
				return got
			}
			for _, d := range list {
				got[d.ID] = d.Message
				if err := q.Settle(t.Context(), []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]; err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	send(awkward(), (*stdsql.Tx).Rollback)
	if got := receive(); len(got) != 0 {
		t.Fatalf("%d messages after a rollback", len(got))
	}
	want := awkward()
	send(want, (*stdsql.Tx).Commit)
	bySQL := receive()
	c, err := pgx.Connect(t.Context(), postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if err := pgx.BeginFunc(t.Context(), c, func(tx pgx.Tx) error { return q.SendTx(t.Context(), tx, want) }); err != nil {
		t.Fatal(err)
	}
	byPgx := receive()
	if len(bySQL) != len(want) || len(byPgx) != len(want) {
		t.Fatalf("%d and %d messages came, want %d", len(bySQL), len(byPgx), len(want))
	}
	for _, m := range want {
		a, b := bySQL[m.ID], byPgx[m.ID]
		if !a.NotBefore.Equal(b.NotBefore) {
			t.Errorf("NotBefore: %s by database/sql, %s by pgx", a.NotBefore, b.NotBefore)
		}
		a.NotBefore, b.NotBefore = time.Time{}, time.Time{}
		if !reflect.DeepEqual(a, b) || string(a.Body) != string(m.Body) || a.SessionID != m.SessionID || a.Attributes["a"] != m.Attributes["a"] {
			t.Errorf("by database/sql %+v\nby pgx %+v\nwant %+v", a, b, m)
		}
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := q.SendSQLTx(t.Context(), tx, want); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("SendSQLTx in a transaction that has ended: %v, want %v", err, driver.ErrInvalid)
	}
	if err := errors.Join(q.SendSQLTx(t.Context(), nil, want)); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("SendSQLTx without a transaction: %v, want %v", err, driver.ErrInvalid)
	}
	if err := q.SendTx(t.Context(), nil, want); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("SendTx without a transaction: %v, want %v", err, driver.ErrInvalid)
	}
}
