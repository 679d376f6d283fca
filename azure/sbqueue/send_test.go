package sbqueue_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// batchOf returns n messages with bodies of that size.
func batchOf(n, size int) []*driver.Message {
	var all []*driver.Message
	for i := range n {
		all = append(all, &driver.Message{ID: fmt.Sprint(i), Body: make([]byte, size)})
	}
	return all
}

// TestBatchRefused: what the broker refuses as a whole is tried in halves, so that only
// the message that it does not take fails.
func TestBatchRefused(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	q := n.open(t)
	// It refuses the batch of 8, then 4, 2 and 1: all that have the first message.
	n.inject(t, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.Refuse, Times: 4, Condition: "amqp:not-allowed", Description: "The size quota for the header stream has been exceeded."})
	for i, r := range q.Send(t.Context(), batchOf(8, 1)) {
		if want := i == 0; (r.Err != nil) != want {
			t.Errorf("message %d: %v, want an error: %t", i, r.Err, want)
		}
	}
	if got := receive(t, q, 7); len(got) != 7 {
		t.Errorf("%d messages arrived, want 7", len(got))
	}
}

// TestBatchThrottled: a batch that the broker refuses for a reason of its own is not
// split: that would be more of what it asks to be spared.
func TestBatchThrottled(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	q := n.open(t)
	i := n.inject(t, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.Refuse, Condition: "com.microsoft:server-busy"})
	for k, r := range q.Send(t.Context(), batchOf(8, 1)) {
		if driver.KindOf(r.Err) != driver.Throttled {
			t.Errorf("message %d: %v, want Throttled", k, r.Err)
		}
	}
	if hits := i.Hits(); hits > 1 {
		t.Errorf("a broker that is busy was asked %d times, want once", hits)
	}
}

// TestLargeProperties: an attribute beyond what Service Bus takes fails alone, before
// it is sent.
func TestLargeProperties(t *testing.T) {
	t.Parallel()
	q := start(t, nil, sbemulator.QueueOptions{}).open(t)
	long := strings.Repeat("a", 20<<10)
	all := batchOf(4, 1)
	all[1].Attributes = map[string]string{"a": strings.Repeat("a", 40<<10)}
	all[2].Attributes = map[string]string{"a": long, "b": long, "c": long, "d": long}
	for i, r := range q.Send(t.Context(), all) {
		if want := i == 1 || i == 2; (driver.KindOf(r.Err) == driver.TooLarge) != want {
			t.Errorf("message %d: %v, want TooLarge: %t", i, r.Err, want)
		}
	}
}

// transfers notes how large the transfers to the broker are, and what they hold.
type transfers struct {
	mu      sync.Mutex // guards what follows
	current map[int][]byte
	all     [][]byte
}

func (x *transfers) tap(connection int, toClient bool, frame []byte) []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	if toClient || !isTransfer(frame) {
		return frame
	}
	if x.current == nil {
		x.current = make(map[int][]byte)
	}
	x.current[connection] = append(x.current[connection], frame...)
	if len(frame) < 60<<10 { // as a rule the last of its transfer: the emulator takes frames of 64 KiB
		x.all = append(x.all, x.current[connection])
		delete(x.current, connection)
	}
	return frame
}

// TestLargeMessages: where one message may be larger than 1 MiB, batches are not, and
// a message that is goes alone.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{MaxMessageSize: 8 << 20})
	n.settings.MaxBytes = 8 << 20
	var x transfers
	q, err := n.relayed(t, x.tap).broker(t, n, nil).Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	all := batchOf(12, 200<<10)
	all[6].Body = make([]byte, 3<<20)
	send(t, q, all...)
	x.mu.Lock()
	defer x.mu.Unlock()
	large := 0
	for _, b := range x.all {
		switch {
		case len(b) > 3<<20 && len(b) < 3<<20+64<<10:
			large++ // the one that is so large by itself
		case len(b) > 1<<20+16<<10:
			t.Errorf("a transfer of %d bytes: Service Bus takes batches of 1 MiB", len(b))
		}
	}
	if large != 1 {
		t.Errorf("%d transfers with the large message alone, want 1", large)
	}
}

// TestPartitioned: on a partitioned queue no transfer mixes sessions, nor message IDs
// if it detects duplicates, and the order in each session is that of the call.
func TestPartitioned(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]sbqueue.QueueOptions{
		"sessions": {Partitioned: true, Sessions: true}, "message IDs": {Partitioned: true, Dedup: true}, "no key": {Partitioned: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{RequiresSession: o.Sessions})
			var x transfers
			q, err := n.relayed(t, x.tap).broker(t, n, &sbqueue.Options{Default: o}).Open(t.Context(), "q", nil)
			if err != nil {
				t.Fatal(err)
			}
			var all []*driver.Message
			for i := range 6 {
				m := &driver.Message{ID: fmt.Sprint("key-", i), Body: []byte("x")}
				if o.Sessions {
					m.ID, m.SessionID = fmt.Sprint(i), fmt.Sprint("key-", i%3)
				}
				all = append(all, m)
			}
			send(t, q, all...)
			mixed := 0
			x.mu.Lock()
			for _, b := range x.all {
				keys := 0
				for i := range 6 {
					if bytes.Contains(b, []byte(fmt.Sprint("key-", i))) {
						keys++
					}
				}
				if keys > 1 {
					mixed++
				}
			}
			x.mu.Unlock()
			if want := name == "no key"; mixed > 0 != want {
				t.Errorf("%d transfers mix keys, want some: %t", mixed, want)
			}
			if !o.Sessions {
				return
			}
			s := accept(t, q, "key-0")
			for _, want := range []string{"0", "3"} {
				d := receive(t, s, 1)[0]
				if d.ID != want {
					t.Errorf("received %s, want %s", d.ID, want)
				}
				if _, err := settle(t, s, d, driver.Complete); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// After a message that is refused, the later ones of its session do not go.
func TestSessionAfterARefusal(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{RequiresSession: true})
	q := n.open(t)
	n.inject(t, sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.Refuse, Times: 4, Condition: "amqp:not-allowed", Description: "The size quota for the header stream has been exceeded."})
	all := batchOf(8, 1)
	for i, m := range all {
		m.SessionID = []string{"a", "b"}[i%2]
	}
	// It refuses the batch of 8, then 4, 2 and 1: all that have message 0 of session a.
	for i, r := range q.Send(t.Context(), all) {
		switch {
		case i == 0 && (r.Err == nil || errors.Is(r.Err, driver.ErrNotSent)):
			t.Errorf("message 0: %v, want the refusal", r.Err)
		case i > 0 && i%2 == 0 && !errors.Is(r.Err, driver.ErrNotSent):
			t.Errorf("message %d of the same session: %v, want ErrNotSent", i, r.Err)
		case i%2 == 1 && r.Err != nil:
			t.Errorf("message %d of another session: %v", i, r.Err)
		}
	}
}
