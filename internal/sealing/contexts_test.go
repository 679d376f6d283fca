package sealing

import (
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// Room that is used again keeps neither the names of a message, which hold on to its header,
// nor the memory of a large context. Nothing that another Crypto was given is used again.
func TestRoomKeepsLittle(t *testing.T) {
	type other struct{ Crypto }
	c := new(Cipher)
	r := roomFor(c)
	names := append(r.names, "a", "b")
	r.names = names
	if r.done(c); names[0] != "" || names[1] != "" {
		t.Errorf("the room keeps the names %q", names)
	}
	for name, x := range map[string]struct {
		size     int
		from, to Crypto
		again    bool
	}{
		"a large one":                  {maxContext, c, c, true},
		"one that is too large":        {maxContext + 1, c, c, false},
		"that of another Crypto":       {1, other{}, c, false},
		"one of a Cipher, for another": {1, c, other{}, false},
	} {
		used := 0
		for range 100 { // a pool may drop what it is given
			given := &contextRoom{context: make([]byte, 0, x.size)}
			if given.done(x.from); roomFor(x.to) == given {
				used++
			}
		}
		if (used > 0) != x.again {
			t.Errorf("%s: used again %d times of 100; want that it is: %v", name, used, x.again)
		}
	}
}

// A message whose context cannot be encoded is not sealed without one.
func TestSealNeedsAContext(t *testing.T) {
	p := newPair(t)
	p.failed("no message ID", p.trySeal(&driver.Message{Body: []byte("body")}), "", envelope.ErrInvalidContext)
}
