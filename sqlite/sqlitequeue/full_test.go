package sqlitequeue

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// TestFullFile has SQLite itself refuse to grow the file, as it does when the
// disk is full.
func TestFullFile(t *testing.T) {
	ctx := t.Context()
	b, q, closed := fresh(ctx, t)
	defer closed()
	limit := func(pages int64) {
		t.Helper()
		err := b.file.Write(ctx, func(c *sqlitefile.Conn) error {
			_, err := c.Int(fmt.Sprintf("PRAGMA max_page_count = %d", pages))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(100)
	send := func(n int) error {
		// Two in one call: a transaction that is undone in the middle.
		r := q.Send(ctx, []*driver.Message{
			{ID: fmt.Sprintf("a%d", n), Body: make([]byte, 8<<10)}, {ID: fmt.Sprintf("b%d", n), Body: make([]byte, 8<<10)},
		})
		if (r[0].Err == nil) != (r[1].Err == nil) {
			t.Errorf("one of two was stored: %v, %v", r[0].Err, r[1].Err)
		}
		return r[0].Err
	}
	sent := 0
	var err error
	for err == nil {
		if err = send(sent); err == nil {
			sent++
		}
	}
	if driver.KindOf(err) != driver.Full || sent < 5 {
		t.Fatalf("Send after %d pairs: %v, want driver.Full", sent, err)
	}
	t.Log(err)
	st, err := q.Stats(ctx)
	if err != nil || st.Ready != int64(2*sent) {
		t.Errorf("Stats: %+v, %v; want %d", st, err, 2*sent)
	}
	limit(1000)
	if err := send(sent); err != nil {
		t.Error(err)
	}
	for n := 0; n < 2*sent+2; {
		d, err := q.Receive(ctx, 10, 0)
		if err != nil || len(d) == 0 {
			t.Fatalf("%d of %d messages were received: %v", n, 2*sent+2, err)
		}
		n += len(d)
	}
}

// fresh opens a queue in a file of its own; closed ends it, in a bubble before
// the bubble does.
func fresh(ctx context.Context, t *testing.T) (b *Broker, q driver.Queue, closed func()) {
	t.Helper()
	b, err := Open(ctx, filepath.Join(t.TempDir(), "q.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if q, err = b.Open(ctx, "q", nil); err != nil {
		t.Fatal(err)
	}
	return b, q, func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}
