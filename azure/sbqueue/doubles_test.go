package sbqueue_test

import (
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// The answer to sending the copy of an abandon with a delay is missing, so that the copy is
// stored twice: by one call that tries again, or by two of which the first fails. It comes once.
func TestCopyStoredTwice(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]int{"within one call": 1, "over two calls": 6} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{})
			q := n.open(t)
			send(t, q, &driver.Message{ID: "a", Attributes: map[string]string{"k": "v"}})
			d := receive(t, q, 1)[0]
			i := n.inject(t, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.DropAfter, Times: lost})
			for {
				err := q.Settle(t.Context(), []driver.Settlement{{Delivery: d, Kind: driver.Abandon, Delay: time.Second}})[0]
				if err == nil {
					break
				}
				if driver.KindOf(err) != driver.Unavailable {
					t.Fatal(err)
				}
			}
			if i.Hits() != lost {
				t.Fatalf("%d answers were lost, want %d", i.Hits(), lost)
			}
			again := receive(t, q, 1)[0]
			if again.ID != "a" || again.Count != 2 || again.Attributes["k"] != "v" {
				t.Errorf("the copy is %q, delivery %d, attributes %v", again.ID, again.Count, again.Attributes)
			}
			more, err := q.Receive(t.Context(), 10, 2*time.Second)
			if err != nil || len(more) > 0 {
				t.Errorf("another %d messages came, %v, want none", len(more), err)
			}
			if _, err := settle(t, q, again, driver.Complete); err != nil && !errors.Is(err, driver.ErrSettled) {
				t.Errorf("Settle: %v", err)
			}
			if !eventually(5*time.Second, func() bool { st, err := n.Stats("q"); return err == nil && st.Active+st.Locked+st.Scheduled == 0 }) {
				st, err := n.Stats("q")
				t.Errorf("left: %+v, %v", st, err)
			}
		})
	}
}
