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

// session runs statements on a server. It connects again after the server was killed.
type session struct {
	t      testing.TB
	server *postgres.Server
	c      *pgx.Conn
}

func connect(t testing.TB, server *postgres.Server) *session {
	s := &session{t: t, server: server}
	t.Cleanup(func() {
		if s.c != nil {
			_ = s.c.Close(context.Background())
		}
	})
	return s
}

// try runs do, once more with a new connection if the one that it has is dead.
func (s *session) try(what string, do func(*pgx.Conn) error) {
	s.t.Helper()
	var err error
	for range 2 {
		if s.c == nil || s.c.IsClosed() {
			if s.c, err = pgx.Connect(context.Background(), s.server.URL("postgres", "postgres")); err != nil {
				s.t.Fatal(err)
			}
		}
		if err = do(s.c); err == nil {
			return
		}
		if !s.c.IsClosed() {
			break
		}
	}
	s.t.Fatalf("%s: %v", what, err)
}

func (s *session) exec(statement string, args ...any) {
	s.t.Helper()
	s.try(statement, func(c *pgx.Conn) error { _, err := c.Exec(context.Background(), statement, args...); return err })
}

func (s *session) number(query string, args ...any) (n int64) {
	s.t.Helper()
	s.try(query, func(c *pgx.Conn) error { return c.QueryRow(context.Background(), query, args...).Scan(&n) })
	return n
}

// tables are those that a backup has.
var tables = []string{"loss", "meta", "receivers", "run", "tally", "sender", "stream", "page", "completion"}

// kills interrupts calls: a nil one does not.
type kills interface {
	wrap(replay.Store) replay.Store
}

// fixture returns one whose stores follow the time of the suite's bubble in place of the
// server's. A clock of the process that is off changes nothing: the store does not read it.
func fixture(server *postgres.Server, query string, k kills) func(testing.TB, replay.Bounds) replaytest.Fixture {
	return func(t testing.TB, b replay.Bounds) replaytest.Fixture {
		rawURL, schema := newSchema(server)
		if strings.Contains(query, "pooled=true") {
			rawURL = postgres.SharedPooler(t).URL("postgres") + "?schema=" + schema
		}
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
			Open: func(shift time.Duration) replay.Store {
				if k != nil {
					return k.wrap(handle(shift))
				}
				return handle(shift)
			},
			Lose: func() {
				admin.exec(`DROP SCHEMA ` + schema + ` CASCADE`)
				handle(0)
			},
			Backup: func() (restore func()) {
				for _, name := range tables {
					admin.exec(fmt.Sprintf(`CREATE TABLE backup_%s_%s AS TABLE %[1]s.%[2]s`, schema, name))
				}
				return func() {
					admin.exec(`TRUNCATE ` + schema + "." + strings.Join(tables, ", "+schema+"."))
					for _, name := range tables {
						admin.exec(fmt.Sprintf(`INSERT INTO %s.%s OVERRIDING SYSTEM VALUE TABLE backup_%[1]s_%[2]s`, schema, name))
					}
				}
			},
		}
	}
}

func TestStore(t *testing.T) {
	replaytest.Run(t, replaytest.Options{New: fixture(postgres.Shared(t), "", nil), Schedules: 20})
}
