package postgresqueue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/docpage"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// sql runs statements as the superuser.
func sql(t *testing.T, statements ...string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	for _, s := range statements {
		if _, err := c.PgConn().Exec(t.Context(), s).ReadAll(); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// refused opens and wants an error that matches.
func refused(t *testing.T, what, rawURL string, o *postgresqueue.Options, want error, text string) {
	t.Helper()
	b, err := postgresqueue.Open(t.Context(), rawURL, o)
	if err == nil {
		_ = b.Close(t.Context())
		t.Errorf("%s: Open succeeded", what)
		return
	}
	if want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v; want %v with %q", what, err, want, text)
	}
	if strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%s: the error quotes the URL: %v", what, err)
	}
}

// TestSchema: what is no queue, newer or altered is refused, and two processes may
// create one schema at the same time.
func TestSchema(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "")
	refused(t, "a schema that is not there", rawURL, &postgresqueue.Options{MustExist: true}, driver.ErrNotFound, "no such schema")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b, err := postgresqueue.Open(context.Background(), rawURL, nil)
			if err != nil {
				t.Errorf("Open at the same time as others: %v", err)
				return
			}
			_ = b.Close(context.Background())
		})
	}
	wg.Wait()
	sql(t, `UPDATE `+schema+`.meta SET version = 99`)
	refused(t, "a newer schema", rawURL, nil, postgresqueue.ErrNewer, "update this program")
	sql(t, `UPDATE `+schema+`.meta SET version = 1`)
	_ = open(t, rawURL, nil)
	testAlterations(t, rawURL, schema)
	other, foreign := newSchema(t, "")
	sql(t, `CREATE SCHEMA `+foreign, `CREATE TABLE `+foreign+`.accounts (n int)`)
	refused(t, "a schema of another program", other, nil, postgresqueue.ErrForeign, "choose another name")
	ready, empty := newSchema(t, "")
	sql(t, `CREATE SCHEMA `+empty)
	_ = open(t, ready, nil) // one that is there and has nothing becomes a queue
}

// TestURL: what is wrong in a URL is named, and nothing of it is shown.
func TestURL(t *testing.T) {
	t.Parallel()
	const base = "postgres://u:s3cret@127.0.0.1:1/db"
	for query, want := range map[string]string{
		"?schema=Robert')--":                   "name of the schema",
		"?schema=pg_mine":                      "name of the schema",
		"?schema=" + strings.Repeat("a", 41):   "name of the schema",
		"?poll=1ns":                            "Poll",
		"?poll=s3cret":                         "parameter poll must be a duration",
		"?max_deliveries=0":                    "max_deliveries must be a number",
		"?pooled=yes":                          "pooled must be true or false",
		"?must_exist=":                         "must_exist must be given once",
		"?s3cret=1":                            "unknown parameter; known: application_name",
		"?timeout=1s&timeout=2s":               "given once",
		"?sslmode=":                            "sslmode must be given once",
		"?sslmode=verify-full&sslmode=disable": "sslmode must be given once",
		"?host=a&host=b":                       "host must be given once",
		"?target_session_attrs=":               "target_session_attrs must be given once",
		"#s3cret":                              "write %23",
		"?lock=1ms":                            "a lock of 1ms",
	} {
		refused(t, query, base+query, nil, nil, want)
	}
	refused(t, "another scheme", "mysql://u:s3cret@h/db", nil, nil, "use postgres://")
	refused(t, "a server elsewhere with an empty sslmode", "postgres://u:s3cret@db.example.com/db?sslmode=", nil, nil, "sslmode must be given once")
	refused(t, "a server elsewhere without encryption", "postgres://u:s3cret@db.example.com/db", nil, nil, "sslmode=verify-full")
	refused(t, "no server", base, &postgresqueue.Options{Timeout: 5 * time.Second}, driver.ErrUnavailable, "")
}

// TestErrors classifies what a server says.
func TestErrors(t *testing.T) {
	t.Parallel()
	server := postgres.Shared(t)
	refused(t, "no such database", server.URL("postgres", "nosuch"), nil, driver.ErrNotFound, "no such database")
	refused(t, "no such role", server.URL("nosuch", "postgres"), nil, driver.ErrPermission, "refused the login")
	sql(t, `CREATE ROLE poor LOGIN`)
	refused(t, "a role that may not create", server.URL("poor", "postgres")+"?schema=poor", nil, driver.ErrPermission, "may not create the schema")
	rawURL, schema := newSchema(t, "")
	b := open(t, rawURL, nil)
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*driver.Message{
		{ID: "nul\x00"}, {ID: "x", SessionID: "\xff"}, {ID: "x", CorrelationID: "a\x00b"}, {ID: "x", DedupID: "\xc0"}, {ID: "x", ContentType: "\x00"},
	} {
		if r := q.Send(t.Context(), []*driver.Message{m}); !errors.Is(r[0].Err, driver.ErrInvalid) {
			t.Errorf("Send of %q: %v, want %v", m.ID, r[0].Err, driver.ErrInvalid)
		}
	}
	if r := q.Send(t.Context(), []*driver.Message{{ID: "x", SessionID: strings.Repeat("s", 3000)}}); !errors.Is(r[0].Err, driver.ErrTooLarge) {
		t.Errorf("Send in a session with a name of 3000 bytes: %v, want %v", r[0].Err, driver.ErrTooLarge)
	}
	sql(t, `DROP SCHEMA `+schema+` CASCADE`)
	if r := q.Send(t.Context(), []*driver.Message{{ID: "x"}}); !errors.Is(r[0].Err, driver.ErrCorrupt) {
		t.Errorf("Send after the schema was dropped: %v, want %v", r[0].Err, driver.ErrCorrupt)
	}
}

