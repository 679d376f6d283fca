package postgresqueue

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
)

// Send stores messages in one transaction.
func (q *Queue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	results := make([]driver.SendResult, len(m))
	fail := func(err error) []driver.SendResult {
		for i := range results {
			if results[i].Err == nil {
				results[i] = driver.SendResult{Err: err}
			}
		}
		return results
	}
	b, err := q.batch(ctx, m, func(i int, err error) error {
		results[i].Err = err
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if len(b.places) == 0 {
		return results
	}
	var stored []int64
	err = q.broker.request(ctx, func(ctx context.Context, c *conn) (err error) {
		stored, err = b.store(ctx, c, q.broker.options.Schema, q.queue)
		return err
	})
	if err != nil {
		return fail(err)
	}
	for k, i := range b.places {
		if stored[k] == 0 {
			results[i].Err = errFull
			continue
		}
		results[i].BrokerID = brokerID(stored[k])
	}
	q.broker.announce(q.queue)
	return results
}

var errFull = driver.Errorf(driver.Full, "the queue has reached its limit of messages")

// batch checks messages and puts them into one call. A message that this broker does not
// carry is left out, if refused returns nil.
func (q *Queue) batch(ctx context.Context, m []*driver.Message, refused func(i int, err error) error) (*batch, error) {
	if q.queue < 0 {
		return nil, driver.Unsupported("sending to a dead-letter queue")
	}
	if err := q.holder.Usable(ctx); err != nil {
		return nil, err
	}
	if len(m) > MaxBatch {
		return nil, &driver.Error{Kind: driver.TooLarge, Err: &driver.TooLargeError{What: "batch", Size: len(m), Limit: MaxBatch, Unit: "messages"}}
	}
	b := new(batch)
	for i := range m {
		if err := q.check(m[i]); err == nil {
			b.add(i, m[i])
		} else if err := refused(i, err); err != nil {
			return nil, err
		}
	}
	if limit := q.Capabilities().MaxBatchBytes; b.bytes > limit {
		return nil, driver.NewTooLarge("batch", b.bytes, limit)
	}
	return b, nil
}

// check refuses what this broker does not carry.
func (q *Queue) check(m *driver.Message) error {
	if err := m.Check(); err != nil {
		return err
	}
	for _, t := range [...]struct{ name, text string }{
		{"ID", m.ID}, {"SessionID", m.SessionID}, {"CorrelationID", m.CorrelationID}, {"ContentType", m.ContentType}, {"DedupID", m.DedupID},
	} {
		if !utf8.ValidString(t.text) || strings.IndexByte(t.text, 0) >= 0 {
			return driver.Errorf(driver.Invalid, "%s is not UTF-8 without NUL, which PostgreSQL stores", t.name)
		}
		// An index row holds 2,704 bytes (PostgreSQL, "B-Tree Indexes").
		if len(t.text) > maxText {
			return driver.NewTooLarge(t.name, len(t.text), maxText)
		}
	}
	switch {
	case len(m.Body) > q.settings.MaxBody:
		return driver.NewTooLarge("body", len(m.Body), q.settings.MaxBody)
	case metadata(m) > maxMetadata:
		return driver.NewTooLarge("attributes", metadata(m), maxMetadata)
	case q.settings.SessionOnly && m.SessionID == "":
		return driver.Errorf(driver.Invalid, "the queue takes only messages with a session ID")
	}
	return nil
}

// maxMetadata bounds what a message has beside its body, in bytes, as it is stored: schema.sql
// does not read more.
const maxMetadata = 1 << 20

// metadata is how many bytes of a message are stored beside its body.
func metadata(m *driver.Message) int {
	return len(m.ID) + len(m.CorrelationID) + len(m.ContentType) + len(dedupID(m)) + sqldriver.AttributesSize(m.Attributes) + sqldriver.AttributesSize(m.Trace)
}

// dedupID is the identity by which repeats are dropped.
func dedupID(m *driver.Message) string {
	if m.DedupID == "" {
		return m.ID
	}
	return m.DedupID
}

// maxText bounds session and de-duplication IDs in bytes, which lie in indexes, and the
// other texts alike.
const maxText = 2048

// Size returns the bytes of the body and of every string.
func (q *Queue) Size(m *driver.Message) int { return m.Bytes() }

// batch is messages as the function send takes them: a column for each field.
type batch struct {
	places []int // of each in the caller's list
	bytes  int

	ids, sessions, correlations, types, dedups []string
	attributes, traces, bodies                 [][]byte
	sealed                                     []bool
	notBefore                                  []*time.Time
	ttl                                        []int64
}

func (b *batch) add(place int, m *driver.Message) {
	b.places = append(b.places, place)
	b.bytes += m.Bytes()
	b.ids, b.sessions = append(b.ids, m.ID), append(b.sessions, m.SessionID)
	b.correlations, b.types, b.dedups = append(b.correlations, m.CorrelationID), append(b.types, m.ContentType), append(b.dedups, dedupID(m))
	b.attributes, b.traces = append(b.attributes, bytesOf(sqldriver.EncodeAttributes(m.Attributes))), append(b.traces, bytesOf(sqldriver.EncodeAttributes(m.Trace)))
	b.bodies = append(b.bodies, bytesOf(m.Body))
	b.sealed = append(b.sealed, m.Sealed)
	b.notBefore = append(b.notBefore, instant(m.NotBefore))
	b.ttl = append(b.ttl, int64(min(m.TTL, maxDuration)))
}

// bytesOf is b, and not NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// lastInstant and firstInstant are times that the database can store, with room to
// add durations. What lies beyond counts as them: never, and long ago.
var (
	firstInstant = time.Unix(0, 0)
	lastInstant  = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
)

// instant is a time as it is stored, NULL for none. It is rounded up to the database's
// microsecond.
func instant(t time.Time) *time.Time {
	switch {
	case t.IsZero():
		return nil
	case t.After(lastInstant):
		t = lastInstant
	case t.Before(firstInstant):
		t = firstInstant
	}
	t = t.Add(time.Microsecond - 1).Truncate(time.Microsecond)
	return &t
}

// querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// sendArguments are the arguments of the function send. Drivers that pass text need the types.
const sendArguments = `$1::bigint, $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::boolean[],
	$9::timestamptz[], $10::bigint[], $11::text[], $12::bytea[]`

// store stores the messages and returns the place of each, 0 for none.
func (b *batch) store(ctx context.Context, c querier, schema string, queue int64) (stored []int64, err error) {
	err = c.QueryRow(ctx, `SELECT `+schema+`.send(`+sendArguments+`)`, queue, b.ids, b.sessions, b.correlations, b.types, b.attributes,
		b.traces, b.sealed, b.notBefore, b.ttl, b.dedups, b.bodies).Scan(&stored)
	if err == nil && len(stored) != len(b.ids) {
		err = driver.Errorf(driver.Corrupt, "the server answered for %d of %d messages", len(stored), len(b.ids))
	}
	return stored, err
}
