package sbqueue

import (
	"crypto/sha256"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// doubles knows the copies that were sent more than once, because the answer to the first
// attempt was missing: the broker may have two of them. One is enough. Another one is completed
// if the message cannot be lost by that: if this source removed a copy as handled, or holds one
// at that time. Their ID alone does not tell, because other tools send a dead letter again under
// the ID that it has. It knows only what this source has sent: what another process receives is
// told apart by a replay store.
type doubles struct {
	copies map[string]*sentTwice // by message ID
	order  []string              // of the IDs, oldest first
}

// sentTwice is a copy that may be stored twice.
type sentTwice struct {
	out     *receipt // that was handed out last, until it is settled
	handled bool     // one was removed
	content [sha256.Size]byte
}

// maxDoubles bounds what is remembered: a few for each connection that was lost.
const maxDoubles = 4096

// expect says that a copy of this ID may have been stored twice.
func (d *doubles) expect(id string) {
	if _, there := d.copies[id]; there {
		return
	}
	if d.copies == nil {
		d.copies = make(map[string]*sentTwice)
	}
	if len(d.order) == maxDoubles {
		delete(d.copies, d.order[0])
		d.order = d.order[1:]
	}
	d.copies[id] = new(sentTwice)
	d.order = append(d.order, id)
}

// isHandled reports whether r is a double of a copy that was removed as handled.
func (d *doubles) isHandled(r *receipt) bool {
	c := d.copies[r.m.MessageID]
	return c != nil && c.handled && c.content == contentOf(r.m)
}

// arrive returns the copy that r may be a double of, which this source has handed out and not
// settled; nil if there is none, and then r takes its place.
func (d *doubles) arrive(r *receipt) *receipt {
	c := d.copies[r.m.MessageID]
	switch {
	case c == nil:
		return nil
	case c.out == nil, c.out.lost, sequence(c.out.m) == sequence(r.m), contentOf(c.out.m) != contentOf(r.m):
		c.out = r
		return nil
	}
	return c.out
}

// settle says that r is settled: removed as handled, or given back, or dead-lettered.
func (d *doubles) settle(r *receipt, handled bool) {
	c := d.copies[r.m.MessageID]
	if c == nil {
		return
	}
	if c.out == r {
		c.out = nil
	}
	if handled {
		c.handled, c.content = true, contentOf(r.m)
	}
}

// contentOf tells the content of messages apart: what is the same at both doubles, and not if
// something changed it since.
func contentOf(m *azservicebus.ReceivedMessage) (sum [sha256.Size]byte) {
	h := sha256.New()
	// fmt prints maps in the order of their keys.
	fmt.Fprintf(h, "%q %#v", m.Body, m.ApplicationProperties)
	if raw := m.RawAMQPMessage; raw != nil {
		fmt.Fprintf(h, " %q %#v %#v", raw.Body.Data, raw.Body.Value, raw.Body.Sequence)
	}
	return [sha256.Size]byte(h.Sum(sum[:0]))
}
