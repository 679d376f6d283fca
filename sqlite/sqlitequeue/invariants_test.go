package sqlitequeue_test

import (
	"database/sql"
	"strings"
	"testing"

	_ "modernc.org/sqlite"
)

// invariants are what holds of a file at any time: queries that find what breaks
// it.
var invariants = map[string]string{
	"a count is wrong": `SELECT * FROM
		(SELECT queue, state, n FROM counts WHERE n <> 0 AND queue <> 0 EXCEPT SELECT queue, state, count(*) FROM messages GROUP BY queue, state)
		UNION ALL SELECT * FROM
		(SELECT queue, state, count(*) FROM messages GROUP BY queue, state EXCEPT SELECT queue, state, n FROM counts)`,
	"contents without a message":            `SELECT id FROM contents EXCEPT SELECT content FROM messages`,
	"a message without contents":            `SELECT content FROM messages EXCEPT SELECT id FROM contents`,
	"a message is queued without a session": `SELECT seq FROM messages WHERE state = 4 AND (session IS NULL OR queue < 0)`,
	"two of a free session at once": `SELECT queue, session FROM messages AS m WHERE queue > 0 AND session IS NOT NULL AND state IN (0, 3)
		AND NOT EXISTS (SELECT 1 FROM sessions AS s WHERE s.queue = m.queue AND s.session = m.session AND s.token IS NOT NULL)
		GROUP BY queue, session HAVING count(*) > 1`,
	"a session is stuck": `SELECT queue, session FROM messages AS m WHERE state = 4
		AND NOT EXISTS (SELECT 1 FROM messages AS a WHERE a.queue = m.queue AND a.session = m.session AND a.state IN (0, 2, 3))
		AND NOT EXISTS (SELECT 1 FROM sessions AS s WHERE s.queue = m.queue AND s.session = m.session AND s.token IS NOT NULL)`,
	"a ready one is not the first": `SELECT m.seq FROM messages AS m JOIN messages AS e ON e.queue = m.queue AND e.session = m.session
		WHERE m.queue > 0 AND m.state = 0 AND e.state IN (2, 4) AND e.seq < m.seq`,
	"turns":               `SELECT seq FROM messages WHERE (turn IS NOT NULL) <> (state = 0 AND session IS NOT NULL AND queue > 0)`,
	"a lock has no token": `SELECT seq FROM messages WHERE (token IS NOT NULL) <> (state = 3)`,
	"a time is missing":   `SELECT seq FROM messages WHERE (due IS NULL) AND state IN (1, 2) OR due IS NOT NULL AND state IN (0, 4)`,
	"an empty session":    `SELECT session FROM sessions WHERE token IS NULL AND state IS NULL`,
}

// holds checks the invariants.
func holds(tb testing.TB, path string) {
	tb.Helper()
	for what, query := range invariants {
		if found := rows(tb, path, query); len(found) > 0 {
			tb.Errorf("%s: %s", what, found)
		}
	}
}

// rows returns the rows of a query as text.
func rows(tb testing.TB, path, query string) (all []string) {
	tb.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	r, err := db.QueryContext(tb.Context(), query)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	columns, err := r.Columns()
	if err != nil {
		tb.Fatal(err)
	}
	for r.Next() {
		values, pointers := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			pointers[i] = &values[i]
		}
		if err := r.Scan(pointers...); err != nil {
			tb.Fatal(err)
		}
		var row []string
		for _, v := range values {
			row = append(row, v.String)
		}
		all = append(all, strings.Join(row, "|"))
	}
	if err := r.Err(); err != nil {
		tb.Fatal(err)
	}
	return all
}
