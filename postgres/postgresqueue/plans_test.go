package postgresqueue_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/testbed/postgres"
)

// filled is how many messages a large queue has. Half of them are of sessions, two each.
const filled = 100_000

// fillBySQL makes queue 1 large: place p, without a session up to the half. Queue 2 gets
// four messages behind, the last two of the session s.
func fillBySQL(t *testing.T, schema string) {
	t.Helper()
	const half = filled / 2
	sql(t, fmt.Sprintf(`
		INSERT INTO %[1]s.content SELECT p, 'id-' || p, '', '', '', '', false, NULL, 0, 'id-' || p, 'body' FROM generate_series(1, %[2]d) p;
		INSERT INTO %[1]s.message (queue, seq, content, due, expires, enqueued, deliveries, max_deliveries, size, state, session, turn)
			SELECT 1, p, p, now() + interval '1 day', now() + interval '1 day', now(), 0, 0, 4,
				CASE WHEN p <= %[3]d + %[3]d / 2 THEN 0 ELSE 4 END, CASE WHEN p > %[3]d THEN 's' || p %% (%[3]d / 2) END,
				CASE WHEN p > %[3]d AND p <= %[3]d + %[3]d / 2 THEN p END
			FROM generate_series(1, %[2]d) p;
		INSERT INTO %[1]s.session (queue, id, touched) SELECT 1, 's' || p, now() FROM generate_series(0, %[3]d / 2 - 1) p;
		INSERT INTO %[1]s.dedup SELECT 1, 'id-' || p, p, now() + interval '1 day' FROM generate_series(1, %[2]d) p;
		INSERT INTO %[1]s.tally VALUES (1, %[2]d, 0, 0);
		SELECT setval('%[1]s.place', %[2]d), setval('%[1]s.turn', %[2]d);
		SELECT %[1]s.send(2, array_agg('small-' || p), array_agg(CASE WHEN p > 2 THEN 's' ELSE '' END), array_agg(''::text), array_agg(''::text),
			array_agg(''::bytea), array_agg(''::bytea), array_agg(false), array_agg(NULL::timestamptz), array_agg(0::bigint), array_agg('small-' || p),
			array_agg('body'::bytea)) FROM generate_series(1, 4) p`, schema, filled, half))
}

