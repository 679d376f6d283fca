package outbox_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/postgres/outbox"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
)

var errNo = errors.New("no")

// TestPut: what is put comes to the broker after the commit and opens there, and nothing
// is left of what was put in a transaction that was rolled back.
func TestPut(t *testing.T) {
	t.Parallel()
	x := newFixture(t, nil)
	x.put(errNo, &queue.Message{ID: "undone", Body: []byte("payload")})
	if n := value[int](x, `SELECT (SELECT count(*) FROM `+x.schema+`.message) + (SELECT count(*) FROM `+x.schema+`.content)`); n != 0 {
		t.Errorf("%d rows after a rollback", n)
	}
	x.put(nil, &queue.Message{ID: "a", SessionID: "s", Body: []byte("payload a"), Attributes: map[string]string{"k": "v"}},
		&queue.Message{ID: "b", SessionID: "s", Body: []byte("payload b")})
	db := openSQL(x)
	for id, end := range map[string]func() bool{"c": func() bool { return true }, "undone": func() bool { return false }} {
		tx, err := db.BeginTx(t.Context(), nil)
		x.must(err)
		x.must(x.box.PutSQL(t.Context(), tx, x.prepare(&queue.Message{ID: id, SessionID: "s", Body: []byte("payload c")})))
		if end() {
			x.must(tx.Commit())
		} else {
			x.must(tx.Rollback())
		}
	}
	if n := value[int](x, `SELECT count(*) FROM `+x.schema+`.content WHERE position('\x7061796c6f6164'::bytea IN body) > 0`); n != 0 {
		t.Errorf("%d rows have the payload in the clear", n)
	}
	if n := value[int](x, `SELECT count(*) FROM `+x.schema+`.content`); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
	stop := x.forward(x.box, x.Broker, nil)
	x.until("empty", drained)
	stop()
	r, err := x.Receiver(t.Context(), orders, nil)
	x.must(err)
	for _, id := range []string{"a", "b", "c"} {
		d, err := r.ReceiveOne(t.Context())
		x.must(err)
		if d.ID != id || string(d.Body) != "payload "+id || !d.Encrypted || d.SessionID != "s" || (id == "a") != (d.Attributes["k"] == "v") {
			t.Errorf("received %+v, want %s", d.Message, id)
		}
		x.must(d.Complete(t.Context()))
	}
	if n := value[int](x, `SELECT count(*) FROM `+x.schema+`.content`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// TestPutRefuses: what cannot be forwarded is refused while the transaction can be rolled
// back, in words.
func TestPutRefuses(t *testing.T) {
	t.Parallel()
	x := newFixture(t, &postgresqueue.Options{Default: postgresqueue.QueueOptions{MaxMessages: 2}})
	good := x.prepare(&queue.Message{ID: "good"})
	inClear, forged, nameless := *good, *good, *good
	inClear.Message.Sealed = false
	forged.Message.Body = []byte("QRE1 not")
	nameless.Queue = ""
	for _, c := range []struct {
		what string
		p    []*queue.Prepared
		want error
		text string
	}{
		{"in the clear", []*queue.Prepared{good, &inClear}, outbox.ErrNotSealed, "message 1"},
		{"not an envelope", []*queue.Prepared{&forged}, outbox.ErrNotSealed, "message 0"},
		{"nil", []*queue.Prepared{nil}, queue.ErrInvalidMessage, "nil"},
		{"for no queue", []*queue.Prepared{&nameless}, queue.ErrInvalidQueueName, ""},
		{"more than MaxMessages", []*queue.Prepared{good, good, good}, queue.ErrQueueFull, "message 2"},
		{"nothing", nil, nil, ""},
		{"as many as there is room for", []*queue.Prepared{good, good}, nil, ""},
	} {
		err := pgx.BeginFunc(t.Context(), x.db, func(tx pgx.Tx) error {
			return errors.Join(x.box.Put(t.Context(), tx, c.p...), errNo)
		})
		if !errors.Is(err, errNo) || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", c.what, err, c.want, c.text)
		}
		var e *queue.Error
		if c.want != nil && (!errors.As(err, &e) || e.Op != "put") {
			t.Errorf("%s: %v is no *queue.Error of put", c.what, err)
		}
	}
	if err := x.box.Put(t.Context(), nil, good); !errors.Is(err, queue.ErrInvalidMessage) {
		t.Errorf("without a transaction: %v", err)
	}
	if err := x.box.PutSQL(t.Context(), nil, good); !errors.Is(err, queue.ErrInvalidMessage) {
		t.Errorf("without a transaction of database/sql: %v", err)
	}
}

// TestOpen: what is wrong with an outbox or a Forwarder is said when it is opened.
func TestOpen(t *testing.T) {
	t.Parallel()
	if _, err := outbox.Open(t.Context(), "mysql://h/db", nil); err == nil || !strings.Contains(err.Error(), "postgres://") {
		t.Errorf("a URL of another database: %v", err)
	}
	x := newFixture(t, nil)
	for what, o := range map[string]*outbox.ForwarderOptions{
		"a negative age":            {MaxAge: -1},
		"negative workers":          {Workers: -1},
		"a negative time-out":       {SendTimeout: -1},
		"a time-out above the lock": {SendTimeout: postgresqueue.DefaultLock / 2},
	} {
		if _, err := outbox.NewForwarder(t.Context(), x.box, x.Broker, orders, o); !errors.Is(err, queue.ErrInvalidOptions) {
			t.Errorf("%s: %v, want %v", what, err, queue.ErrInvalidOptions)
		}
	}
	for what, f := range map[string]func() (*outbox.Forwarder, error){
		"no outbox": func() (*outbox.Forwarder, error) { return outbox.NewForwarder(t.Context(), nil, x.Broker, orders, nil) },
		"no broker": func() (*outbox.Forwarder, error) { return outbox.NewForwarder(t.Context(), x.box, nil, orders, nil) },
	} {
		if _, err := f(); !errors.Is(err, queue.ErrInvalidOptions) {
			t.Errorf("%s: %v, want %v", what, err, queue.ErrInvalidOptions)
		}
	}
	f, err := outbox.NewForwarder(t.Context(), x.box, x.Broker, orders, nil)
	x.must(err)
	if f.Queue() != "outbox:orders" {
		t.Errorf("Queue() is %q", f.Queue())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	x.must(f.Run(ended))
	if err := f.Run(ended); !errors.Is(err, queue.ErrInvalidOptions) {
		t.Errorf("a second Run: %v", err)
	}
	f, err = outbox.NewForwarder(t.Context(), x.box, x.Broker, orders, &outbox.ForwarderOptions{Logger: slog.New(slog.DiscardHandler)})
	x.must(err)
	x.put(nil, &queue.Message{ID: "a"})
	x.must(x.Memory.Close(t.Context()))
	if err := f.Run(t.Context()); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Run with a broker that is closed: %v, want %v", err, queue.ErrClosed)
	}
	y := newFixture(t, nil)
	if f, err = outbox.NewForwarder(t.Context(), y.box, y.Broker, orders, nil); err != nil {
		t.Fatal(err)
	}
	y.must(y.box.Close(t.Context()))
	if err := f.Run(t.Context()); !errors.Is(err, queue.ErrClosed) {
		t.Errorf("Run with an outbox that is closed: %v, want %v", err, queue.ErrClosed)
	}
}
