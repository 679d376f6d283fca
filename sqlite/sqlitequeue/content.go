package sqlitequeue

import (
	"math"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

const insertContent = `INSERT INTO contents
	(id, message_id, correlation_id, content_type, attributes, trace, sealed, not_before, ttl, dedup_id, body)
	VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)`

// contentColumns are read by parseContent, delivered columns by parseDelivery.
const contentColumns = `message_id, correlation_id, content_type, attributes, trace, sealed, not_before, ttl, dedup_id, body`

// selectContent finds nothing if the contents are larger than ?2 bytes: SQLite tells
// their length without reading them.
const (
	selectContent = `SELECT ` + contentColumns + ` FROM contents WHERE id = ?1 AND ` + contentSize + ` <= ?2`

	contentSize = `(coalesce(octet_length(body), 0) + coalesce(octet_length(attributes), 0) + coalesce(octet_length(trace), 0)
		+ coalesce(octet_length(message_id), 0) + coalesce(octet_length(correlation_id), 0) + coalesce(octet_length(content_type), 0)
		+ coalesce(octet_length(dedup_id), 0))`
)

// contentLimit is the largest contents that are read, in bytes. What is larger was not
// sent under the queue's settings, as far as they are above the default: it is handed up
// as undecodable and stays in the file as it is.
func (s *source) contentLimit() int64 {
	return int64(max(s.settings.MaxBody, DefaultMaxBody)) + maxMetadata
}

// maxMetadata bounds what a message has beside its body, in bytes, as it is stored: Send
// refuses more, because it would not be read again.
const maxMetadata = 1 << 20

// metadata is how many bytes of a message are stored beside its body.
func metadata(m *driver.Message) int {
	return len(m.ID) + len(m.CorrelationID) + len(m.ContentType) + len(m.DedupID) + sqldriver.AttributesSize(m.Attributes) + sqldriver.AttributesSize(m.Trace)
}

// deliveryColumns are what is handed out of a row of messages.
const deliveryColumns = `messages.seq, messages.content, messages.deliveries, messages.enqueued, messages.session,
	messages.reason, messages.description, messages.source, messages.died`

const deliveryWidth = 9

// content is a message in its stored form, made before the transaction.
type content struct {
	message    *driver.Message
	attributes []byte
	trace      []byte
	size       int
}

func newContent(m *driver.Message) content {
	return content{m, sqldriver.EncodeAttributes(m.Attributes), sqldriver.EncodeAttributes(m.Trace), m.Bytes()}
}

func (c *content) insert(conn *sqlitefile.Conn, id int64) error {
	m := c.message
	body := m.Body
	if body == nil {
		body = []byte{} // NULL otherwise
	}
	_, err := conn.Exec(insertContent, id, m.ID, text(m.CorrelationID), text(m.ContentType), blob(c.attributes), blob(c.trace),
		flag(m.Sealed), instant(m.NotBefore), duration(m.TTL), text(m.DedupID), body)
	return err
}

// parseContent reads contentColumns from column first on into m. It reports
// whether they are as a sender of this package stores them. If they are not, the
// message is delivered all the same, so that the receiver can reject it.
func parseContent(r sqlitefile.Row, first int, m *driver.Message) (ok bool) {
	r = r[first:]
	var errA, errT error
	m.ID = r.Text(0)
	m.CorrelationID = r.Text(1)
	m.ContentType = r.Text(2)
	m.Attributes, errA = sqldriver.DecodeAttributes(r.Bytes(3))
	m.Trace, errT = sqldriver.DecodeAttributes(r.Bytes(4))
	m.Sealed = r.Int(5) != 0
	if !r.Null(6) {
		m.NotBefore = time.Unix(0, r.Int(6))
	}
	m.TTL = time.Duration(r.Int(7))
	m.DedupID = r.Text(8)
	m.Body = r.Bytes(9)
	return errA == nil && errT == nil && !r.Null(0)
}

// parseDelivery reads deliveryColumns. The key of the contents is second.
func parseDelivery(r sqlitefile.Row) (d *driver.Delivery, content int64) {
	d = &driver.Delivery{
		Message:    driver.Message{SessionID: r.Text(4)},
		BrokerID:   brokerID(r.Int(0)),
		Count:      clampInt(r.Int(2)),
		EnqueuedAt: time.Unix(0, r.Int(3)),
	}
	if !r.Null(8) {
		d.DeadLetter = &driver.DeadLetter{
			Reason:      r.Text(5),
			Description: r.Text(6),
			Queue:       r.Text(7),
			At:          time.Unix(0, r.Int(8)),
		}
	}
	return d, r.Int(1)
}

// text, blob, instant and duration are NULL for the zero value.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func blob(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

func instant(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return nanos(t)
}

func duration(d time.Duration) any {
	if d == 0 {
		return nil
	}
	return int64(d)
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// lastNano is the last time that fits Unix nanoseconds, in the year 2262. What
// lies beyond counts as that: never, for a queue.
var lastNano = time.Unix(0, math.MaxInt64)

func nanos(t time.Time) int64 {
	switch {
	case t.After(lastNano):
		return math.MaxInt64
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	}
	return t.UnixNano()
}

// later is t + d without wrapping.
func later(t int64, d time.Duration) int64 {
	if int64(d) > math.MaxInt64-max(t, 0) {
		return math.MaxInt64
	}
	return t + int64(d)
}

func clampInt(n int64) int {
	return int(min(max(n, math.MinInt32), math.MaxInt32))
}
