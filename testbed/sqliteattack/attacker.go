// Package sqliteattack is an attacker who controls the file of a sqlitequeue: it reads
// and changes the stored messages by plain SQL, as the sqlite3 shell would, without
// the code of that package.
//
// It is for demonstrations and tests of what such an attacker achieves. It shares no
// code with the package that it attacks, so that an error there cannot hide an attack.
// Do not use it on a file that matters.
package sqliteattack

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/internal/attributes"
	_ "modernc.org/sqlite" // the database/sql driver "sqlite"
)

// Attacker is a connection of its own to the file. It has the methods that
// drivertest.Attacker asks for, and is safe for concurrent use.
type Attacker struct{ db *sql.DB }

// Open connects to the file at path, which must exist.
func Open(path string) (*Attacker, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	name := filepath.ToSlash(path)
	if !strings.HasPrefix(name, "/") {
		name = "/" + name
	}
	dsn := url.URL{Scheme: "file", Path: name, OmitHost: true, RawQuery: "mode=rw&_txlock=immediate&_pragma=busy_timeout(10000)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return &Attacker{db}, nil
}

// Close ends the connection.
func (a *Attacker) Close() error { return a.db.Close() }

// Exec runs any statement and returns how many rows it changed.
func (a *Attacker) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	r, err := a.db.ExecContext(ctx, statement, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// stored is a message with the place where it lies.
type stored struct {
	driver.Message
	seq, content int64
	dead         driver.DeadLetter
}

const columns = `m.seq, m.content, m.session, m.reason, m.description, m.source, m.died,
	c.message_id, c.correlation_id, c.content_type, c.attributes, c.trace, c.sealed, c.not_before, c.ttl, c.dedup_id, c.body`

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// read returns a queue's messages, or with sign -1 its dead letters, in the order
// of storage, and the queue's number.
func read(ctx context.Context, db querier, queue string, sign int64) (all []stored, number int64, err error) {
	if err := db.QueryRowContext(ctx, `SELECT id FROM queues WHERE name = ?`, queue).Scan(&number); err != nil {
		return nil, 0, fmt.Errorf("queue %q: %w", queue, err)
	}
	rows, err := db.QueryContext(ctx, `SELECT `+columns+` FROM messages m JOIN contents c ON c.id = m.content
		WHERE m.queue = ? ORDER BY m.seq`, sign*number)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var s stored
		var session, reason, description, source, correlation, contentType, dedup sql.NullString
		var died, notBefore, ttl sql.NullInt64
		var named, trace []byte // as stored
		if err := rows.Scan(&s.seq, &s.content, &session, &reason, &description, &source, &died,
			&s.ID, &correlation, &contentType, &named, &trace, &s.Sealed, &notBefore, &ttl, &dedup, &s.Body); err != nil {
			return nil, 0, err
		}
		s.SessionID, s.CorrelationID, s.ContentType, s.DedupID = session.String, correlation.String, contentType.String, dedup.String
		s.TTL = time.Duration(ttl.Int64)
		if notBefore.Valid {
			s.NotBefore = time.Unix(0, notBefore.Int64)
		}
		if s.Attributes, err = attributes.Decode(named); err != nil {
			return nil, 0, err
		}
		if s.Trace, err = attributes.Decode(trace); err != nil {
			return nil, 0, err
		}
		s.dead = driver.DeadLetter{Reason: reason.String, Description: description.String, Queue: source.String, At: time.Unix(0, died.Int64)}
		all = append(all, s)
	}
	return all, number, rows.Err()
}

// messages returns copies, which a caller may change.
func messages(all []stored) []driver.Message {
	out := make([]driver.Message, len(all))
	for i := range all {
		out[i] = all[i].Message.Clone()
	}
	return out
}

// Read returns the waiting messages of a queue in the order of storage.
func (a *Attacker) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	all, _, err := read(ctx, a.db, queue, 1)
	return messages(all), err
}

// DeadLetters returns the dead letters of a queue, and why each is one.
func (a *Attacker) DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	all, _, err := read(ctx, a.db, queue, -1)
	why := make([]driver.DeadLetter, len(all))
	for i := range all {
		why[i] = all[i].dead
	}
	return messages(all), why, err
}

// Rewrite replaces the waiting messages of a queue by what f makes of them, in
// that order: it edits rows where they lie, adds rows, and removes rows.
func (a *Attacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit
	all, number, err := read(ctx, tx, queue, 1)
	if err != nil {
		return err
	}
	wanted := f(messages(all))
	for i := range wanted {
		if i < len(all) {
			err = edit(ctx, tx, number, &all[i], &wanted[i])
		} else {
			err = add(ctx, tx, number, &wanted[i])
		}
		if err != nil {
			return err
		}
	}
	for i := len(wanted); i < len(all); i++ {
		if _, err := tx.ExecContext(ctx, `DELETE FROM messages WHERE queue = ? AND seq = ?`, number, all[i].seq); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// edit makes a stored message what is wanted, and due.
func edit(ctx context.Context, tx *sql.Tx, number int64, s *stored, m *driver.Message) error {
	_, err := tx.ExecContext(ctx, `UPDATE contents SET message_id = ?, correlation_id = ?, content_type = ?, attributes = ?, trace = ?,
		sealed = ?, not_before = ?, ttl = ?, dedup_id = ?, body = ? WHERE id = ?`, append(values(m), s.content)...)
	if err != nil {
		return err
	}
	if _, err = tx.ExecContext(ctx, `UPDATE messages SET session = ?, enqueued = ?, expires = NULL WHERE queue = ? AND seq = ?`,
		null(m.SessionID), time.Now().UnixNano(), number, s.seq); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE messages SET state = CASE WHEN session IS NULL THEN 0 ELSE 4 END, due = NULL, token = NULL
		WHERE queue = ? AND seq = ? AND state IN (1, 2, 3)`, number, s.seq)
	return err
}

// add stores a message behind all others.
func add(ctx context.Context, tx *sql.Tx, number int64, m *driver.Message) error {
	var seq int64
	if err := tx.QueryRowContext(ctx, `UPDATE counts SET n = n + 1 WHERE queue = 0 RETURNING n`).Scan(&seq); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO contents (message_id, correlation_id, content_type, attributes, trace,
		sealed, not_before, ttl, dedup_id, body, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, append(values(m), seq)...)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO messages (queue, seq, state, deliveries, max_deliveries, enqueued, content, session)
		VALUES (?, ?, 0, 0, 0, ?, ?, ?)`, number, seq, time.Now().UnixNano(), seq, null(m.SessionID))
	return err
}

func values(m *driver.Message) []any {
	body := m.Body
	if body == nil {
		body = []byte{}
	}
	var notBefore, ttl any
	if !m.NotBefore.IsZero() {
		notBefore = m.NotBefore.UnixNano()
	}
	if m.TTL != 0 {
		ttl = int64(m.TTL)
	}
	return []any{
		m.ID, null(m.CorrelationID), null(m.ContentType), encode(m.Attributes), encode(m.Trace),
		m.Sealed, notBefore, ttl, null(m.DedupID), body,
	}
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// encode returns attributes as they are stored: NULL if there are none.
func encode(m map[string]string) any {
	if len(m) == 0 {
		return nil
	}
	return attributes.Encode(m)
}
