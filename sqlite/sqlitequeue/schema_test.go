package sqlitequeue_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// endless are rows without end: a statement that meets them never returns.
const endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"

// TestPlantedSchema: what was planted into the schema is refused before it runs, when the
// file is opened and while it is open. Calls return, and so does Close.
func TestPlantedSchema(t *testing.T) {
	t.Parallel()
	for name, statements := range map[string][]string{
		"trigger on claims":  {"CREATE TRIGGER planted BEFORE UPDATE ON messages BEGIN DELETE FROM dedup WHERE seq IN (" + endless + "); END"},
		"trigger on sends":   {"CREATE TRIGGER planted BEFORE INSERT ON messages BEGIN DELETE FROM dedup WHERE seq IN (" + endless + "); END"},
		"a view for a table": {"ALTER TABLE contents RENAME TO hidden", "CREATE VIEW contents AS " + endless},
		"a table beside":     {"CREATE TABLE planted (x)"},
		"an index":           {"CREATE INDEX planted ON messages (queue)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "q.db")
			b, err := sqlitequeue.Open(t.Context(), path, nil)
			if err != nil {
				t.Fatal(err)
			}
			q, err := b.Open(t.Context(), "q", nil)
			if err != nil {
				t.Fatal(err)
			}
			if r := q.Send(t.Context(), []*driver.Message{{ID: "1"}, {ID: "2"}}); r[0].Err != nil {
				t.Fatal(r[0].Err)
			}
			held, err := q.Receive(t.Context(), 1, 0)
			if err != nil || len(held) != 1 {
				t.Fatal(err)
			}
			a, err := sqliteattack.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range statements {
				if _, err := a.Exec(t.Context(), s); err != nil {
					t.Fatal(err)
				}
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			corrupt := func(what string, err error) {
				t.Helper()
				if driver.KindOf(err) != driver.Corrupt {
					t.Errorf("%s: %v, want driver.Corrupt", what, err)
				}
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				corrupt("Send", q.Send(t.Context(), []*driver.Message{{ID: "3"}})[0].Err)
				_, err := q.Receive(t.Context(), 1, 0)
				corrupt("Receive", err)
				corrupt("Settle", q.Settle(t.Context(), []driver.Settlement{{Delivery: held[0], Kind: driver.Complete}})[0])
				_, _, err = q.Peek(t.Context(), "", 10)
				corrupt("Peek", err)
				_ = b.Close(context.Background())
				_, err = sqlitequeue.Open(context.Background(), path, nil)
				if !errors.Is(err, sqlitequeue.ErrForeign) || driver.KindOf(err) != driver.Corrupt {
					t.Errorf("Open: %v, want ErrForeign and driver.Corrupt", err)
				}
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatal("a call did not return within a minute")
			}
		})
	}
}