// TestPlans: beside 100,000 messages no call reads a table from end to end, and none reads
// more rows than a few for each message that it is about: with the statistics of empty
// tables, as after a burst, and with those of full ones.
func TestPlans(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "&dedup_window=1h")
	b := open(t, rawURL, nil)
	sql(t, `SELECT setval(pg_get_serial_sequence('`+schema+`.queue', 'id'), 1, false)`) // the plans name queue 1
	for _, name := range []string{"large", "small"} {
		if err := b.Declare(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	analyze := in(schema, `ANALYZE {s}.message, {s}.content, {s}.session, {s}.dedup`)
	sql(t, analyze, in(schema, `ALTER TABLE {s}.message SET (autovacuum_enabled = false); ALTER TABLE {s}.session SET (autovacuum_enabled = false)`))
	fillBySQL(t, schema)
	c, err := pgx.Connect(t.Context(), postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	t.Run("statistics of empty tables", func(t *testing.T) { testPlans(t, c, schema) })
	sql(t, analyze, `VACUUM `+schema+`.message`)
	t.Run("statistics of full tables", func(t *testing.T) { testPlans(t, c, schema) })
}

// planned is a call of ten messages or fewer, and what has to be before it.
var planned = []struct{ name, before, call string }{
	{"send", ``, `send(1, ARRAY['a','b'], ARRAY['','s7'], ARRAY['',''], ARRAY['',''], ARRAY['','']::bytea[], ARRAY['','']::bytea[], ARRAY[false,false],
		ARRAY[NULL,NULL]::timestamptz[], ARRAY[0,0]::bigint[], ARRAY['a','b'], ARRAY['x','y']::bytea[])`},
	{"claim", ``, `claim(1, 'token', 30000000, 10, 10, 1000000)`},
	{"settle", `SELECT {s}.claim(1, 'token', 30000000, 10, 10, 1000000)`,
		`settle(1, '', ARRAY[1,2,3]::bigint[], ARRAY['token','token','token']::bytea[], ARRAY[1,1,2]::smallint[], ARRAY[0,0,1000000]::bigint[],
			ARRAY['','',''], ARRAY['','',''], ARRAY[]::text[])`},
	{"dead-letter", `SELECT {s}.claim(1, 'token', 30000000, 10, 10, 1000000)`,
		`settle(1, '', ARRAY[1]::bigint[], ARRAY['token']::bytea[], ARRAY[3]::smallint[], ARRAY[0]::bigint[], ARRAY['why'], ARRAY['words'], ARRAY[]::text[])`},
	{"renew", `SELECT {s}.claim(1, 'token', 30000000, 10, 10, 1000000)`,
		`renew(1, ARRAY[1,2]::bigint[], ARRAY['token','token']::bytea[], 30000000)`},
	{"locks that are over", `SELECT {s}.claim(1, 'token', 1, 10, 10, 1000000) FROM (SELECT 1) x; SELECT pg_sleep(0.01)`, `claim(1, 'other', 30000000, 10, 10, 1000000)`},
	{"accept the next session", ``, `accept_session(1, '', 'token', 30000000, 10)`},
	{"accept a session", ``, `accept_session(1, 's9', 'token', 30000000, 10)`},
	{"claim in a session", `SELECT {s}.accept_session(1, 's9', 'token', 30000000, 10)`, `claim_session(1, 's9', 'token', 10, 10, 1000000)`},
	{"close a session", `SELECT {s}.accept_session(1, 's9', 'token', 30000000, 10); SELECT {s}.claim_session(1, 's9', 'token', 10, 10, 1000000)`,
		`close_session(1, 's9', 'token')`},
	{"next_due", ``, `next_due(1)`},
	{"peek", ``, `peek(1, 50000, 10, 1000000)`},
	{"statistics", ``, `queue_stats(1)`},
	{"claim in the small queue", ``, `claim(2, 'token', 30000000, 10, 10, 1000000)`},
	{"accept the next session of the small queue", ``, `accept_session(2, '', 'token', 30000000, 10)`},
	{"claim in its session", `SELECT {s}.accept_session(2, 's', 'token', 30000000, 10)`, `claim_session(2, 's', 'token', 10, 10, 1000000)`},
	{"close its session", `SELECT {s}.accept_session(2, 's', 'token', 30000000, 10); SELECT {s}.claim_session(2, 's', 'token', 10, 10, 1000000)`,
		`close_session(2, 's', 'token')`},
	{"peek into the small queue", ``, `peek(2, 0, 10, 1000000)`},
	{"statistics of the small queue", ``, `queue_stats(2)`},
	{"claim its dead letters", ``, `claim(-2, 'token', 30000000, 10, 10, 1000000)`},
	{"peek into its dead letters", ``, `peek(-2, 0, 10, 1000000)`},
}

func testPlans(t *testing.T, c *pgx.Conn, schema string) {
	const reads = `SELECT coalesce(sum(seq_scan), 0)::bigint, coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint,
		coalesce(string_agg(relname, ', ') FILTER (WHERE seq_scan > 0), '') FROM pg_stat_xact_user_tables
		WHERE schemaname = $1 AND relname IN ('message', 'content', 'session', 'dedup')`
	ctx := t.Context()
	for _, p := range planned {
		tx, err := c.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var scans, rows [2]int64
		var scanned string
		read := func(i int) {
			if err := tx.QueryRow(ctx, reads, schema).Scan(&scans[i], &rows[i], &scanned); err != nil {
				t.Fatal(err)
			}
		}
		run := func(statements string) {
			if _, err := c.PgConn().Exec(ctx, in(schema, statements)).ReadAll(); err != nil {
				t.Fatalf("%s: %v", p.name, err)
			}
		}
		if p.before != "" {
			run(p.before)
		}
		read(0)
		run(`SELECT * FROM {s}.` + p.call)
		read(1)
		if scans[1] > scans[0] {
			t.Errorf("%s reads a whole table: %s", p.name, scanned)
		}
		// Ten messages and their contents, each found some times and changed once or twice.
		if n := rows[1] - rows[0]; n > 60 {
			t.Errorf("%s reads %d rows", p.name, n)
		} else {
			t.Logf("%s reads %d rows", p.name, n)
		}
		if err := tx.Rollback(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
