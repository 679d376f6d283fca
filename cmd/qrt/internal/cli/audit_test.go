package cli

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// What a store lists no more has a range by which it can be accepted.
func TestAuditMissingNamesWhatIsNotListed(t *testing.T) {
	var r missingReport
	r.add(&replay.Stream{Start: 952, MissingForgotten: 3})
	var out bytes.Buffer
	r.show(display.New(&out, display.Never))
	if want := "3 more are missing that are not listed any more: --range 1-951 accepts them"; !strings.Contains(out.String(), want) || r.Uncounted[0].Start != 952 {
		t.Errorf("%q and %+v, want %q", out.String(), r.Uncounted, want)
	}
}

// blindBroker cannot show what waits, or what is dead.
type blindBroker struct {
	driver.Broker
	waiting, dead bool // cannot be shown
}

func (b blindBroker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := b.Broker.Open(ctx, name, o)
	return blindQueue{q, b, b.waiting}, err
}

type blindQueue struct {
	driver.Queue
	b     blindBroker
	blind bool
}

func (q blindQueue) Capabilities() driver.Capabilities {
	c := q.Queue.Capabilities()
	if q.blind {
		c.Peek = driver.None
	}
	return c
}

func (q blindQueue) DeadLetters(ctx context.Context) (driver.Queue, error) {
	dead, err := q.Queue.DeadLetters(ctx)
	return blindQueue{dead, q.b, q.b.dead}, err
}

// Of a range what is missing is accepted, and nothing that a receiver has in hand or has handled.
func TestAuditAcceptsWhatIsMissing(t *testing.T) {
	at := func(first, last uint64) replay.Range { return replay.Range{First: first, Last: last} }
	missing := []replay.Missing{{Range: at(5, 7)}, {Range: at(9, 9)}, {Range: at(12, 20)}}
	for name, c := range map[string]struct {
		s    replay.Stream
		of   []replay.Range
		want []replay.Range
	}{
		"a range around them": {replay.Stream{Start: 1, Missing: missing}, []replay.Range{at(1, 14)}, []replay.Range{at(5, 7), at(9, 9), at(12, 14)}},
		"two ranges":          {replay.Stream{Start: 1, Missing: missing}, []replay.Range{at(6, 6), at(20, 30)}, []replay.Range{at(6, 6), at(20, 20)}},
		"none":                {replay.Stream{Start: 1, Missing: missing}, []replay.Range{at(1, 4)}, nil},
		"more than is listed": {replay.Stream{Start: 1, Implausible: true}, []replay.Range{at(1, 1<<30)}, []replay.Range{at(1, 1<<30)}},
		"what is forgotten":   {replay.Stream{Start: 4, MissingForgotten: 1, Missing: missing}, []replay.Range{at(1, 3), at(1, 5), at(1, 2)}, []replay.Range{at(1, 3), at(1, 3), at(5, 5)}},
		"forgotten alone":     {replay.Stream{Start: 8, MissingForgotten: 1, Missing: missing}, []replay.Range{at(1, 7), at(5, 6)}, []replay.Range{at(1, 7), at(5, 6)}},
		"forgotten and more":  {replay.Stream{Start: 8, MissingForgotten: 1, Missing: missing}, []replay.Range{at(1, 9)}, []replay.Range{at(1, 7), at(5, 7), at(9, 9)}},
		"nothing is":          {replay.Stream{Start: 4, Missing: missing}, []replay.Range{at(1, 3)}, nil},
	} {
		x := acceptance{sender: "router", stream: [16]byte{1}, ranges: c.of}
		var got []replay.Range
		for _, n := range x.notes(&c.s) {
			if n.Kind != replay.NoteAccepted || n.Sender != "router" || n.Stream != x.stream {
				t.Errorf("%s: %+v", name, n)
			}
			got = append(got, n.Range)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// An audit names each part that it could not count, and no other.
func TestAuditNamesWhatItCannotRead(t *testing.T) {
	for _, x := range []struct {
		waiting, dead bool
		want          string
	}{
		{false, false, ""},
		{true, false, "waiting messages: this broker cannot show them"},
		{false, true, "dead letters: this broker cannot show them"},
		{true, true, "waiting messages and dead letters: this broker cannot show them"},
	} {
		c := &connection{broker: blindBroker{memqueue.New(nil), x.waiting, x.dead}}
		r, err := c.auditQueue(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Unreadable != x.want {
			t.Errorf("waiting %t, dead %t: %q, want %q", x.waiting, x.dead, r.Unreadable, x.want)
		}
		if err := c.broker.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
