package sqlitequeue_test

import (
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// TestLargestMessage: what is confirmed is read again, the largest body with the largest
// attributes too; what would not be read is refused.
func TestLargestMessage(t *testing.T) {
	b, err := sqlitequeue.Open(t.Context(), filepath.Join(t.TempDir(), "f.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	const room = 1<<20 - len("m") - 2 - 3 // the ID, the name of the attribute and the length of its value
	large := &driver.Message{ID: "m", Body: make([]byte, sqlitequeue.DefaultMaxBody), Attributes: map[string]string{"a": strings.Repeat("a", room)}}
	if err := q.Send(t.Context(), []*driver.Message{large})[0].Err; err != nil {
		t.Fatal(err)
	}
	all, err := q.Receive(t.Context(), 1, 0)
	if err != nil || len(all) != 1 {
		t.Fatal(len(all), err)
	}
	if d := all[0]; d.Undecodable || len(d.Body) != len(large.Body) || !maps.Equal(d.Attributes, large.Attributes) {
		t.Errorf("undecodable: %t, a body of %d bytes", d.Undecodable, len(d.Body))
	}
	large.Attributes["a"] += "a"
	if err := q.Send(t.Context(), []*driver.Message{large})[0].Err; !errors.Is(err, driver.ErrTooLarge) {
		t.Errorf("a byte more: %v, want ErrTooLarge", err)
	}
}
