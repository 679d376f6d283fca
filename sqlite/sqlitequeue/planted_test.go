package sqlitequeue

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// planted opens a queue with two messages, and alters the file by a statement.
func planted(t *testing.T, statement string) (*Broker, driver.Queue) {
	t.Helper()
	b, err := Open(t.Context(), filepath.Join(t.TempDir(), "q.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range q.Send(t.Context(), []*driver.Message{{ID: "large", Body: []byte("x")}, {ID: "small", Body: []byte("y")}}) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if err := b.file.Write(t.Context(), func(c *sqlitefile.Conn) error { _, err := c.Exec(statement); return err }); err != nil {
		t.Fatal(err)
	}
	return b, q
}

// TestPlantedContents: what was planted into the file and is larger than any message of
// the queue is not read into memory. It is undecodable, can be dead-lettered, and holds
// up no other message.
func TestPlantedContents(t *testing.T) {
	t.Parallel()
	for _, column := range []string{"body", "attributes"} {
		t.Run(column, func(t *testing.T) {
			t.Parallel()
			_, q := planted(t, "UPDATE contents SET "+column+" = zeroblob(20 << 20) WHERE message_id = 'large'")
			seen, _, err := q.Peek(t.Context(), "", 10)
			if err != nil || len(seen) != 2 || !seen[0].Undecodable || len(seen[0].Body) > 0 || seen[1].Undecodable {
				t.Fatalf("Peek: %d messages, %v", len(seen), err)
			}
			all, err := q.Receive(t.Context(), 2, 0)
			if err != nil || len(all) != 2 || !all[0].Undecodable || len(all[0].Body) > 0 || string(all[1].Body) != "y" {
				t.Fatalf("Receive: %d messages, %v", len(all), err)
			}
			s := driver.Settlement{Delivery: all[0], Kind: driver.MoveToDeadLetter, Reason: "r"}
			if err := q.Settle(t.Context(), []driver.Settlement{s})[0]; err != nil {
				t.Errorf("dead-lettering it: %v", err)
			}
		})
	}
}

// TestPlantedRetention: a retention that no queue can have is damage and not "unknown",
// because it decides how old a message may be. Declare mends it.
func TestPlantedRetention(t *testing.T) {
	t.Parallel()
	for _, retention := range []string{"0", "-1"} {
		b, _ := planted(t, "UPDATE queues SET retention = "+retention)
		if _, err := b.Open(t.Context(), "q", nil); driver.KindOf(err) != driver.Corrupt {
			t.Errorf("Open of a queue with a retention of %s: %v, want Corrupt", retention, err)
		}
		if err := b.Declare(t.Context(), "q", &QueueOptions{Retention: time.Hour}); err != nil {
			t.Errorf("Declare: %v", err)
		}
		if _, err := b.Open(t.Context(), "q", nil); err != nil {
			t.Errorf("Open after Declare: %v", err)
		}
	}
}

// TestPlantedDeliveries: a count of deliveries that cannot be added to holds up no message,
// also in a session.
func TestPlantedDeliveries(t *testing.T) {
	t.Parallel()
	_, q := planted(t, "UPDATE messages SET deliveries = 9223372036854775807")
	s, err := q.AcceptSession(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Receive(t.Context(), 1, 0); err != nil || len(got) != 1 {
		t.Fatalf("Receive in a session: %d messages, %v", len(got), err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := q.Receive(t.Context(), 2, 0) // what the session held has had its deliveries
	if err != nil || len(all) != 1 || all[0].Count <= 0 {
		t.Fatalf("Receive: %d messages, %v", len(all), err)
	}
	dead := driver.Settlement{Delivery: all[0], Kind: driver.MoveToDeadLetter, Reason: "r"}
	if err := q.Settle(t.Context(), []driver.Settlement{dead})[0]; err != nil {
		t.Errorf("dead-lettering it: %v", err)
	}
	if st, err := q.Stats(t.Context()); err != nil || st.DeadLetters != 2 {
		t.Errorf("Stats: %+v, %v, want 2 dead letters", st, err)
	}
}
