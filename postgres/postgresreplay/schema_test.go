package postgresreplay_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/docpage"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// refused fails the test unless Open refuses a URL with that error and text, and tells
// no secret.
func refused(t *testing.T, what, rawURL string, o *postgresreplay.Options, want error, text string) {
	t.Helper()
	s, err := postgresreplay.Open(t.Context(), rawURL, o)
	if err == nil {
		_ = s.Close(t.Context())
	}
	if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%s: %v, want %v with %q", what, err, want, text)
	}
}

func TestURL(t *testing.T) {
	const base = "postgres://u:s3cret@127.0.0.1:1/db"
	for query, want := range map[string]string{
		"?schema=a-b":                         "1 to 40 lower-case",
		"?schema=pg_x":                        "pg_",
		"?timeout=s3cret":                     "parameter timeout must be a duration",
		"?max_conns=0":                        "max_conns must be a number",
		"?max_conns=99999":                    "at most 32767",
		"?pooled=yes":                         "pooled must be true or false",
		"?must_exist=":                        "must_exist must be given once",
		"?s3cret=1":                           "unknown parameter; known: application_name",
		"?timeout=1s&timeout=2s":              "given once",
		"?trust_database_operators=s3cret":    "must be true or false",
		"#s3cret":                             "write %23",
		"?sslmode=s3cret":                     "not that of a database",
		"?sslrootcert=/nowhere&sslmode=allow": "cannot be read",
	} {
		refused(t, query, base+query, nil, nil, want)
	}
	refused(t, "another scheme", "mysql://u:s3cret@h/db", nil, nil, "use postgres://")
	refused(t, "a server elsewhere without encryption", "postgres://u:s3cret@db.example.com/db", nil, nil, "sslmode=verify-full")
	refused(t, "no server", base, &postgresreplay.Options{Timeout: 5 * time.Second}, driver.ErrUnavailable, "")
	refused(t, "bounds", base, &postgresreplay.Options{Bounds: replay.Bounds{Recent: -1}}, nil, "bounds")
	refused(t, "time-out", base, &postgresreplay.Options{Timeout: -1}, nil, "Timeout")
}

