package sbqueue_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// The attributes of a delivery are the application's, which may change them while its message
// is given back with a delay.
func TestPostponeDoesNotReadTheDelivery(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	q := n.open(t)
	send(t, q, &driver.Message{ID: "a", Attributes: map[string]string{"k": "v"}})
	d := receive(t, q, 1)[0]
	over, changed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(changed)
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
				d.Attributes[strconv.Itoa(i%100)] = "changed"
			}
		}
	}()
	err := q.Settle(t.Context(), []driver.Settlement{{Delivery: d, Kind: driver.Abandon, Delay: time.Second}})[0]
	close(over)
	<-changed
	if err != nil {
		t.Fatal(err)
	}
	again := receive(t, q, 1)[0]
	if len(again.Attributes) != 1 || again.Attributes["k"] != "v" {
		t.Errorf("it comes again with %v", again.Attributes)
	}
	if _, err := settle(t, q, again, driver.Complete); err != nil {
		t.Error(err)
	}
}
