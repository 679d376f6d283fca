// Package postgresattack is an operator of the database of a postgresqueue: it reads
// and changes what is stored by plain SQL on the tables, past the functions of the
// schema, as one could with psql and the rights of the schema's owner.
//
// It is for demonstrations and tests of what such an operator achieves, and shares no
// code with the package that it attacks, so that an error there cannot hide an attack.
// Do not point it at a database that matters.
package postgresattack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/internal/attributes"
)

// Attacker is a connection of its own to the database. It has the methods that
// drivertest.Attacker asks for, and is safe for concurrent use.
type Attacker struct {
	pool   *pgxpool.Pool
	schema string
}

// Open connects to the database at url. The schema is a plain identifier.
func Open(ctx context.Context, url, schema string) (*Attacker, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the URL of the database does not parse")
	}
	c.MaxConns = 1
	schema = pgx.Identifier{schema}.Sanitize()
	c.ConnConfig.RuntimeParams["search_path"] = schema
	pool, err := pgxpool.NewWithConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	return &Attacker{pool, schema}, nil
}

// Close ends the connection.
func (a *Attacker) Close() error { a.pool.Close(); return nil }

// Exec runs any statement, with the schema in the search path, and returns how many rows
// it changed.
func (a *Attacker) Exec(ctx context.Context, statement string, args ...any) (int64, error) {
	r, err := a.pool.Exec(ctx, statement, args...)
	return r.RowsAffected(), err
}

// stored is a message with the place where it lies.
type stored struct {
	driver.Message
	seq, content int64
	dead         driver.DeadLetter
}

// querier is a pool or a transaction.
type querier interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, query string, args ...any) pgx.Row
}

// read returns a queue's messages, or with sign -1 its dead letters, in the order of
// storage, and the queue's number.
func read(ctx context.Context, db querier, queue string, sign int64) (all []stored, number int64, err error) {
	if err := db.QueryRow(ctx, `SELECT id FROM queue WHERE name = $1`, queue).Scan(&number); err != nil {
		return nil, 0, fmt.Errorf("queue %q: %w", queue, err)
	}
	rows, err := db.Query(ctx, `SELECT m.seq, m.content, coalesce(m.session, ''), coalesce(m.reason, ''), coalesce(m.description, ''),
		m.died, c.message_id, c.correlation, c.type, c.attributes, c.trace, c.sealed, c.not_before, c.ttl, c.dedup, c.body
		FROM message m JOIN content c ON c.id = m.content WHERE m.queue = $1 ORDER BY m.seq`, sign*number)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var s stored
		var died, notBefore *time.Time
		var named, trace []byte // as stored
		var ttl int64
		if err := rows.Scan(&s.seq, &s.content, &s.SessionID, &s.dead.Reason, &s.dead.Description, &died, &s.ID, &s.CorrelationID,
			&s.ContentType, &named, &trace, &s.Sealed, &notBefore, &ttl, &s.DedupID, &s.Body); err != nil {
			return nil, 0, err
		}
		s.TTL = time.Duration(ttl)
		if notBefore != nil {
			s.NotBefore = *notBefore
		}
		if died != nil {
			s.dead.At = *died
		}
		s.dead.Queue = queue
		if s.Attributes, err = attributes.Decode(named); err != nil {
			return nil, 0, err
		}
		if s.Trace, err = attributes.Decode(trace); err != nil {
			return nil, 0, err
		}
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
	all, _, err := read(ctx, a.pool, queue, 1)
	return messages(all), err
}

// DeadLetters returns the dead letters of a queue, and why each is one.
func (a *Attacker) DeadLetters(ctx context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	all, _, err := read(ctx, a.pool, queue, -1)
	why := make([]driver.DeadLetter, len(all))
	for i := range all {
		why[i] = all[i].dead
	}
	return messages(all), why, err
}

// Rewrite replaces the waiting messages of a queue by what f makes of them, in that
// order: it edits rows where they lie, adds rows, and removes rows.
func (a *Attacker) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	return pgx.BeginFunc(ctx, a.pool, func(tx pgx.Tx) error {
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
			if _, err := tx.Exec(ctx, `DELETE FROM message WHERE queue = $1 AND seq = $2`, number, all[i].seq); err != nil {
				return err
			}
		}
		return settleSessions(ctx, tx, number)
	})
}

// settleSessions makes the rows of sessions and the counts agree with the messages.
func settleSessions(ctx context.Context, tx pgx.Tx, number int64) error {
	for _, statement := range []string{
		`DELETE FROM session WHERE queue = $1 AND token IS NULL`,
		`UPDATE message SET state = 4, turn = NULL WHERE queue = $1 AND session IS NOT NULL AND state = 0`,
		`UPDATE message SET state = 0, turn = nextval('turn') WHERE queue = $1 AND session IS NOT NULL AND state = 4
			AND seq IN (SELECT min(seq) FROM message WHERE queue = $1 AND state = 4 GROUP BY session)`,
		`INSERT INTO session (queue, id, touched) SELECT queue, session, now() FROM message
			WHERE queue = $1 AND session IS NOT NULL GROUP BY queue, session`,
		`DELETE FROM tally WHERE queue = $1`,
		`INSERT INTO tally SELECT queue, count(*) FILTER (WHERE state IN (0, 4)), count(*) FILTER (WHERE state IN (1, 2)),
			count(*) FILTER (WHERE state = 3) FROM message WHERE queue = $1 GROUP BY queue`,
	} {
		if _, err := tx.Exec(ctx, statement, number); err != nil {
			return err
		}
	}
	return nil
}

// edit makes a stored message what is wanted, and due.
func edit(ctx context.Context, tx pgx.Tx, number int64, s *stored, m *driver.Message) error {
	_, err := tx.Exec(ctx, `UPDATE content SET message_id = $1, correlation = $2, type = $3, attributes = $4, trace = $5,
		sealed = $6, not_before = $7, ttl = $8, dedup = $9, body = $10 WHERE id = $11`, append(values(m), s.content)...)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE message SET session = nullif($1, ''), enqueued = clock_timestamp(), expires = 'infinity', due = 'infinity',
		token = NULL, state = 0, size = $2 WHERE queue = $3 AND seq = $4`, m.SessionID, len(m.Body), number, s.seq)
	return err
}

// add stores a message behind all others.
func add(ctx context.Context, tx pgx.Tx, number int64, m *driver.Message) error {
	var seq int64
	if err := tx.QueryRow(ctx, `SELECT nextval('place')`).Scan(&seq); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO content (message_id, correlation, type, attributes, trace, sealed, not_before, ttl, dedup, body, id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, append(values(m), seq)...)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO message (queue, seq, content, state, due, expires, enqueued, deliveries, max_deliveries, size, session)
		VALUES ($1, $2, $2, 0, 'infinity', 'infinity', clock_timestamp(), 0, 0, $3, nullif($4, ''))`, number, seq, len(m.Body), m.SessionID)
	return err
}

func values(m *driver.Message) []any {
	var notBefore *time.Time
	if !m.NotBefore.IsZero() {
		notBefore = &m.NotBefore
	}
	return []any{
		m.ID, m.CorrelationID, m.ContentType, attributes.Encode(m.Attributes), attributes.Encode(m.Trace),
		m.Sealed, notBefore, int64(m.TTL), m.DedupID, append([]byte{}, m.Body...),
	}
}
