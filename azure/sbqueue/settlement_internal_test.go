package sbqueue

import (
	"errors"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

// TestSettlementThatOutlastsItsCall: until it has ended nothing is known, and no other may begin;
// once it has, its outcome counts, also if it ended before the call that began it gave up.
func TestSettlementThatOutlastsItsCall(t *testing.T) {
	for name, c := range map[string]struct {
		err  error // of the settlement
		late bool  // it ends after its call gave up
		want driver.Kind
	}{
		"settled late":        {nil, true, driver.Settled},
		"settled just then":   {nil, false, driver.Settled},
		"failed late":         {errNoAnswer, true, driver.Other},
		"failed just then":    {errNoAnswer, false, driver.Other},
		"lock lost late":      {&driver.Error{Kind: driver.LockLost}, true, driver.LockLost},
		"lock lost just then": {&driver.Error{Kind: driver.LockLost}, false, driver.LockLost},
	} {
		s := newSource(&queue{}, ofMessages, 1)
		r := &receipt{m: &azservicebus.ReceivedMessage{}}
		s.held[r] = struct{}{}
		if err := s.claim(r); err != nil {
			t.Fatal(err)
		}
		if c.late {
			s.outlast(r)
			if err := s.claim(r); driver.KindOf(err) != driver.Unavailable {
				t.Errorf("%s: %v while it is under way, want Unavailable", name, err)
			}
		}
		if err := s.conclude(r, c.err); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if !c.late {
			s.outlast(r)
		}
		switch err := s.claim(r); {
		case c.want == driver.Other && err != nil, c.want != driver.Other && driver.KindOf(err) != c.want:
			t.Errorf("%s: the next settlement: %v, want kind %v", name, err, c.want)
		}
	}
}
