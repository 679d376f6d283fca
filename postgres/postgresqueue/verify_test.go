package postgresqueue_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// in puts the name of a schema into SQL, for {s}.
func in(schema, statements string) string { return strings.ReplaceAll(statements, "{s}", schema) }

// testAlterations alters a schema in each way that could make its functions do something
// else, or with other rights.
func testAlterations(t *testing.T, rawURL, schema string) {
	t.Helper()
	sql(t, in(schema, `CREATE ROLE {s}_mallory; CREATE SCHEMA {s}_side; CREATE DOMAIN {s}_side.name AS text CHECK (length(VALUE) < 100)`))
	for _, alteration := range []struct{ do, undo string }{
		{`CREATE FUNCTION {s}.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `DROP FUNCTION {s}.mine()`},
		{`CREATE FUNCTION {s}.schema_version(text) RETURNS int LANGUAGE sql AS 'SELECT 1'`, `DROP FUNCTION {s}.schema_version(text)`},
		{`CREATE RULE keep AS ON DELETE TO {s}.content DO INSTEAD NOTHING`, `DROP RULE keep ON {s}.content`},
		{`ALTER FUNCTION {s}.claim SECURITY INVOKER`, `ALTER FUNCTION {s}.claim SECURITY DEFINER`},
		{`ALTER FUNCTION {s}.schema_version SECURITY INVOKER`, `ALTER FUNCTION {s}.schema_version SECURITY DEFINER`},
		{`ALTER FUNCTION {s}.send SET search_path = {s}_side, pg_catalog, {s}`, `ALTER FUNCTION {s}.send SET search_path = pg_catalog, {s}, pg_temp`},
		{`ALTER FUNCTION {s}.count_state SET search_path = {s}_side`, `ALTER FUNCTION {s}.count_state RESET ALL`},
		{`ALTER FUNCTION {s}.maintain OWNER TO {s}_mallory`, `ALTER FUNCTION {s}.maintain OWNER TO postgres`},
		{`ALTER TABLE {s}.queue OWNER TO {s}_mallory`, `ALTER TABLE {s}.queue OWNER TO postgres`},
		{`ALTER TABLE {s}.queue ENABLE ROW LEVEL SECURITY`, `ALTER TABLE {s}.queue DISABLE ROW LEVEL SECURITY`},
		{`ALTER TABLE {s}.meta RENAME TO meta2; CREATE VIEW {s}.meta AS SELECT 1 AS version`, `DROP VIEW {s}.meta; ALTER TABLE {s}.meta2 RENAME TO meta`},
		{`CREATE OPERATOR {s}.# (LEFTARG = interval, RIGHTARG = float8, FUNCTION = pg_catalog.interval_mul)`, `DROP OPERATOR {s}.# (interval, float8)`},
		{`CREATE DOMAIN {s}.name AS text`, `DROP DOMAIN {s}.name`},
		{`GRANT CREATE ON SCHEMA {s} TO {s}_mallory`, `REVOKE CREATE ON SCHEMA {s} FROM {s}_mallory`},
		{`GRANT CREATE ON SCHEMA {s} TO PUBLIC`, `REVOKE CREATE ON SCHEMA {s} FROM PUBLIC`},
		{`ALTER FUNCTION {s}.list_queues RENAME TO lists`, `ALTER FUNCTION {s}.lists RENAME TO list_queues`},
		// These stay. A check of a domain runs with the rights of the caller.
		{`DROP FUNCTION {s}.session_state; CREATE FUNCTION {s}.session_state(q bigint, s {s}_side.name, tok bytea) RETURNS bytea
			LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`, ``},
		{`CREATE OR REPLACE FUNCTION {s}.span(us bigint) RETURNS interval LANGUAGE sql IMMUTABLE AS $$ SELECT interval '1 day' $$`, ``},
	} {
		sql(t, in(schema, alteration.do))
		refused(t, alteration.do, rawURL, nil, postgresqueue.ErrAltered, "changed by other hands")
		if alteration.undo != "" {
			sql(t, in(schema, alteration.undo))
			_ = open(t, rawURL, nil)
		}
	}
}

// newMallory makes a role that may create schemas in a database of its own, and returns
// the URLs of the role and of the superuser there.
func newMallory(t *testing.T) (schema, mallory, superuser string) {
	t.Helper()
	_, schema = newSchema(t, "")
	name := schema + "_owner"
	sql(t, `CREATE ROLE `+name+` LOGIN`, `CREATE DATABASE `+name+` OWNER `+name)
	server := postgres.Shared(t)
	return schema, server.URL(name, name), server.URL("postgres", name)
}

func runSQL(t *testing.T, rawURL, statements string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), rawURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if _, err := c.PgConn().Exec(t.Context(), statements).ReadAll(); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

func oneValue[T any](t *testing.T, rawURL, query string) (v T) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), rawURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if err := c.QueryRow(t.Context(), query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// TestForgedSchema: a superuser who opens the schema of another role does not run what
// its owner wrote, and neither does a role with a table of its own.
func TestForgedSchema(t *testing.T) {
	t.Parallel()
	schema, mallory, superuser := newMallory(t)
	query := "?schema=" + schema
	b, err := postgresqueue.Open(t.Context(), mallory+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	runSQL(t, mallory, in(schema, `
		GRANT USAGE ON SCHEMA {s} TO PUBLIC;
		CREATE SCHEMA {s}_side;
		GRANT USAGE ON SCHEMA {s}_side TO PUBLIC;
		CREATE TABLE {s}_side.caught (who text);
		GRANT ALL ON {s}_side.caught TO PUBLIC;
		CREATE FUNCTION {s}_side.seize() RETURNS integer LANGUAGE plpgsql AS $$
			BEGIN
				INSERT INTO {s}_side.caught VALUES (current_user);
				IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
					ALTER ROLE {s}_owner SUPERUSER;
				END IF;
				RETURN 1;
			END $$;
		DROP TABLE {s}.meta;
		CREATE VIEW {s}.meta AS SELECT {s}_side.seize() AS version;
		GRANT SELECT ON {s}.meta TO PUBLIC;
		ALTER FUNCTION {s}.schema_version SECURITY INVOKER;`))
	sql(t, in(schema, `CREATE ROLE {s}_victim LOGIN`))
	victim := strings.Replace(superuser, "postgres@", schema+"_victim@", 1)
	refused(t, "a superuser opens a forged schema", superuser+query, nil, driver.ErrPermission, "connect as the schema's owner")
	refused(t, "another role opens a forged schema", victim+query, nil, postgresqueue.ErrAltered, "")
	if oneValue[bool](t, superuser, in(schema, `SELECT rolsuper FROM pg_roles WHERE rolname = '{s}_owner'`)) {
		t.Error("the owner of a forged schema is a superuser now")
	}
	if n := oneValue[int](t, superuser, in(schema, `SELECT count(*) FROM {s}_side.caught`)); n != 0 {
		t.Errorf("the forged schema ran %d times with the rights of other roles", n)
	}
}

// TestHijackedSchema: nothing is made in an empty schema that another role owns. It could
// replace what the functions call.
func TestHijackedSchema(t *testing.T) {
	t.Parallel()
	schema, mallory, superuser := newMallory(t)
	query := "?schema=" + schema
	runSQL(t, mallory, in(schema, `CREATE SCHEMA {s}; GRANT ALL ON SCHEMA {s} TO PUBLIC`))
	sql(t, in(schema, `CREATE ROLE {s}_victim LOGIN`))
	refused(t, "a superuser opens an empty schema of another role", superuser+query, nil, driver.ErrPermission, "connect as the schema's owner")
	refused(t, "another role opens an empty schema", strings.Replace(superuser, "postgres@", schema+"_victim@", 1)+query, nil,
		driver.ErrPermission, "belongs to another role")
	made := `SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = '{s}'`
	if n := oneValue[int](t, superuser, in(schema, made)); n != 0 {
		t.Errorf("%d functions were made", n)
	}
	// Its owner makes it, and others use it then.
	runSQL(t, mallory, in(schema, `REVOKE ALL ON SCHEMA {s} FROM PUBLIC`))
	b, err := postgresqueue.Open(t.Context(), mallory+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Declare(t.Context(), "q", nil), b.Close(t.Context())); err != nil {
		t.Error(err)
	}
}
