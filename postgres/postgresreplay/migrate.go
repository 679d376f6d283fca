package postgresreplay

import (
	"context"
	"crypto/rand"
	_ "embed" // the schema
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/internal/database"
)

//go:embed schema.sql
var schemaSQL string

// migrations lead from each version of the schema to the next. Released ones are
// never changed.
var migrations = []string{schemaSQL}

// minServer is the oldest server that this package is tested for, in the meaning of
// server_version_num.
const minServer = 140000

// page is the page of docs/ with the roles.
const page = "docs/replay/postgres.md"

// condition is what a schema was found to be.
type condition int

const (
	missing condition = iota // there is none
	empty                    // it has nothing: one that its future owner made
	foreign                  // it has something, and no version
	ours
)

const lookAtSchema = `SELECT
	(SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = $1),
	(SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1),
	(SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname IN ('meta', 'tally', 'completion') AND c.relkind = 'r'),
	pg_catalog.current_setting('server_version_num')::int`

// examine says what the schema is, and its version: 0 if it has to be made.
func (e *engine) examine(ctx context.Context, tx pgx.Tx) (found condition, version int, err error) {
	var there, things, known, server int
	if err := tx.QueryRow(ctx, lookAtSchema, e.options.Schema).Scan(&there, &things, &known, &server); err != nil {
		return 0, 0, err
	}
	if err := database.CheckOwner(ctx, tx, e.options.Schema, page); err != nil {
		return 0, 0, err
	}
	switch {
	case server < minServer:
		return 0, 0, driver.Errorf(driver.Other, "the server is older than PostgreSQL 14: update it")
	case there == 0:
		return missing, 0, nil
	case things == 0:
		return empty, 0, nil
	case known != 3:
		return foreign, 0, ErrForeign
	}
	err = tx.QueryRow(ctx, e.sql(`SELECT version FROM {schema}.meta`)).Scan(&version)
	if err == nil && version > len(migrations) {
		err = ErrNewer
	}
	return ours, version, err
}

// migrate makes the schema what this package needs, or says why it cannot. Several
// processes may do it at the same time.
func (e *engine) migrate(ctx context.Context) error {
	return e.connected(ctx, func(ctx context.Context, c *conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			found, version, err := e.examine(ctx, tx)
			if err != nil {
				return err
			}
			if version < len(migrations) {
				switch {
				case e.options.MustExist && found == ours:
					return ErrOlder
				case e.options.MustExist:
					return driver.Errorf(driver.NotFound, "the database has no such schema: let a role that may create it open the store once")
				}
				if err := e.upgrade(ctx, tx); err != nil {
					return explain(err, found)
				}
			}
			if err := e.verify(ctx, tx); err != nil {
				return err
			}
			e.database, err = database.Identify(ctx, tx)
			return err
		})
	})
}

// explain says what to do if the role must not create the schema.
func explain(err error, found condition) error {
	var p *pgconn.PgError
	if !errors.As(err, &p) || p.Code != "42501" {
		return err
	}
	what := "create the schema"
	if found == ours {
		what = "migrate the schema"
	}
	return driver.Errorf(driver.Permission, "the role may not %s: let its owner open the store once (%s, Roles)", what, page)
}

