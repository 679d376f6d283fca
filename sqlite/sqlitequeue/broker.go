package sqlitequeue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// Errors of [Open], for errors.Is.
var (
	// ErrForeign: the file is an SQLite database, but not a queue, or something was added
	// to the schema of one.
	ErrForeign = sqlitefile.ErrForeign
	// ErrNewer: a newer version of this package has written the file.
	ErrNewer = sqlitefile.ErrNewer
)

// migrations lead from each version of the schema to the next. Released ones are
// never changed.
var migrations = []string{schema}

// Broker is an open file, and a driver.Broker. It is safe for concurrent use,
// and owns its goroutines: after Close there is none.
type Broker struct {
	file        *sqlitefile.File
	arrivals    sqldriver.Arrivals
	options     Options
	maxBytes    int64
	maintaining chan struct{} // closed when the goroutine maintain has ended
	stop        context.CancelFunc
	queues      sqldriver.OpenSet[*Queue]
}

var _ driver.Broker = (*Broker)(nil)

// Open opens the file at path, and makes it, with mode 0600, if it is not
// there. The folder must exist, on a local disk. o may be nil.
//
// It fails with ErrForeign or ErrNewer, with driver.Corrupt for a file that is
// damaged or no database, with driver.Permission for one that cannot be written,
// and with driver.Unavailable when another process keeps it locked.
func Open(ctx context.Context, path string, o *Options) (*Broker, error) {
	options, err := o.resolve()
	if err != nil {
		return nil, err
	}
	b := &Broker{
		options:     options,
		maxBytes:    options.MaxBytes,
		maintaining: make(chan struct{}),
	}
	b.file, err = sqlitefile.Open(ctx, sqlitefile.Config{
		Path:          path,
		Create:        !options.MustExist,
		ApplicationID: sqlitefile.QueueID,
		Migrations:    migrations,
		Normal:        options.Synchronous == Normal,
		LockTimeout:   options.LockTimeout,
		Readers:       readers,
		Changed:       b.arrivals.NotifyAll,
	})
	if err != nil {
		return nil, fmt.Errorf("sqlitequeue: open: %w", err)
	}
	var maintaining context.Context
	maintaining, b.stop = context.WithCancel(context.Background())
	go b.maintain(maintaining)
	return b, nil
}

// readers is how many calls may look for messages at once, while one writes.
const readers = 4

// Path returns the absolute path of the file, symbolic links resolved.
func (b *Broker) Path() string { return b.file.Path() }

// SameFile reports whether path leads to the broker's file, or to one that
// belongs to it, through symbolic or hard links too: a replay store must not lie
// there.
func (b *Broker) SameFile(path string) bool {
	for _, suffix := range [...]string{"", "-wal", "-shm", "-turn"} {
		if sqlitefile.SameFile(path, b.Path()+suffix) {
			return true
		}
	}
	return false
}

// Disk returns how many bytes are free on the disk of the file, and how many of them Send
// leaves to receiving and settling; false if the system does not tell.
func (b *Broker) Disk() (free, reserve int64, ok bool) {
	s, ok := b.file.Space(0)
	return s.Free, s.Reserve, ok
}

// Check reads the whole file and reports the first damage as driver.Corrupt: for
// diagnosis, since it takes as long as reading the file does.
func (b *Broker) Check(ctx context.Context) error { return b.file.Check(ctx) }

const (
	queueColumns = `id, lock, max_deliveries, retention, dead_letter_retention, dedup_window, session_only, max_messages, max_body`

	selectQueue = `SELECT ` + queueColumns + ` FROM queues WHERE name = ?1`
	listQueues  = `SELECT name FROM queues ORDER BY name`

	// max(id) + 1 would give the number of a removed queue to another.
	insertQueue = `INSERT INTO queues (id, lock, max_deliveries, retention, dead_letter_retention, dedup_window,
		session_only, max_messages, max_body, name) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)`

	updateQueue = `UPDATE queues SET lock = ?2, max_deliveries = ?3, retention = ?4, dead_letter_retention = ?5,
		dedup_window = ?6, session_only = ?7, max_messages = ?8, max_body = ?9 WHERE id = ?1`
)

// Queues returns the names of the file's queues, ascending.
func (b *Broker) Queues(ctx context.Context) (names []string, err error) {
	err = b.file.Read(ctx, func(c *sqlitefile.Conn) error {
		names = nil
		return c.Query(listQueues, func(r sqlitefile.Row) error { names = append(names, r.Text(0)); return nil })
	})
	return names, err
}

