package postgresqueue_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

// TestLargestMetadata: what is confirmed is read again, the largest attributes too; what would
// not be read is refused.
func TestLargestMetadata(t *testing.T) {
	t.Parallel()
	rawURL, _ := newSchema(t, "")
	q := openQueue(t, rawURL)
	const room = 1<<20 - 2*len("m") - 2 - 3 // the ID twice, the name of the attribute and the length of its value
	large := &driver.Message{ID: "m", Body: []byte("x"), Attributes: map[string]string{"a": strings.Repeat("a", room)}}
	if err := q.Send(t.Context(), []*driver.Message{large})[0].Err; err != nil {
		t.Fatal(err)
	}
	all, err := q.Receive(t.Context(), 1, 0)
	if err != nil || len(all) != 1 {
		t.Fatal(len(all), err)
	}
	if d := all[0]; d.Undecodable || string(d.Body) != "x" || !maps.Equal(d.Attributes, large.Attributes) {
		t.Errorf("undecodable: %t, body %q", d.Undecodable, d.Body)
	}
	large.Attributes["a"] += "a"
	if err := q.Send(t.Context(), []*driver.Message{large})[0].Err; !errors.Is(err, driver.ErrTooLarge) {
		t.Errorf("a byte more: %v, want ErrTooLarge", err)
	}
}
