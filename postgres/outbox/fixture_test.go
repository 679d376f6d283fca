package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/outbox"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/testbed/postgres"
)

const orders = "orders"

// testTimeout bounds what a test waits for. It is for a machine under load.
const testTimeout = 5 * time.Minute

var schemas atomic.Int64

// fixture is an outbox in front of a broker in memory, whose calls can fail.
type fixture struct {
	*queuetest.Fixture
	t      *testing.T
	schema string
	box    *outbox.Outbox
	sender *queue.Sender
	db     *pgx.Conn // of the application, in the same database
}

func newFixture(t *testing.T, o *postgresqueue.Options) *fixture {
	t.Helper()
	x := &fixture{Fixture: queuetest.New(t, nil), t: t, schema: fmt.Sprint("o", schemas.Add(1))}
	x.box = x.open(o)
	var err error
	x.sender, err = x.Sender(t.Context(), orders, nil)
	x.must(err)
	x.db, err = pgx.Connect(t.Context(), x.server())
	x.must(err)
	t.Cleanup(func() { _ = x.db.Close(context.Background()) })
	return x
}

func (x *fixture) server() string { return postgres.Shared(x.t).URL("postgres", "postgres") }

func (x *fixture) url() string { return x.server() + "?schema=" + x.schema }

// open opens the outbox once more, as another process would.
func (x *fixture) open(o *postgresqueue.Options) *outbox.Outbox {
	x.t.Helper()
	b, err := outbox.Open(x.t.Context(), x.url(), o)
	x.must(err)
	x.t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			x.t.Errorf("Close: %v", err)
		}
	})
	return b
}

func (x *fixture) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *fixture) prepare(m *queue.Message) *queue.Prepared {
	x.t.Helper()
	p, err := x.sender.Prepare(x.t.Context(), m)
	x.must(err)
	return p
}

// put puts messages in a transaction that ends so.
func (x *fixture) put(end error, m ...*queue.Message) {
	x.t.Helper()
	var p []*queue.Prepared
	for _, one := range m {
		p = append(p, x.prepare(one))
	}
	err := pgx.BeginFunc(x.t.Context(), x.db, func(tx pgx.Tx) error {
		return errors.Join(x.box.Put(x.t.Context(), tx, p...), end)
	})
	if !errors.Is(err, end) {
		x.t.Fatal(err)
	}
}

// forward runs a Forwarder until the function that it returns is called, which wants no
// error of Run.
func (x *fixture) forward(from *outbox.Outbox, to driver.Broker, o *outbox.ForwarderOptions) (stop func()) {
	x.t.Helper()
	var options outbox.ForwarderOptions
	if o != nil {
		options = *o
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := outbox.NewForwarder(x.t.Context(), from, to, orders, &options)
	x.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			x.t.Errorf("Run: %v", err)
		}
	})
	x.t.Cleanup(stop)
	return stop
}

// until waits until the outbox is as wanted.
func (x *fixture) until(what string, want func(driver.Stats) bool) driver.Stats {
	x.t.Helper()
	q, err := x.box.Broker().Open(x.t.Context(), orders, nil)
	x.must(err)
	defer func() { _ = q.Close(context.Background()) }()
	var st driver.Stats
	for deadline := time.Now().Add(testTimeout); time.Now().Before(deadline); {
		st, err = q.Stats(x.t.Context())
		x.must(err)
		if want(st) {
			return st
		}
	}
	x.t.Fatalf("the outbox is not %s within %s: %+v", what, testTimeout, st)
	return st
}

func drained(st driver.Stats) bool { return st.Ready+st.InFlight+st.Scheduled == 0 }

// ids are those of the messages that the broker has, in order.
func (x *fixture) ids() (list []string) {
	x.t.Helper()
	for _, p := range x.Waiting(x.t.Context(), orders) {
		if p.Err != nil {
			x.t.Errorf("a message does not open: %v", p.Err)
		}
		list = append(list, p.ID)
	}
	return list
}

// reasons are those of the outbox's dead letters, by message.
func (x *fixture) reasons() map[string]string {
	x.t.Helper()
	client, err := queue.New(x.box.Broker(), &queue.Options{Logger: slog.New(slog.DiscardHandler)})
	x.must(err)
	d, err := deadletter.Open(x.t.Context(), client, orders, nil)
	x.must(err)
	defer func() { _ = d.Close(context.Background()) }()
	all := make(map[string]string)
	for l, err := range d.All(x.t.Context(), nil) {
		x.must(err)
		all[l.ID] = l.DeadLetter.Reason
	}
	return all
}

// value asks the database for one value.
func value[T any](x *fixture, query string) (v T) {
	x.t.Helper()
	x.must(x.db.QueryRow(x.t.Context(), query).Scan(&v))
	return v
}

func openSQL(x *fixture) *sql.DB {
	x.t.Helper()
	db, err := sql.Open("pgx", x.server())
	x.must(err)
	x.t.Cleanup(func() { _ = db.Close() })
	return db
}