// TestOpen: what is no store, is of another version or was changed is refused.
func TestOpen(t *testing.T) {
	server := postgres.Shared(t)
	admin := connect(t, server)
	refused(t, "no such database", server.URL("postgres", "nosuch"), nil, driver.ErrNotFound, "no such database")
	refused(t, "no such role", server.URL("nosuch", "postgres"), nil, driver.ErrPermission, "refused the login")
	admin.exec(`CREATE ROLE poor LOGIN`)
	refused(t, "a role that may not create", server.URL("poor", "postgres")+"?schema=poor", nil, driver.ErrPermission, "may not create the schema")
	rawURL, schema := newSchema(server)
	refused(t, "must_exist", rawURL+"&must_exist=true", nil, driver.ErrNotFound, "no such schema")
	admin.exec(`CREATE SCHEMA ` + schema)
	admin.exec(`CREATE TABLE ` + schema + `.meta (version int)`)
	refused(t, "a schema of other things", rawURL, nil, postgresreplay.ErrForeign, "another name")
	admin.exec(`DROP TABLE ` + schema + `.meta`)

	s := open(t, rawURL, nil) // a schema that its owner has made
	if s.Schema() != schema || s.TrustsDatabaseOperators() || !strings.HasPrefix(s.Database(), "postgres:") {
		t.Errorf("schema %q, database %q", s.Schema(), s.Database())
	}
	again := open(t, rawURL+"&must_exist=true&trust_database_operators=true", nil)
	if !again.TrustsDatabaseOperators() || again.Database() != s.Database() {
		t.Errorf("database %q, then %q", s.Database(), again.Database())
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context(), group, []replay.Request{request(0, time.Now())}); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Begin after Close: %v", err)
	}

	for change, back := range map[string]string{
		`CREATE FUNCTION %[1]s.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; CREATE TRIGGER planted BEFORE INSERT ON %[1]s.completion FOR EACH ROW EXECUTE FUNCTION %[1]s.f()`: `DROP FUNCTION %s.f CASCADE`,
		`CREATE RULE planted AS ON DELETE TO %s.page DO INSTEAD NOTHING`:                      `DROP RULE planted ON %s.page`,
		`ALTER TABLE %s.completion DROP CONSTRAINT completion_pkey`:                           `ALTER TABLE %s.completion ADD PRIMARY KEY (grp, sender, stream, sequence)`,
		`ALTER TABLE %s.page SET UNLOGGED`:                                                    `ALTER TABLE %s.page SET LOGGED`,
		`ALTER TABLE %s.page ALTER due SET DEFAULT 0`:                                         `ALTER TABLE %s.page ALTER due DROP DEFAULT`,
		`ALTER TABLE %s.tally ENABLE ROW LEVEL SECURITY`:                                      `ALTER TABLE %s.tally DISABLE ROW LEVEL SECURITY`,
		`CREATE VIEW %s.more AS SELECT 1 AS n`:                                                `DROP VIEW %s.more`,
		`ALTER TABLE %[1]s.page RENAME TO other; CREATE VIEW %[1]s.page AS TABLE %[1]s.other`: `DROP VIEW %[1]s.page; ALTER TABLE %[1]s.other RENAME TO page`,
	} {
		admin.exec2(fmt.Sprintf(change, schema))
		refused(t, change, rawURL, nil, postgresreplay.ErrAltered, "changed by other hands")
		admin.exec2(fmt.Sprintf(back, schema))
	}
	open(t, rawURL, nil)
	admin.exec(`UPDATE ` + schema + `.meta SET version = 2`)
	refused(t, "a newer version", rawURL, nil, postgresreplay.ErrNewer, "update this program")
	if err := again.Probe(t.Context(), group); !errors.Is(err, postgresreplay.ErrNewer) {
		t.Errorf("a store that was migrated while it was open: %v, want ErrNewer", err)
	}
	admin.exec(`UPDATE ` + schema + `.meta SET version = 0`)
	refused(t, "an older version", rawURL, &postgresreplay.Options{MustExist: true}, postgresreplay.ErrOlder, "as its owner")
}

// TestSchemaOfAnother: what a role owns, it can change while a store is open. So a
// superuser does not use it, whose rights the owner would have, and nothing is made in it.
func TestSchemaOfAnother(t *testing.T) {
	server := postgres.Shared(t)
	admin := connect(t, server)
	rawURL, schema := newSchema(server)
	admin.exec2(fmt.Sprintf(`CREATE ROLE %[1]s_owner LOGIN; CREATE ROLE %[1]s_other LOGIN; CREATE SCHEMA %[1]s AUTHORIZATION %[1]s_owner;
		GRANT ALL ON SCHEMA %[1]s TO %[1]s_other`, schema))
	as := func(role string) string { return strings.Replace(rawURL, "postgres@", schema+role+"@", 1) }
	refused(t, "a superuser, empty schema", rawURL, nil, driver.ErrPermission, "connect as the schema's owner")
	refused(t, "another role, empty schema", as("_other"), nil, driver.ErrPermission, "belongs to another role")
	open(t, as("_owner"), nil)
	refused(t, "a superuser, a store", rawURL, nil, driver.ErrPermission, "connect as the schema's owner")
	for _, right := range []string{"CREATEROLE", "REPLICATION", "BYPASSRLS", "IN ROLE pg_read_server_files", "IN ROLE pg_execute_server_program NOINHERIT"} {
		admin.exec2(fmt.Sprintf(`CREATE ROLE %[1]s_strong LOGIN %[2]s; GRANT ALL ON SCHEMA %[1]s TO %[1]s_strong; GRANT ALL ON ALL TABLES IN SCHEMA %[1]s TO %[1]s_strong`, schema, right))
		refused(t, "a role with "+right, as("_strong"), nil, driver.ErrPermission, "connect as the schema's owner")
		admin.exec2(fmt.Sprintf(`DROP OWNED BY %[1]s_strong; DROP ROLE %[1]s_strong`, schema))
	}
	admin.exec(fmt.Sprintf(`GRANT ALL ON ALL TABLES IN SCHEMA %[1]s TO %[1]s_other`, schema))
	open(t, as("_other"), nil)
}