// Declare makes a queue, or gives an existing one these settings. They take effect for
// queues that are opened from then on. o may be nil, for the defaults.
func (b *Broker) Declare(ctx context.Context, name string, o *QueueOptions) error {
	if err := driver.CheckName(name); err != nil {
		return err
	}
	if o == nil {
		o = new(QueueOptions)
	}
	settings, err := o.resolve()
	if err != nil {
		return err
	}
	return b.file.Write(ctx, func(c *sqlitefile.Conn) error {
		id, _, err := findQueue(c, name)
		if err != nil && (id == 0 || driver.KindOf(err) != driver.Corrupt) { // damaged settings are replaced
			return err
		}
		if id != 0 {
			_, err = c.Exec(updateQueue, settings.values(id)...)
			return err
		}
		_, err = makeQueue(c, name, &settings)
		return err
	})
}

// Open opens a queue, and makes it with Options.Default if it does not exist,
// unless Options.MustExist says otherwise.
func (b *Broker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	if err := driver.CheckName(name); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var id int64
	var settings QueueOptions
	err := b.file.Read(ctx, func(c *sqlitefile.Conn) (err error) {
		id, settings, err = findQueue(c, name)
		return err
	})
	if err == nil && id == 0 {
		if b.options.MustExist {
			return nil, driver.Errorf(driver.NotFound, "the file has no queue %q", name)
		}
		err = b.file.Write(ctx, func(c *sqlitefile.Conn) (err error) {
			if id, settings, err = findQueue(c, name); err == nil && id == 0 {
				settings = b.options.Default
				id, err = makeQueue(c, name, &settings)
			}
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	if o != nil {
		if o.Lock != 0 {
			settings.Lock = o.Lock
		}
		if err := checkLock(settings.Lock); err != nil {
			return nil, err
		}
	}
	return b.newQueue(id, name, settings)
}

// newQueue returns a queue that closes with b.
func (b *Broker) newQueue(number int64, name string, settings QueueOptions) (driver.Queue, error) {
	q := &Queue{source: newSource(b, number, name, settings)}
	if !b.queues.Add(q) {
		return nil, &driver.Error{Kind: driver.Closed}
	}
	return q, nil
}

// findQueue returns the number and settings of a queue, 0 for none.
func findQueue(c *sqlitefile.Conn, name string) (id int64, settings QueueOptions, err error) {
	_, err = c.One(selectQueue, func(r sqlitefile.Row) error {
		id = r.Int(0)
		settings = QueueOptions{
			Lock:                min(max(time.Duration(r.Int(1)), MinLock), MaxLock),
			MaxDeliveries:       clampInt(max(0, r.Int(2))),
			Retention:           time.Duration(r.Int(3)),
			DeadLetterRetention: time.Duration(max(0, r.Int(4))),
			DedupWindow:         time.Duration(max(0, r.Int(5))),
			SessionOnly:         r.Int(6) != 0,
			MaxMessages:         clampInt(max(0, r.Int(7))),
			MaxBody:             int(min(max(0, r.Int(8)), MaxBody)),
		}
		if settings.Retention <= 0 {
			return driver.Errorf(driver.Corrupt, "queue %q has a retention of %s in the file: declare it again with one above zero", name, settings.Retention)
		}
		return nil
	}, name)
	return id, settings, err
}

func makeQueue(c *sqlitefile.Conn, name string, settings *QueueOptions) (int64, error) {
	// From the counter of messages: a number is never given twice.
	id, err := c.Int(nextSeq, int64(1))
	if err != nil {
		return 0, err
	}
	_, err = c.Exec(insertQueue, append(settings.values(id), name)...)
	return id, err
}

// values are queueColumns.
func (o *QueueOptions) values(id int64) []any {
	return []any{
		id, int64(o.Lock), int64(o.MaxDeliveries), int64(o.Retention), int64(o.DeadLetterRetention),
		int64(o.DedupWindow), flag(o.SessionOnly), int64(o.MaxMessages), int64(o.MaxBody),
	}
}

// Close closes every queue and the file. If much of the file is free, it first returns
// space to the file system, for at most a second. If another process holds the lock on the
// file, Close ends a few seconds after ctx at the latest, and what it could not give back
// comes again when its locks are over.
func (b *Broker) Close(ctx context.Context) error {
	if !b.queues.Shut() {
		return nil
	}
	b.stop()
	err := b.queues.Close(ctx)
	<-b.maintaining
	shrinking, done := context.WithTimeout(ctx, closeShrink)
	_ = b.shrink(shrinking) // what is left is for the next
	done()
	return errors.Join(err, b.file.Close(ctx))
}