// TestFull: MaxMessages refuses sends, and not one message more; what is completed
// makes room.
func TestFull(t *testing.T) {
	t.Parallel()
	rawURL, _ := newSchema(t, "")
	b := open(t, rawURL, &postgresqueue.Options{Default: postgresqueue.QueueOptions{MaxMessages: 3, DedupWindow: time.Minute}})
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	var list []*driver.Message
	for i := range 5 {
		list = append(list, &driver.Message{ID: fmt.Sprint(i)})
	}
	for i, r := range q.Send(t.Context(), list) {
		if full := errors.Is(r.Err, driver.ErrFull); full != (i >= 3) {
			t.Errorf("message %d of 5 in a queue for 3: %v", i, r.Err)
		}
	}
	if n, err := take(q, 10); n != 3 || err != nil {
		t.Fatalf("took %d messages, %v", n, err)
	}
	// One that was refused as a whole is no repeat.
	if r := q.Send(t.Context(), list[4:]); r[0].Err != nil {
		t.Error(r[0].Err)
	}
	if n, err := take(q, 10); n != 1 || err != nil {
		t.Errorf("took %d messages, %v; want the one that was refused before", n, err)
	}
}

// TestFullRepeat: a repeat of a message that the full queue refused is refused too; one
// of a message that is stored is confirmed.
func TestFullRepeat(t *testing.T) {
	t.Parallel()
	rawURL, _ := newSchema(t, "")
	b := open(t, rawURL, nil)
	if err := b.Declare(t.Context(), "q", &postgresqueue.QueueOptions{DedupWindow: time.Hour, MaxMessages: 1}); err != nil {
		t.Fatal(err)
	}
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	stored := q.Send(t.Context(), []*driver.Message{{ID: "1", DedupID: "a"}})
	if stored[0].Err != nil {
		t.Fatal(stored[0].Err)
	}
	got := q.Send(t.Context(), []*driver.Message{{ID: "2", DedupID: "b"}, {ID: "3", DedupID: "a"}, {ID: "4", DedupID: "b"}})
	if !errors.Is(got[0].Err, driver.ErrFull) || !errors.Is(got[2].Err, driver.ErrFull) {
		t.Errorf("a message of which nothing is stored, and its repeat: %v and %v, want %v twice", got[0].Err, got[2].Err, driver.ErrFull)
	}
	if got[1] != stored[0] {
		t.Errorf("a repeat of what is stored: %+v, want %+v", got[1], stored[0])
	}
	if n, err := take(q, 10); n != 1 || err != nil {
		t.Errorf("took %d messages, %v; want 1", n, err)
	}
}

// roleStatements returns the SQL of docs/brokers/postgres.md for a schema.
func roleStatements(t *testing.T, schema string) string {
	t.Helper()
	return strings.ReplaceAll(docpage.Block(t, "../../docs/brokers/postgres.md", "sql"), "queue_runtime", schema)
}

// TestRoles: with the roles of docs/brokers/postgres.md a sender only sends, a receiver
// only receives, and neither reads a table.
func TestRoles(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "")
	owner := open(t, rawURL, nil)
	if err := owner.Declare(t.Context(), "q", nil); err != nil {
		t.Fatal(err)
	}
	sql(t, roleStatements(t, schema))
	as := func(role string) driver.Queue {
		q, err := open(t, strings.Replace(rawURL, "postgres@", role+"@", 1), nil).Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		return q
	}
	sender, receiver, operator := as(schema+"_sender"), as(schema+"_receiver"), as(schema+"_operator")
	send(t, sender, &driver.Message{ID: "a", SessionID: "s"}, &driver.Message{ID: "b"})
	denied := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, driver.ErrPermission) {
			t.Errorf("%s: %v, want %v", what, err, driver.ErrPermission)
		}
	}
	_, err := sender.Receive(t.Context(), 1, 0)
	denied("a sender receives", err)
	_, _, err = sender.Peek(t.Context(), "", 1)
	denied("a sender peeks", err)
	denied("a receiver sends", receiver.Send(t.Context(), []*driver.Message{{ID: "c"}})[0].Err)
	if n, err := take(receiver, 10); n != 2 || err != nil {
		t.Errorf("a receiver took %d messages, %v", n, err)
	}
	s, err := receiver.AcceptSession(t.Context(), "s", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if st, err := operator.Stats(t.Context()); err != nil || st.Ready != 0 {
		t.Errorf("an operator reads %+v, %v", st, err)
	}
	send(t, operator, &driver.Message{ID: "d"}) // a redrive
	for _, role := range []string{"_sender", "_receiver", "_operator"} {
		b := open(t, strings.Replace(rawURL, "postgres@", schema+role+"@", 1), nil)
		denied(role+" declares", b.Declare(t.Context(), "other", nil))
		c, err := pgx.Connect(t.Context(), strings.Replace(postgres.Shared(t).URL("postgres", "postgres"), "postgres@", schema+role+"@", 1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), `SELECT * FROM `+schema+`.content`); err == nil {
			t.Errorf("%s reads a table", role)
		}
		_ = c.Close(context.Background())
	}
}