// exec2 runs several statements.
func (s *session) exec2(statements string) {
	s.t.Helper()
	s.try(statements, func(c *pgx.Conn) error {
		_, err := c.PgConn().Exec(context.Background(), statements).ReadAll()
		return err
	})
}

// TestOpenTogether: processes that open a new store at the same time have one.
func TestOpenTogether(t *testing.T) {
	rawURL, _ := newSchema(postgres.Shared(t))
	ids := make([][16]byte, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			s, err := postgresreplay.Open(context.Background(), rawURL, nil)
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			c, err := s.Begin(context.Background(), group, []replay.Request{request(i, time.Now())})
			if err != nil || c[0].Err != nil {
				t.Errorf("Begin: %v, %v", c, err)
				return
			}
			ids[i] = c[0].Stamp.ID
			closeStore(t, s)
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("two stores: %x and %x", ids[0], id)
		}
	}
}

// TestClose: calls that are under way end, and Close waits for them.
func TestClose(t *testing.T) {
	rawURL, schema := newSchema(postgres.Shared(t))
	s := open(t, rawURL, nil)
	if err := s.Probe(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	admin := connect(t, postgres.Shared(t))
	admin.exec(`BEGIN`)
	admin.exec(`SELECT 1 FROM ` + schema + `.receivers FOR UPDATE`) // as a call of another process
	answer := make(chan error)
	go func() { answer <- s.Probe(t.Context(), group) }()
	watcher := connect(t, postgres.Shared(t))
	for watcher.number(`SELECT count(*) FROM pg_locks WHERE NOT granted`) == 0 {
		time.Sleep(time.Millisecond) // Real time: until the server has the call wait.
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Close with a context that has ended: %v", err)
	}
	admin.exec(`COMMIT`)
	if err := <-answer; err != nil {
		t.Errorf("a call that was under way: %v", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Probe(t.Context(), group); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Probe after Close: %v", err)
	}
}

// TestDurable: a call waits for the disk whatever the role has set, and says if the server
// does not.
func TestDurable(t *testing.T) {
	rawURL, schema := newSchema(postgres.Shared(t))
	admin := connect(t, postgres.Shared(t))
	admin.exec(`CREATE ROLE hasty SUPERUSER LOGIN`)
	admin.exec(`ALTER ROLE hasty SET synchronous_commit = off`)
	admin.exec(`ALTER ROLE hasty SET default_transaction_isolation = 'serializable'`)
	admin.exec(`ALTER ROLE hasty SET search_path = nowhere`)
	s := open(t, strings.Replace(rawURL, "postgres@", "hasty@", 1), nil)
	// A trigger tells what the transaction of a call has set.
	admin.exec(`CREATE TABLE app_durable (setting text)`)
	admin.exec2(`CREATE FUNCTION note_setting() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.app_durable VALUES (current_setting('synchronous_commit') || ' ' || current_setting('transaction_isolation')
			|| ' ' || current_setting('idle_in_transaction_session_timeout'));
		RETURN NEW; END $$; CREATE TRIGGER note BEFORE INSERT ON ` + schema + `.tally FOR EACH ROW EXECUTE FUNCTION note_setting()`)
	for _, setting := range []string{"on", "remote_apply"} {
		r := request(0, time.Now())
		if c, err := s.Begin(t.Context(), group, []replay.Request{r}); err != nil || c[0].Err != nil {
			t.Fatalf("Begin: %v, %v", c, err)
		}
		if f, err := s.Finish(t.Context(), group, []replay.Finish{{ID: r.ID, Token: r.Token, Kind: replay.Released}}); err != nil || f[0].Err != nil {
			t.Fatalf("Finish: %v, %v", f, err)
		}
		if n := admin.number(`SELECT count(*) FROM app_durable WHERE setting <> $1`, setting+" read committed 15s"); n != 0 {
			t.Errorf("%d rows were written with other settings than %s, read committed and 15 s", n, setting)
		}
		if n := admin.number(`SELECT count(*) FROM app_durable`); n == 0 {
			t.Error("the trigger did not run")
		}
		admin.exec(`DELETE FROM app_durable`)
		admin.exec(`ALTER ROLE hasty SET synchronous_commit = remote_apply`)
		s.Reconnect()
	}
	stats, err := s.Stats(t.Context())
	if err != nil || stats.Durable || !stats.Shared {
		t.Errorf("%+v, %v; a server with fsync = off is not durable", stats, err)
	}
}

// TestRoles: with the roles of docs/replay/postgres.md a receiver uses the store, a handler
// consumes, and neither does more.
func TestRoles(t *testing.T) {
	server := postgres.Shared(t)
	rawURL, schema := newSchema(server)
	owner := open(t, rawURL, nil)
	admin := connect(t, server)
	admin.exec2(strings.ReplaceAll(docpage.Block(t, "../../docs/replay/postgres.md", "sql"), "queue_replay", schema))
	admin.exec2(fmt.Sprintf(`CREATE ROLE app_%[1]s LOGIN; GRANT %[1]s_handler TO app_%[1]s;
		CREATE SCHEMA AUTHORIZATION app_%[1]s; CREATE TABLE app_%[1]s.effect (n bigint); ALTER TABLE app_%[1]s.effect OWNER TO app_%[1]s`, schema))
	s := open(t, strings.Replace(rawURL, "postgres@", schema+"_receiver@", 1), nil)
	if s.Database() != owner.Database() || s.Database() == "" {
		t.Errorf("a receiver finds the database %q", s.Database())
	}
	b := &bench{t: t, schema: schema, store: s, admin: admin, url: server.URL("app_"+schema, "postgres"), begin: byPgx(schema)}
	for n := range 40 {
		b.ahead.Store(int64(n) * 600_000)
		b.store = s
		r := b.claim(nil, b.request(n*50))
		tx := b.tx()
		b.must(tx.consume(b.store, &r))
		b.must(tx.effect(&r))
		b.must(tx.commit())
		b.finish(nil, replay.Consumed, r)
	}
	if err := s.Probe(t.Context(), group); err != nil {
		t.Error(err)
	}
	for _, err := range s.Streams(t.Context(), group) {
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Stats(t.Context()); err != nil {
		t.Error(err)
	}
	for role, denied := range map[string][]string{
		schema + "_receiver": {`DROP TABLE %s.page`, `UPDATE %s.meta SET birth = 0`, `TRUNCATE %s.completion`, `INSERT INTO %s.completion VALUES (1, '', '', 1, '', 0)`, `CREATE TABLE %s.t ()`},
		"app_" + schema:      {`DELETE FROM %s.page`, `TABLE %s.page`, `DELETE FROM %s.completion`, `UPDATE %s.completion SET entered = 0`, `UPDATE %s.receivers SET name = ''`, `CREATE TABLE %s.t ()`},
	} {
		c, err := pgx.Connect(t.Context(), server.URL(role, "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range denied {
			if _, err := c.Exec(t.Context(), fmt.Sprintf(statement, schema)); err == nil || !strings.Contains(err.Error(), "42501") {
				t.Errorf("%s may %s: %v", role, statement, err)
			}
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
