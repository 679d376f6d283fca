package sealing

import (
	"context"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/stream"
	"github.com/queue-runtime/queue/keys"
)

// path is all that a Sender and a Receiver do with a message between application and
// broker, over keys as a Client caches them.
type path struct {
	*pair
	template driver.Message
}

func newPath(t testing.TB) *path {
	t.Helper()
	p := newPair(t)
	cached, err := keys.NewCached(p.ring, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cached.Close(context.Background()) })
	c := NewCipher(cached)
	p.sealer.Crypto, p.sealer.Keys, p.sealer.Streams = c, cached, stream.New(c.EndEpochs)
	p.opener.Crypto, p.opener.Valid = c, cached
	p.sealer.Observe, p.opener.Observe = &quiet, &quiet
	return &path{pair: p, template: driver.Message{ID: "72d3162e-cc78-11e3-81ab-4c9367dc0958", ContentType: "application/json", Body: make([]byte, 1<<10)}}
}

// What a message allocates on its way: to seal, its envelope; to open, the header and the
// plaintext.
func TestPathAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool allocate; the test runs without it")
	}
	for _, c := range []struct {
		name       string
		attributes map[string]string
		seal, open float64
	}{
		{"none", nil, 1, 2},
		{"two attributes", map[string]string{"event": "pull_request", "action": "opened"}, 1, 2},
		{"an attribute of 1 KiB", map[string]string{"trace": strings.Repeat("x", 1<<10)}, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPath(t)
			p.template.Attributes = c.attributes
			var m driver.Message
			seal := func() { m = p.template; p.pair.seal(&m) }
			seal() // derives the key of the salt epoch
			if got := testing.AllocsPerRun(100, seal); got > c.seal {
				t.Errorf("sealing allocates %v times, want at most %v", got, c.seal)
			}
			d := &driver.Delivery{Message: m}
			open := func() {
				if _, f := open(t.Context(), p.opener, d); f != nil {
					t.Fatal(f)
				}
			}
			open()
			if got := testing.AllocsPerRun(100, open); got > c.open {
				t.Errorf("opening allocates %v times, want at most %v", got, c.open)
			}
		})
	}
}

// A sender that gives some of its messages attributes and others none collects the names once.
func TestNamesAreCollectedOnce(t *testing.T) {
	s := &QueueSealer{}
	attributes := map[string]string{"event": "pull_request", "action": "opened"}
	if got := testing.AllocsPerRun(100, func() {
		for _, m := range []map[string]string{attributes, nil} {
			if names, err := s.boundNames(m); err != nil || len(names) != len(m) {
				t.Errorf("names %q of %d, %v", names, len(m), err)
			}
		}
	}); got > 0 {
		t.Errorf("two messages in turn allocate %v times, want 0", got)
	}
}
