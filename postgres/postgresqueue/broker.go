package postgresqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/postgres/internal/database"
)

// Broker is a connection to a schema of a database, and a driver.Broker. It is safe
// for concurrent use, and owns its goroutines: after Close there is none.
type Broker struct {
	options  Options
	pool     *pgxpool.Pool
	database string // see Database
	arrivals sqldriver.Arrivals
	notes    notes
	listen   listener
	churn    churn

	life   context.Context // until Close
	stop   context.CancelFunc
	owned  sync.WaitGroup // goroutines
	queues sqldriver.OpenSet[*Queue]
}

var _ driver.Broker = (*Broker)(nil)

type conn = pgxpool.Conn

// Open connects to the database at rawURL and makes, migrates or checks the schema. o
// may be nil; what the URL says goes before what o says.
//
//	postgres://user@host:5432/database?sslmode=verify-full&schema=queue_runtime
//
// Parameters are those of libpq that concern the connection, and this package's own:
// schema, pooled, poll, timeout, max_conns and must_exist as in [Options]; and lock,
// max_deliveries, retention, dead_letter_retention and dedup_window of queues that are
// made on demand. The password comes from PGPASSWORD, a passfile (PGPASSFILE), a
// client certificate, or the URL. Without sslmode Open refuses a server on another
// machine, and without target_session_attrs it connects to primaries only.
//
// It fails with ErrForeign, ErrNewer, ErrOlder or ErrAltered; with driver.Permission if
// the role may not log in, may not create the schema, or has more rights in the database
// than the schema's owner, as a superuser has; and with driver.Unavailable if the server does not answer. Nothing of the
// schema runs before it is verified. Its owner can change it later: do not open the schema
// of another role as a privileged role.
func Open(ctx context.Context, rawURL string, o *Options) (*Broker, error) {
	var options Options
	if o != nil {
		options = *o
	}
	config, err := parseURL(rawURL, &options)
	if err != nil {
		return nil, err
	}
	if options, err = options.resolve(); err != nil {
		return nil, err
	}
	b := &Broker{options: options}
	b.life, b.stop = context.WithCancel(context.Background())
	if b.pool, err = pgxpool.NewWithConfig(b.life, b.configure(config)); err != nil {
		b.stop()
		return nil, openError(classify(ctx, err))
	}
	b.notes.wake = make(chan struct{}, 1)
	b.churn.full = make(chan struct{}, 1)
	err = b.migrate(ctx)
	if err == nil {
		b.database, err = b.identify(ctx)
	}
	if err != nil {
		b.stop()
		b.pool.Close()
		return nil, openError(err)
	}
	b.owned.Go(b.maintain)
	if !options.Pooled {
		b.owned.Go(b.notify)
	}
	return b, nil
}

// configure sets what this package needs of the pool.
func (b *Broker) configure(c *pgxpool.Config) *pgxpool.Config {
	c.MaxConns = int32(b.options.MaxConns) //nolint:gosec // G115: at most MaxInt16
	c.MinConns = 0
	c.ConnConfig.ConnectTimeout = b.options.Timeout
	database.Limit(c)
	if c.ConnConfig.RuntimeParams["application_name"] == "" && !b.options.Pooled {
		c.ConnConfig.RuntimeParams["application_name"] = "queue-runtime"
	}
	if b.options.Pooled {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
		c.ConnConfig.StatementCacheCapacity, c.ConnConfig.DescriptionCacheCapacity = 0, 0
	}
	return c
}

// Schema returns the name of the schema.
func (b *Broker) Schema() string { return b.options.Schema }

// call returns the text that calls a function of the schema.
func (b *Broker) call(function, arguments string) string {
	return `SELECT * FROM ` + b.options.Schema + `.` + function + `(` + arguments + `)`
}

// request runs f with a connection, within the time-out. It classifies its error.
func (b *Broker) request(ctx context.Context, f func(context.Context, *conn) error) error {
	limited, cancel := context.WithTimeout(ctx, b.options.Timeout)
	defer cancel()
	c, err := b.pool.Acquire(limited)
	if err != nil {
		if b.life.Err() != nil {
			return &driver.Error{Kind: driver.Closed}
		}
		return classify(ctx, err)
	}
	defer c.Release()
	err = f(limited, c)
	if errors.Is(err, ErrForeign) || errors.Is(err, ErrNewer) || errors.Is(err, ErrOlder) || errors.Is(err, ErrAltered) {
		return err
	}
	return classify(ctx, err)
}

// grace is how long a request that takes messages or sessions goes on after its
// context has ended: its result must be given back. Most take a millisecond.
const grace = time.Second

// unhurried returns a context that ends shortly after ctx does.
func unhurried(ctx context.Context) (context.Context, context.CancelFunc) {
	return sqldriver.Outlasting(ctx, grace)
}

