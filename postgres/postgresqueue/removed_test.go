package postgresqueue_test

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// TestRemovedQueue: calls that wait for messages of a queue that was removed say so: they
// would wait for ever.
func TestRemovedQueue(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "&poll=50ms")
	q := openQueue(t, rawURL)
	dead, err := q.DeadLetters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sql(t, `DELETE FROM `+schema+`.queue`)
	for name, call := range map[string]func() error{
		"Send":                    func() error { return q.Send(t.Context(), []*driver.Message{{ID: "a"}})[0].Err },
		"Receive":                 func() error { _, err := q.Receive(t.Context(), 1, time.Minute); return err },
		"Receive of dead letters": func() error { _, err := dead.Receive(t.Context(), 1, time.Minute); return err },
		"AcceptSession":           func() error { _, err := q.AcceptSession(t.Context(), "", time.Minute); return err },
		"Stats":                   func() error { _, err := q.Stats(t.Context()); return err },
		"Stats of dead letters":   func() error { _, err := dead.Stats(t.Context()); return err },
	} {
		if err := call(); driver.KindOf(err) != driver.NotFound {
			t.Errorf("%s: %v, want NotFound", name, err)
		}
	}
}

// TestSchemaMadeAnew: a queue that was opened before its schema was dropped never stands for
// another queue of the schema that was made in its place.
func TestSchemaMadeAnew(t *testing.T) {
	t.Parallel()
	rawURL, schema := newSchema(t, "")
	q := openQueue(t, rawURL)
	sql(t, `DROP SCHEMA `+schema+` CASCADE`)
	other, err := open(t, rawURL, nil).Open(t.Context(), "another", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Send(t.Context(), []*driver.Message{{ID: "a"}})[0].Err; driver.KindOf(err) != driver.NotFound {
		t.Errorf("Send to the queue of the schema that is gone: %v, want NotFound", err)
	}
	if got, err := other.Receive(t.Context(), 1, 0); len(got) != 0 || err != nil {
		t.Errorf("another queue has %d messages of it, %v", len(got), err)
	}
}
