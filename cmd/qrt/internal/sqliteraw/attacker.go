// Package sqliteraw is somebody who edits the file of a SQLite queue with plain
// SQL, past the code of package sqlitequeue: the attacker of the demonstration.
// It shares no code with the driver; the stored forms are read and written here
// once more.
package sqliteraw

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite" of database/sql

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// Attacker is a connection to the file. It is safe for concurrent use.
type Attacker struct{ db *sql.DB }

var _ drivertest.Attacker = (*Attacker)(nil)

// Open opens the file at path, which must be a queue. Close it.
func Open(ctx context.Context, path string) (*Attacker, error) {
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"_pragma": {"busy_timeout(20000)"},
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := db.PingContext(ctx); err != nil {
		_ = db.Close() // the first error is the one that tells
		return nil, err
	}
	return &Attacker{db}, nil
}

// Close closes the connection.
func (a *Attacker) Close() error { return a.db.Close() }

// held is the state of a message that somebody has received and not settled.
const held = 3

const columns = `m.seq, c.message_id, m.session, c.correlation_id, c.content_type, c.attributes, c.trace,
	c.sealed, c.not_before, c.ttl, c.dedup_id, c.body, m.reason, m.description, m.source, m.died`

// row is a stored message.
type row struct {
	seq  int64
	m    driver.Message
	dead driver.DeadLetter
}

// read returns the messages of a queue, or of its dead letters where side is -1.
func read(ctx context.Context, tx *sql.Tx, queue string, side int) (list []row, err error) {
	rows, err := tx.QueryContext(ctx, `SELECT `+columns+` FROM messages m JOIN contents c ON c.id = m.content
		WHERE m.queue = ? * (SELECT id FROM queues WHERE name = ?) AND m.state <> ? ORDER BY m.seq`, side, queue, held)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r row
		var session, correlation, contentType, dedup, reason, description, source sql.NullString
		var attributes, trace []byte
		var notBefore, ttl, died sql.NullInt64
		if err := rows.Scan(&r.seq, &r.m.ID, &session, &correlation, &contentType, &attributes, &trace,
			&r.m.Sealed, &notBefore, &ttl, &dedup, &r.m.Body, &reason, &description, &source, &died); err != nil {
			return nil, err
		}
		r.m.SessionID, r.m.CorrelationID, r.m.ContentType, r.m.DedupID = session.String, correlation.String, contentType.String, dedup.String
		if r.m.Attributes, err = parsePairs(attributes); err != nil {
			return nil, err
		}
		if r.m.Trace, err = parsePairs(trace); err != nil {
			return nil, err
		}
		if notBefore.Valid {
			r.m.NotBefore = time.Unix(0, notBefore.Int64)
		}
		r.m.TTL = time.Duration(ttl.Int64)
		r.dead = driver.DeadLetter{Reason: reason.String, Description: description.String, Queue: source.String}
		if died.Valid {
			r.dead.At = time.Unix(0, died.Int64)
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

func (a *Attacker) within(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Read returns the messages of a queue that nobody holds.
func (a *Attacker) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	var list []row
	err := a.within(ctx, func(tx *sql.Tx) (err error) {
		list, err = read(ctx, tx, queue, 1)
		return err
	})
	return messages(list), err
}

// DeadLetters returns the dead letters of a queue, and why each lies there.
func (a *Attacker) DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	var list []row
	err := a.within(ctx, func(tx *sql.Tx) (err error) {
		list, err = read(ctx, tx, queue, -1)
		return err
	})
	why := make([]driver.DeadLetter, len(list))
	for i := range list {
		why[i] = list[i].dead
	}
	return messages(list), why, err
}

func messages(list []row) []driver.Message {
	out := make([]driver.Message, len(list))
	for i := range list {
		out[i] = list[i].m
	}
	return out
}

// Rewrite replaces the messages of a queue that nobody holds by what f makes of
// them.
func (a *Attacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	return a.within(ctx, func(tx *sql.Tx) error {
		before, err := read(ctx, tx, queue, 1)
		if err != nil {
			return err
		}
		after := f(messages(before))
		e := &editor{tx, make(map[string]*sql.Stmt)}
		for _, r := range before {
			if err := e.run(ctx, `DELETE FROM messages WHERE queue > 0 AND seq = ?`, r.seq); err != nil {
				return err
			}
		}
		for i := range after {
			if err := e.insert(ctx, queue, &after[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// editor runs statements of one transaction, each prepared once.
type editor struct {
	tx       *sql.Tx
	prepared map[string]*sql.Stmt
}

func (e *editor) statement(ctx context.Context, text string) (*sql.Stmt, error) {
	if s := e.prepared[text]; s != nil {
		return s, nil
	}
	s, err := e.tx.PrepareContext(ctx, text) //nolint:sqlclosecheck // the end of the transaction closes it
	if err == nil {
		e.prepared[text] = s
	}
	return s, err
}

func (e *editor) run(ctx context.Context, text string, args ...any) error {
	s, err := e.statement(ctx, text)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx, args...)
	return err
}

func (e *editor) number(ctx context.Context, text string, args ...any) (n int64, err error) {
	s, err := e.statement(ctx, text)
	if err != nil {
		return 0, err
	}
	return n, s.QueryRowContext(ctx, args...).Scan(&n)
}

// insert stores a message as if it had just been sent, due at once and for good.
func (e *editor) insert(ctx context.Context, queue string, m *driver.Message) error {
	seq, err := e.number(ctx, `UPDATE file SET seq = seq + 1 RETURNING seq`)
	if err != nil {
		return err
	}
	id, err := e.number(ctx, `SELECT id FROM queues WHERE name = ?`, queue)
	if err != nil {
		return fmt.Errorf("queue %q: %w", queue, err)
	}
	body := m.Body
	if body == nil {
		body = []byte{}
	}
	if err := e.run(ctx, `INSERT INTO contents
		(id, message_id, correlation_id, content_type, attributes, trace, sealed, dedup_id, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		seq, m.ID, text(m.CorrelationID), text(m.ContentType), pairs(m.Attributes), pairs(m.Trace), m.Sealed, text(m.DedupID), body); err != nil {
		return err
	}
	return e.run(ctx, `INSERT INTO messages (queue, seq, state, deliveries, max_deliveries, enqueued, content, session)
		VALUES (?, ?, 0, 0, 0, ?, ?, ?)`, id, seq, time.Now().UnixNano(), seq, text(m.SessionID))
}

// text is NULL where there is none.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// pairs writes a map as it is stored: ascending by name, each name and value
// after its length as an unsigned varint.
func pairs(m map[string]string) any {
	if len(m) == 0 {
		return nil
	}
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(m)) {
		for _, s := range []string{name, m[name]} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	return b
}

func parsePairs(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, nil //nolint:nilnil // no attributes is an answer
	}
	m := make(map[string]string)
	for len(b) > 0 {
		var s [2]string
		for i := range s {
			n, size := binary.Uvarint(b)
			if size <= 0 || n > uint64(len(b)-size) {
				return nil, errors.New("attributes are not stored as expected")
			}
			end := size + int(n) //nolint:gosec // G115: at most len(b)
			s[i], b = string(b[size:end]), b[end:]
		}
		m[s[0]] = s[1]
	}
	return m, nil
}