// upgrade runs the migrations that are missing. The lock is the transaction's, not
// the connection's, so it ends with the transaction behind any pooler. Two schemas
// whose names have one hash wait for each other and nothing else.
func (e *engine) upgrade(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext($1))`, "postgresreplay "+e.options.Schema); err != nil {
		return err
	}
	found, version, err := e.examine(ctx, tx) // again: another may have done it
	if err != nil {
		return err
	}
	if found == missing {
		if _, err := tx.Exec(ctx, e.sql(`CREATE SCHEMA {schema}`)); err != nil {
			return err
		}
	}
	if err := database.CheckMaker(ctx, tx, e.options.Schema, page); err != nil {
		return err
	}
	fresh := version == 0
	for ; version < len(migrations); version++ {
		// Several statements in one text need the simple protocol.
		if _, err := tx.Conn().PgConn().Exec(ctx, e.sql(migrations[version])).ReadAll(); err != nil {
			return err
		}
	}
	if !fresh {
		_, err = tx.Exec(ctx, e.sql(`UPDATE {schema}.meta SET version = $1`), version)
		return err
	}
	uid := make([]byte, 16)
	_, _ = rand.Read(uid) // never fails: it ends the process instead
	var birth int64
	if err := tx.QueryRow(ctx, `SELECT `+serverClock).Scan(&birth); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, e.sql(`INSERT INTO {schema}.meta VALUES (1, $1, $2, $3, '')`), version, uid, e.clock(birth))
	return err
}

// describeSchema lists what a schema has that decides how statements work.
const describeSchema = `SELECT 'column ' || c.relname || '.' || a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
	|| CASE WHEN a.attnotnull THEN ' not null' ELSE '' END || CASE WHEN a.atthasdef THEN ' default' ELSE '' END
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
	WHERE n.nspname = $1 AND c.relkind NOT IN ('i', 'I', 'S') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT 'unique ' || c.relname || ' ' || (SELECT string_agg(a.attname, ' ' ORDER BY k.n)
		FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, n) JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum)
	FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
UNION ALL SELECT 'trigger ' || t.tgname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1
UNION ALL SELECT 'rule ' || rulename FROM pg_catalog.pg_rules WHERE schemaname = $1
UNION ALL SELECT 'policy ' || policyname FROM pg_catalog.pg_policies WHERE schemaname = $1
UNION ALL SELECT 'kind of ' || c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname = $1 AND (c.relkind NOT IN ('r', 'i', 'S') OR c.relpersistence <> 'p' OR c.relrowsecurity)`

// description is what describeSchema lists of the newest version.
var description = []string{
	"column completion.entered bigint not null", "column completion.grp bigint not null", "column completion.sender bytea not null",
	"column completion.sequence bigint not null", "column completion.stream bytea not null", "column completion.token bytea not null",
	"column loss.birth bigint not null", "column loss.id bigint not null", "column loss.uid bytea not null",
	"column meta.birth bigint not null", "column meta.id integer not null", "column meta.losses bytea not null",
	"column meta.uid bytea not null", "column meta.version integer not null",
	"column page.body bytea not null", "column page.due bigint not null", "column page.grp bigint not null", "column page.place bigint not null",
	"column page.stream bigint not null", "column receivers.id bigint not null", "column receivers.name bytea not null",
	"column run.file bigint not null", "column run.grp bigint not null", "column run.id bigint not null", "column run.started bigint not null", "column run.version bigint not null",
	"column sender.grp bigint not null", "column sender.id bigint not null", "column sender.name bytea not null",
	"column stream.grp bigint not null", "column stream.head bytea not null", "column stream.id bigint not null", "column stream.old bigint not null",
	"column stream.sender bigint not null", "column stream.stream bytea not null", "column tally.grp bigint not null",
	"column tally.intervals bigint not null", "column tally.last_id bigint not null", "column tally.recents bigint not null",
	"column tally.records bigint not null", "column tally.sender bigint not null", "column tally.state bytea not null",
	"column tally.streams bigint not null", "column tally.version bigint not null",
	"unique completion grp sender stream sequence", "unique loss id", "unique meta id", "unique page grp stream place", "unique receivers name", "unique run grp id",
	"unique sender grp id", "unique sender name", "unique stream grp id", "unique stream sender stream", "unique tally grp sender version",
}

// verify compares the schema with what the migrations made.
func (e *engine) verify(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, describeSchema, e.options.Schema)
	if err != nil {
		return err
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	slices.Sort(got)
	for _, thing := range got {
		if _, ok := slices.BinarySearch(description, thing); !ok {
			return fmt.Errorf("%w (%s)", ErrAltered, thing)
		}
	}
	for _, thing := range description {
		if _, ok := slices.BinarySearch(got, thing); !ok {
			return fmt.Errorf("%w (missing: %s)", ErrAltered, thing)
		}
	}
	return nil
}

// sql puts the name of the schema into a statement.
func (e *engine) sql(statement string) string {
	return strings.ReplaceAll(statement, "{schema}", e.options.Schema)
}
