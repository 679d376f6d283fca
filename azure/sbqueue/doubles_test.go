package sbqueue_test

import (
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// storeTwice sends a message and gives it back with a delay. The answer is missing so many
// times, so that the copy is stored more than once.
func (n *namespace) storeTwice(t *testing.T, q driver.Queue, lost int, delay time.Duration) {
	t.Helper()
	send(t, q, &driver.Message{ID: "a", Body: []byte("body"), Attributes: map[string]string{"k": "v"}})
	d := receive(t, q, 1)[0]
	i := n.inject(t, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.DropAfter, Times: lost})
	for {
		err := q.Settle(t.Context(), []driver.Settlement{{Delivery: d, Kind: driver.Abandon, Delay: delay}})[0]
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
}

// The answer to sending the copy of an abandon with a delay is missing, so that the copy is
// stored twice: by one call that tries again, or by two of which the first fails. It comes once,
// whatever became of the first when the second comes.
func TestCopyStoredTwice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lost      int
		handled   bool // the first is completed before the second comes
		postponed bool // the first is given back once more before that
	}{
		"within one call":      {lost: 1},
		"over two calls":       {lost: 6},
		"one after the other":  {lost: 1, handled: true},
		"one given back again": {lost: 1, postponed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{})
			q := n.open(t)
			n.storeTwice(t, q, c.lost, time.Second)
			again := receive(t, q, 1)[0]
			if again.ID != "a" || again.Count != 2 || again.Attributes["k"] != "v" {
				t.Errorf("the copy is %q, delivery %d, attributes %v", again.ID, again.Count, again.Attributes)
			}
			if c.handled {
				if _, err := settle(t, q, again, driver.Complete); err != nil {
					t.Fatal(err)
				}
			}
			if c.postponed {
				if err := q.Settle(t.Context(), []driver.Settlement{{Delivery: again, Kind: driver.Abandon, Delay: time.Second}})[0]; err != nil {
					t.Fatal(err)
				}
				if again = receive(t, q, 1)[0]; again.Count != 3 {
					t.Errorf("delivery %d of the next copy, want 3", again.Count)
				}
			}
			more, err := q.Receive(t.Context(), 10, 2*time.Second)
			if err != nil || len(more) > 0 {
				t.Errorf("another %d messages came, %v, want none", len(more), err)
			}
			if _, err := settle(t, q, again, driver.Complete); err != nil && !errors.Is(err, driver.ErrSettled) {
				t.Errorf("Settle: %v", err)
			}
			if !eventually(time.Minute, func() bool { st, err := n.Stats("q"); return err == nil && st.Active+st.Locked+st.Scheduled == 0 }) {
				st, err := n.Stats("q")
				t.Errorf("left: %+v, %v", st, err)
			}
		})
	}
}

// A copy that was sent twice is dead-lettered, here or at another receiver, or is handled, and
// another tool sends a message under its ID. Unless that is certain to be a double, it comes.
func TestDeadLetterSentAgain(t *testing.T) {
	t.Parallel()
	const dead = "q/$DeadLetterQueue"
	for name, c := range map[string]struct {
		before func(*testing.T, *namespace, driver.Queue, *driver.Delivery, int64)
		body   string
	}{
		"dead-lettered here": {func(t *testing.T, _ *namespace, q driver.Queue, d *driver.Delivery, _ int64) {
			if _, err := settle(t, q, d, driver.MoveToDeadLetter); err != nil {
				t.Fatal(err)
			}
		}, "body"},
		"dead-lettered elsewhere, and in work here": {func(t *testing.T, n *namespace, _ driver.Queue, _ *driver.Delivery, sequence int64) {
			if _, err := n.Move("q", sequence, dead); err != nil {
				t.Fatal(err)
			}
		}, "body"},
		"handled, and the ID used again": {func(t *testing.T, _ *namespace, q driver.Queue, d *driver.Delivery, _ int64) {
			if _, err := settle(t, q, d, driver.Complete); err != nil {
				t.Fatal(err)
			}
		}, "another body"},
		"in work, and the ID used again": {func(*testing.T, *namespace, driver.Queue, *driver.Delivery, int64) {}, "another body"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{})
			if err := n.CreateQueue("others", nil); err != nil {
				t.Fatal(err)
			}
			q := n.open(t)
			n.storeTwice(t, q, 1, time.Hour)
			stored, err := n.Messages("q")
			if err != nil || len(stored) != 2 || stored[0].MessageID != stored[1].MessageID {
				t.Fatalf("stored: %+v, %v, want two copies", stored, err)
			}
			if _, err := n.Move("q", stored[1].SequenceNumber, "others"); err != nil {
				t.Fatal(err)
			}
			if err := n.Advance(2 * time.Hour); err != nil {
				t.Fatal(err)
			}
			d := receive(t, q, 1)[0]
			stored, err = n.Messages("q")
			if err != nil || len(stored) != 1 {
				t.Fatalf("stored: %+v, %v, want the copy", stored, err)
			}
			c.before(t, n, q, d, stored[0].SequenceNumber)
			sent := stored[0]
			sent.Body = []byte(c.body)
			if _, err := n.Insert("q", &sent); err != nil {
				t.Fatal(err)
			}
			for range 30 {
				got, err := q.Receive(t.Context(), 1, time.Second)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) > 0 {
					if got[0].ID != "a" || string(got[0].Body) != c.body {
						t.Errorf("%q came, %q", got[0].ID, got[0].Body)
					}
					return
				}
				if err := n.Advance(time.Minute); err != nil { // if it waits for its lock
					t.Fatal(err)
				}
			}
			t.Error("the message is lost")
		})
	}
}
