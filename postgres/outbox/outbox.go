package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
)

// DefaultSchema is the schema of an outbox unless the URL or the options name another.
const DefaultSchema = "queue_outbox"

// ErrNotSealed is the error of Put for a message in the clear.
var ErrNotSealed = errors.New("the message is not sealed, and an outbox stores sealed messages only: enable encryption for its sender")

// Outbox is an outbox in a database. Close ends its connections.
type Outbox struct {
	broker *postgresqueue.Broker

	mu     sync.Mutex // guards what follows
	queues map[string]*postgresqueue.Queue
}

// Open opens the outbox in the database at rawURL, and makes its schema if the role may.
// URL and options are those of postgresqueue.Open; o may be nil. Options.Default applies
// to the queues of the outbox:
//
//   - MaxMessages bounds what waits; Put fails with queue.ErrQueueFull beyond;
//   - MaxDeliveries is how often a message is tried that its broker refuses without
//     saying why;
//   - DeadLetterRetention is how long those are kept that could not be sent;
//   - Lock is how long a Forwarder that has crashed keeps its messages from the others.
//
// The transactions of Put must be in the same database. Their role needs the rights of a
// sender, and Forwarders those of a receiver (docs/brokers/postgres.md, Roles).
func Open(ctx context.Context, rawURL string, o *postgresqueue.Options) (*Outbox, error) {
	var options postgresqueue.Options
	if o != nil {
		options = *o
	}
	if options.Schema == "" {
		options.Schema = DefaultSchema
	}
	b, err := postgresqueue.Open(ctx, rawURL, &options)
	if err != nil {
		return nil, queue.NewError("open outbox", "", err)
	}
	return &Outbox{broker: b, queues: make(map[string]*postgresqueue.Queue)}, nil
}

// Broker returns the outbox as a broker, to look at what waits and at dead letters. The
// outbox closes it.
func (b *Outbox) Broker() *postgresqueue.Broker { return b.broker }

// Put stores messages in a transaction of the caller: they are sent after its commit, and
// never if it is rolled back. Put them last, all in one call, and commit: their sessions
// are locked until then (see postgresqueue.Queue.SendTx).
//
// The age of a message counts from its Prepare. It fails with ErrNotSealed, with
// queue.ErrQueueFull if MaxMessages wait, and as Queue.SendTx does.
func (b *Outbox) Put(ctx context.Context, tx pgx.Tx, p ...*queue.Prepared) error {
	return b.put(ctx, p, func(q *postgresqueue.Queue, m []*driver.Message) error { return q.SendTx(ctx, tx, m) })
}

// PutSQL is Put for a transaction of database/sql (see postgresqueue.Queue.SendSQLTx).
func (b *Outbox) PutSQL(ctx context.Context, tx *sql.Tx, p ...*queue.Prepared) error {
	return b.put(ctx, p, func(q *postgresqueue.Queue, m []*driver.Message) error { return q.SendSQLTx(ctx, tx, m) })
}

// parcel is what goes to one queue.
type parcel struct {
	queue    string
	messages []*driver.Message
}

func (b *Outbox) put(ctx context.Context, p []*queue.Prepared, send func(*postgresqueue.Queue, []*driver.Message) error) error {
	parcels, err := sorted(p)
	if err != nil {
		return err
	}
	for _, x := range parcels {
		q, err := b.queue(ctx, x.queue)
		if err == nil {
			err = send(q, x.messages)
		}
		if err != nil {
			return queue.NewError("put", x.queue, err)
		}
	}
	return nil
}

// sorted sorts messages by queue, so that two transactions that put to the same ones lock
// them in the same order. Those of a queue keep theirs.
func sorted(p []*queue.Prepared) ([]parcel, error) {
	var list []parcel
	for i, x := range p {
		if err := check(x); err != nil {
			name := ""
			if x != nil {
				name = x.Queue
			}
			return nil, queue.NewError("put", name, fmt.Errorf("message %d: %w", i, err))
		}
		at := slices.IndexFunc(list, func(y parcel) bool { return y.queue == x.Queue })
		if at < 0 {
			at = len(list)
			list = append(list, parcel{queue: x.Queue})
		}
		list[at].messages = append(list[at].messages, &x.Message)
	}
	slices.SortFunc(list, func(x, y parcel) int { return cmp.Compare(x.queue, y.queue) })
	return list, nil
}

// check refuses what is not a sealed message for a queue.
func check(p *queue.Prepared) error {
	switch {
	case p == nil:
		return fmt.Errorf("%w: nil", queue.ErrInvalidMessage)
	case !p.Message.Sealed:
		return ErrNotSealed
	}
	if _, err := envelope.Parse(p.Message.Body); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSealed, err)
	}
	return nil
}

// queue returns the outbox's queue of that name.
func (b *Outbox) queue(ctx context.Context, name string) (*postgresqueue.Queue, error) {
	b.mu.Lock()
	q := b.queues[name]
	b.mu.Unlock()
	if q != nil {
		return q, nil
	}
	opened, err := b.broker.Open(ctx, name, nil)
	if err != nil {
		return nil, err
	}
	q, ok := opened.(*postgresqueue.Queue)
	if !ok {
		return nil, fmt.Errorf("the queue is a %T", opened) // unreachable: Open documents the type
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if first := b.queues[name]; first != nil {
		return first, nil // another call was faster; the broker closes both
	}
	b.queues[name] = q
	return q, nil
}

// Close ends what the outbox has open. Forwarders over it end with queue.ErrClosed.
func (b *Outbox) Close(ctx context.Context) error {
	return queue.NewError("close outbox", "", b.broker.Close(ctx))
}
