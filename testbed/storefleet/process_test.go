package storefleet

import (
	"context"
	"testing"
)

// TestFleetThatHasEnded: a fleet that ends before its next process starts has no fault.
func TestFleetThatHasEnded(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	f := &fleet{}
	if err := f.process(ctx, &Options{Targets: []string{"any"}}, 0); err != nil || f.result.Killed != 0 {
		t.Errorf("%v, %d killed", err, f.result.Killed)
	}
}
