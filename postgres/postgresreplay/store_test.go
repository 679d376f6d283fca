package postgresreplay_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/postgres"
)

var schemas atomic.Int64

// newSchema returns the URL of a schema that does not exist yet on a server.
func newSchema(server *postgres.Server) (rawURL, schema string) {
	schema = fmt.Sprintf("s%d", schemas.Add(1))
	return server.URL("postgres", "postgres") + "?schema=" + schema, schema
}

// open opens a store that the test closes.
func open(t testing.TB, rawURL string, o *postgresreplay.Options) *postgresreplay.Store {
	t.Helper()
	s, err := postgresreplay.Open(context.Background(), rawURL, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t testing.TB, s *postgresreplay.Store) {
	if err := s.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// session runs statements on a server.
type session struct {
	t testing.TB
	c *pgx.Conn
}

func connect(t testing.TB, server *postgres.Server) session {
	t.Helper()
	c, err := pgx.Connect(context.Background(), server.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return session{t, c}
}

func (s session) exec(statement string, args ...any) {
	s.t.Helper()
	if _, err := s.c.Exec(context.Background(), statement, args...); err != nil {
		s.t.Fatalf("%s: %v", statement, err)
	}
}

func (s session) number(query string, args ...any) (n int64) {
	s.t.Helper()
	if err := s.c.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// tables are those that a backup has.
var tables = []string{"meta", "receivers", "tally", "sender", "stream", "page", "completion"}

// fixture returns one whose stores follow the time of the suite's bubble in place of the
// server's. A clock of the process that is off changes nothing: the store does not read it.
func fixture(server *postgres.Server, query string) func(testing.TB, replay.Bounds) replaytest.Fixture {
	return func(t testing.TB, b replay.Bounds) replaytest.Fixture {
		rawURL, schema := newSchema(server)
		admin := connect(t, server)
		clock := func(int64) int64 { return time.Now().UnixMilli() }
		handle := func(time.Duration) *postgresreplay.Store {
			s, err := postgresreplay.OpenWithClock(context.Background(), rawURL+query, &postgresreplay.Options{Bounds: b}, clock)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeStore(t, s) })
			return s
		}
		handle(0)
		t.Cleanup(func() { admin.exec(`DROP SCHEMA ` + schema + ` CASCADE`) })
		return replaytest.Fixture{
			Open: func(shift time.Duration) replay.Store { return handle(shift) },
			Lose: func() {
				admin.exec(`DROP SCHEMA ` + schema + ` CASCADE`)
				handle(0)
			},
			Backup: func() (restore func()) {
				for _, name := range tables {
					admin.exec(fmt.Sprintf(`CREATE TEMPORARY TABLE backup_%s AS TABLE %s.%[1]s`, name, schema))
				}
				return func() {
					admin.exec(`TRUNCATE ` + schema + "." + strings.Join(tables, ", "+schema+"."))
					for _, name := range tables {
						admin.exec(fmt.Sprintf(`INSERT INTO %s.%s OVERRIDING SYSTEM VALUE TABLE backup_%[2]s`, schema, name))
					}
				}
			},
		}
	}
}

func TestStore(t *testing.T) {
	replaytest.Run(t, replaytest.Options{New: fixture(postgres.Shared(t), ""), Schedules: 20})
}

// TestPooled: nothing is prepared, and the store is the same.
func TestPooled(t *testing.T) {
	replaytest.Run(t, replaytest.Options{New: fixture(postgres.Shared(t), "&pooled=true"), Schedules: 2})
}
