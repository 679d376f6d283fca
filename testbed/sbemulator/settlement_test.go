package sbemulator_test

import (
	"testing"

	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// TestDispositionRange settles several deliveries by one frame, also by one
// whose range is absurd.
func TestDispositionRange(t *testing.T) {
	s := start(t, nil, nil)
	for range 6 {
		if _, err := s.Insert("q", &sbemulator.Message{}); err != nil {
			t.Fatal(err)
		}
	}
	p := open(t, s, 64<<10, 100)
	p.attach(0, true)
	p.credit(0, 6)
	for i := range uint32(6) {
		if tr := expect[*wire.Transfer](p); *tr.DeliveryID != i || len(tr.DeliveryTag) != 16 {
			t.Fatalf("transfer %+v", tr)
		}
	}
	p.send(0, &wire.Disposition{Receiver: true, First: 1, Last: new(uint32(2)), State: wire.Accepted{}})
	for i := range uint32(2) {
		if d := expect[*wire.Disposition](p); d.First != i+1 || d.Receiver || !d.Settled || d.State != (wire.Accepted{}) {
			t.Errorf("disposition %+v", d)
		}
	}
	wantStored(t, s, "q", 4)
	p.send(0, &wire.Disposition{First: 0, Settled: true, State: wire.Accepted{}})                                 // as a sender: means nothing
	p.send(0, &wire.Disposition{Receiver: true, First: 0, State: wire.Received{}})                                // no outcome
	p.send(0, &wire.Disposition{Receiver: true, First: 3, Last: new(uint32(2)), State: wire.Accepted{}})          // backwards
	p.send(0, &wire.Disposition{Receiver: true, First: 1, State: wire.Accepted{}})                                // settled before
	p.send(0, &wire.Disposition{Receiver: true, First: 5, Settled: true})                                         // no state: given back
	p.send(0, &wire.Disposition{Receiver: true, First: 0, Last: new(uint32(0x7fffffff)), State: wire.Released{}}) // the rest
	for _, i := range []uint32{0, 3, 4} {
		if d := expect[*wire.Disposition](p); d.First != i || d.State != (wire.Released{}) {
			t.Errorf("disposition %+v, want of %d", d, i)
		}
	}
	for _, m := range wantStored(t, s, "q", 4) {
		if m.DeliveryCount != 0 || m.Locked {
			t.Errorf("stored %+v", m)
		}
	}
}

// TestRejectedWithoutDeadLetter: any rejection dead-letters, with its own
// condition for the reason.
func TestRejectedWithoutDeadLetter(t *testing.T) {
	s := start(t, nil, nil)
	if _, err := s.Insert("q", &sbemulator.Message{}); err != nil {
		t.Fatal(err)
	}
	p := open(t, s, 64<<10, 100)
	p.attach(0, true)
	p.credit(0, 1)
	expect[*wire.Transfer](p)
	p.send(0, &wire.Disposition{Receiver: true, State: wire.Rejected{Error: &wire.Error{Condition: "app:broken", Description: "why"}}})
	if d := expect[*wire.Disposition](p); d.State != (wire.Rejected{}) {
		t.Errorf("state %+v: an error would be taken for the settlement's own", d.State)
	}
	d := wantStored(t, s, "q/$DeadLetterQueue", 1)[0].ApplicationProperties
	if d["DeadLetterReason"] != "app:broken" || d["DeadLetterErrorDescription"] != "why" {
		t.Errorf("properties %v", d)
	}
}