// Queues returns the names of the schema's queues, ascending.
func (b *Broker) Queues(ctx context.Context) (names []string, err error) {
	err = b.request(ctx, func(ctx context.Context, c *conn) error {
		rows, err := c.Query(ctx, b.call("list_queues", ""))
		if err != nil {
			return err
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return names, err
}

// Declare makes a queue, or gives one that exists these settings. They hold for
// callers that open it from then on; what concerns Send holds at once. o may be nil,
// for the defaults. It fails with driver.InvalidName for a name that no queue can have, and
// with driver.Permission if the role may not declare queues, which only the schema's owner
// may by default.
func (b *Broker) Declare(ctx context.Context, name string, o *QueueOptions) error {
	if err := checkName(name); err != nil {
		return err
	}
	if o == nil {
		o = new(QueueOptions)
	}
	resolved, err := o.resolve()
	if err != nil {
		return err
	}
	return b.declare(ctx, name, &resolved, changeExisting)
}

// What declare does with the settings of a queue that exists.
const (
	keepExisting   = false
	changeExisting = true
)

func (b *Broker) declare(ctx context.Context, name string, o *QueueOptions, change bool) error {
	return b.request(ctx, func(ctx context.Context, c *conn) error {
		_, err := c.Exec(ctx, b.call("declare_queue", "$1::text, $2::boolean, $3::bigint, $4::integer, $5::bigint, $6::bigint, $7::bigint, $8::boolean, $9::bigint, $10::integer"),
			name, change, o.Lock.Microseconds(), o.MaxDeliveries, o.Retention.Microseconds(), o.DeadLetterRetention.Microseconds(),
			o.DedupWindow.Microseconds(), o.SessionOnly, o.MaxMessages, o.MaxBody)
		return err
	})
}

// checkName refuses what no queue can be called. NUL is a control character.
func checkName(name string) error { return driver.CheckName(name) }

// Open opens a queue, and makes it with Options.Default if it does not exist. With
// Options.MustExist it fails with driver.NotFound then. o may be nil.
func (b *Broker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if b.life.Err() != nil {
		return nil, &driver.Error{Kind: driver.Closed}
	}
	id, settings, err := b.find(ctx, name)
	if err == nil && id == 0 && b.options.MustExist {
		return nil, driver.Errorf(driver.NotFound, "the schema has no queue %q", name)
	}
	if err == nil && id == 0 {
		if err = b.declare(ctx, name, &b.options.Default, keepExisting); err == nil {
			id, settings, err = b.find(ctx, name)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case id == 0:
		return nil, driver.Errorf(driver.NotFound, "the queue %q was removed", name)
	}
	if o != nil && o.Lock != 0 {
		settings.Lock = o.Lock
		if err := checkLock(o.Lock); err != nil {
			return nil, err
		}
	}
	return b.newQueue(id, name, settings)
}

// find returns the number and settings of a queue, 0 for none.
func (b *Broker) find(ctx context.Context, name string) (id int64, o QueueOptions, err error) {
	err = b.request(ctx, func(ctx context.Context, c *conn) error {
		var lock, retention, deadLetters, dedup int64
		err := c.QueryRow(ctx, b.call("find_queue", "$1::text"), name).Scan(&id, nil, &lock, &o.MaxDeliveries, &retention, &deadLetters,
			&dedup, &o.SessionOnly, &o.MaxMessages, &o.MaxBody)
		if errors.Is(err, pgx.ErrNoRows) {
			id = 0
			return nil
		}
		o.Lock = min(max(microseconds(lock), MinLock), MaxLock)
		o.Retention, o.DeadLetterRetention, o.DedupWindow = microseconds(retention), microseconds(deadLetters), microseconds(dedup)
		o.MaxBody = min(max(o.MaxBody, 0), MaxBody)
		return err
	})
	return id, o, err
}

func microseconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), maxDuration.Microseconds())) * time.Microsecond
}

// newQueue returns a queue that closes with b.
func (b *Broker) newQueue(number int64, name string, settings QueueOptions) (driver.Queue, error) {
	q := &Queue{source: newSource(b, number, name, settings)}
	q.settler = &settler{perform: q.perform}
	if !b.queues.Add(q) {
		return nil, &driver.Error{Kind: driver.Closed}
	}
	return q, nil
}

// Close closes every queue and the connections. A second Close returns nil. If the server
// does not answer, Close returns a few seconds after ctx has ended at the latest, and what is
// left of it goes on for as long as one request takes.
func (b *Broker) Close(ctx context.Context) error {
	if !b.queues.Shut() {
		return nil
	}
	closing, cancel := sqldriver.Outlasting(ctx, sqldriver.CloseGrace)
	defer cancel()
	err := b.queues.Close(ctx)
	b.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.owned.Wait()
		b.pool.Close()
	}()
	select {
	case <-done:
		return err
	case <-closing.Done():
		return errors.Join(err, errSilent)
	}
}

// errSilent is of a Close that ends before it is done.
var errSilent error = driver.Errorf(driver.Unavailable, "the server did not answer in time")
