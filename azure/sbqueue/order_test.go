package sbqueue_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// TestSessionOrderWhileSending: messages of a session come in order, however many
// are asked for, while more of them are on their way.
func TestSessionOrderWhileSending(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{RequiresSession: true})
	from, to := n.open(t), n.open(t)
	const all = 300
	sent := make(chan error, 1)
	receiveToken := make(chan struct{}, 1)
	receiveToken <- struct{}{}
	go func() {
		for i := 0; i < all; {
			batch := make([]*driver.Message, 1+i*7%23)
			for k := range batch {
				batch[k] = &driver.Message{ID: fmt.Sprint(i), SessionID: "s", Body: make([]byte, 8<<10)}
				i++
			}
			<-receiveToken
			for _, r := range from.Send(t.Context(), batch) {
				if r.Err != nil {
					sent <- r.Err
					return
				}
			}
		}
		sent <- nil
	}()
	s, err := to.AcceptSession(t.Context(), "s", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context()) //nolint:errcheck // the emulator goes with the test
	for next := 0; next < all; {
		list, err := s.Receive(t.Context(), 50, time.Minute)
		if err != nil || len(list) == 0 {
			t.Fatalf("after %d messages: %d, %v", next, len(list), err)
		}
		select {
		case receiveToken <- struct{}{}: // the next arrive while these are settled
		default:
		}
		settle := make([]driver.Settlement, len(list))
		for i, d := range list {
			if d.ID != fmt.Sprint(next) || d.Count != 1 {
				t.Fatalf("message %s, delivered %d times, came where %d was next", d.ID, d.Count, next)
			}
			next++
			settle[i] = driver.Settlement{Delivery: d, Kind: driver.Complete}
		}
		for _, err := range s.Settle(t.Context(), settle) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}
