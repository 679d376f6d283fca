package sbattack_test

import (
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/sbattack"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

var _ drivertest.Attacker = (*sbattack.Attacker)(nil)

// TestRewrite: what is stored is read back in all parts and in order.
func TestRewrite(t *testing.T) {
	s, err := sbemulator.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.CreateQueue("q", &sbemulator.QueueOptions{RequiresSession: true}); err != nil {
		t.Fatal(err)
	}
	a := sbattack.New(s)
	want := []driver.Message{
		{ID: "1", SessionID: "s", CorrelationID: "c", ContentType: "text/plain", Attributes: map[string]string{"a": "1"}, Body: []byte("one")},
		{ID: "2", SessionID: "s", Body: []byte{0, 255}, Sealed: true},
		{ID: "3", SessionID: "t"},
	}
	for range 2 { // into an empty queue, then in place of other messages
		if err := a.Rewrite(t.Context(), "q", func([]driver.Message) []driver.Message { return want }); err != nil {
			t.Fatal(err)
		}
		got, err := a.Read(t.Context(), "q")
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d messages and %v, want %d messages", len(got), err, len(want))
		}
		for i := range want {
			if d := drivertest.Difference(&want[i], &got[i]); d != "" || got[i].Sealed != want[i].Sealed {
				t.Errorf("message %d: %s", i, d)
			}
		}
	}
	if dead, why, err := a.DeadLetters(t.Context(), "q"); err != nil || len(dead) != 0 || len(why) != 0 {
		t.Errorf("dead letters of a queue without any: %v, %v, %v", dead, why, err)
	}
	if _, err := a.Read(t.Context(), "missing"); err == nil {
		t.Error("a queue that does not exist was read")
	}
}
