package postgresqueue

import (
	"context"
	_ "embed" // the schema
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/internal/database"
)

// page is the page of docs/ with the roles.
const page = "docs/brokers/postgres.md"

//go:embed schema.sql
var schemaSQL string

// migrations lead from each version of the schema to the next. Released ones are
// never changed.
var migrations = []string{schemaSQL}

// settings are those of every function that a role calls. The plans are pinned:
// they do not follow statistics, which after a burst of messages are those of an
// empty table.
const settings = `SET search_path = pg_catalog, {schema}, pg_temp SET plan_cache_mode = force_generic_plan
	SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off`

// statements returns a migration for a schema.
func statements(migration, schema string) string {
	return strings.NewReplacer("{settings}", strings.ReplaceAll(settings, "{schema}", schema), "{schema}", schema).Replace(migration)
}

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
	(SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1)
	+ (SELECT count(*) FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1),
	(SELECT count(*) FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
		WHERE n.nspname = $1 AND p.proname = 'schema_version' AND p.pronargs = 0),
	pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_encoding')`

// minServer is the oldest server that these functions are tested for in the
// meaning of server_version_num.
const minServer = 140000

// examine says what the schema is.
func examine(ctx context.Context, tx pgx.Tx, schema string) (condition, error) {
	var there, things, versions, server int
	var encoding string
	if err := tx.QueryRow(ctx, lookAtSchema, schema).Scan(&there, &things, &versions, &server, &encoding); err != nil {
		return 0, err
	}
	switch {
	case server < minServer:
		return 0, driver.Errorf(driver.Other, "the server is older than PostgreSQL 14: update it")
	case encoding != "UTF8":
		return 0, driver.Errorf(driver.Other, "the database has the encoding %s: use a database with UTF8", encoding)
	case there == 0:
		return missing, nil
	case things == 0:
		return empty, nil
	case versions == 0:
		return foreign, nil
	}
	return ours, nil
}

// migrate makes the schema what this package needs, or says why it cannot. Several
// processes may do it at the same time.
func (b *Broker) migrate(ctx context.Context) error {
	schema := b.options.Schema
	return b.request(ctx, func(ctx context.Context, c *conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			found, err := examine(ctx, tx, schema)
			if err != nil {
				return err
			}
			if err := database.CheckOwner(ctx, tx, schema, page); err != nil {
				return err
			}
			version, err := versionOf(ctx, tx, schema, found)
			if err != nil {
				return err
			}
			if version < len(migrations) {
				if b.options.MustExist {
					return notReady(found)
				}
				if err := b.upgrade(ctx, tx); err != nil {
					return explain(err, found)
				}
			}
			return verify(ctx, tx, schema, functions(len(migrations)))
		})
	})
}

func notReady(found condition) error {
	if found == ours {
		return ErrOlder
	}
	return driver.Errorf(driver.NotFound, "the database has no such schema: let a role that may create it open the broker once")
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
	return driver.Errorf(driver.Permission, "the role may not %s: let its owner open the broker once (%s, Roles)", what, page)
}

// versionOf returns the version of a schema, 0 if it has to be made. It runs one function
// of the schema, and only if that is the one that the migrations made.
func versionOf(ctx context.Context, tx pgx.Tx, schema string, found condition) (int, error) {
	switch found {
	case missing, empty:
		return 0, nil
	case foreign:
		return 0, ErrForeign
	}
	// Every version has this function, and the same.
	if err := verifyOne(ctx, tx, schema, "schema_version"); err != nil {
		return 0, err
	}
	var version int
	if err := tx.QueryRow(ctx, `SELECT `+schema+`.schema_version()`).Scan(&version); err != nil {
		return 0, err
	}
	if version > len(migrations) {
		return 0, ErrNewer
	}
	// Before a migration runs any of them.
	return version, verify(ctx, tx, schema, functions(version))
}

// upgrade runs the migrations that are missing. The lock is the transaction's, not
// the connection's, so it ends with the transaction behind any pooler. Two schemas
// whose names have one hash wait for each other and nothing else.
func (b *Broker) upgrade(ctx context.Context, tx pgx.Tx) error {
	schema := b.options.Schema
	if _, err := tx.Exec(ctx, `SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext($1))`, "postgresqueue "+schema); err != nil {
		return err
	}
	found, err := examine(ctx, tx, schema) // again: another may have done it
	if err != nil {
		return err
	}
	if err := database.CheckOwner(ctx, tx, schema, page); err != nil {
		return err
	}
	version, err := versionOf(ctx, tx, schema, found)
	if err != nil {
		return err
	}
	if found != missing && version < len(migrations) {
		if err := database.CheckMaker(ctx, tx, schema, page); err != nil {
			return err
		}
	}
	if found == missing {
		if _, err := tx.Exec(ctx, `CREATE SCHEMA `+schema); err != nil {
			return err
		}
	}
	for ; version < len(migrations); version++ {
		// Several statements in one text need the simple protocol.
		if _, err := tx.Conn().PgConn().Exec(ctx, statements(migrations[version], schema)).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}
