package sqldriver

import (
	"context"
	"errors"
	"testing"
)

// opened is a queue or session that leaves its owner's set when it is closed.
type opened struct {
	owner *OpenSet[*opened]
	err   error
}

func (o *opened) Close(context.Context) error {
	o.owner.Remove(o)
	return o.err
}

// TestOpenSet: what is open is closed with its owner, with all errors, and nothing is added
// after that.
func TestOpenSet(t *testing.T) {
	var s OpenSet[*opened]
	failures := []error{errors.New("one"), errors.New("two")}
	for _, err := range failures {
		if !s.Add(&opened{&s, err}) {
			t.Fatal("not added")
		}
	}
	alone := &opened{owner: &s}
	s.Add(alone)
	if err := alone.Close(t.Context()); err != nil || len(s.All()) != 2 {
		t.Fatalf("%v, %d are open, want 2", err, len(s.All()))
	}
	err := s.Close(t.Context())
	if !errors.Is(err, failures[0]) || !errors.Is(err, failures[1]) || len(s.All()) > 0 {
		t.Errorf("Close: %v, %d are open; want both errors and none open", err, len(s.All()))
	}
	if s.Add(alone) || s.Do(func() { t.Error("called") }) || s.Shut() {
		t.Error("the set of a closed owner took something")
	}
}
