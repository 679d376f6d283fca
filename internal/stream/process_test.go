package stream

import (
	"os"
	"testing"
)

func TestProcessID(t *testing.T) {
	known, unknown, child := self(), &process{id: -1}, &process{id: -1, forked: []byte{0}}
	for what, p := range map[string]*process{"as this system does it": known, "without memory that is cleared": unknown, "in a child": child} {
		if got := p.current(); got != os.Getpid() {
			t.Errorf("%s: process %d, want %d", what, got, os.Getpid())
		}
	}
	if p := (&process{id: 7, forked: []byte{1}}); p.current() != 7 {
		t.Error("the process asks for its ID although it was not forked")
	}
}
