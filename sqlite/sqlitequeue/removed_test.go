package sqlitequeue

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// TestRemovedQueue: nothing is sent to a queue that was removed from the file, where no
// receiver would find it, and calls that wait for its messages say so.
func TestRemovedQueue(t *testing.T) {
	t.Parallel()
	_, q := planted(t, "DELETE FROM queues")
	dead, err := q.DeadLetters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
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
