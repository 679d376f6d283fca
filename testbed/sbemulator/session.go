package sbemulator

import (
	"fmt"
	"maps"
	"slices"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

const (
	// incomingWindow is how many transfer frames a client may send ahead. They
	// are taken as they come and the window is renewed when half of it is used,
	// so it never runs out.
	incomingWindow = 2048
	// handleMax is Service Bus's limit of links a session.
	handleMax = 254
	// frameReserve is what a transfer frame may need besides payload.
	frameReserve = 128
)

// session is a session of AMQP (transport 2.5), one end of it. (A session of
// Service Bus is another thing: see messageSession.) Server.mu guards it.
type session struct {
	c       *connection
	channel uint16
	ended   bool // by us; the client's end is due
	links   map[uint32]*link

	nextIncoming uint32 // transfer IDs (transport 2.5.6)
	window       uint32 // transfers that the client may still send
	nextOutgoing uint32
	remoteWindow uint32 // transfers that the client still takes
	backlog      []outgoing
	blocked      bool // deliveries wait for the window

	nextDelivery uint32
	unsettled    map[uint32]*delivery
}

// outgoing is a transfer frame that waits for the client's window.
type outgoing struct {
	t       *wire.Transfer
	payload []byte
}

// delivery is a message under a lock that has gone out over a link.
type delivery struct {
	link *link
	lock *lock
}

// flow takes the client's windows and credit (transport 2.5.6, 2.6.7).
func (ss *session) flow(p *wire.Flow) *wire.Error {
	next := uint32(0) // the ID of our first transfer
	if p.NextIncomingID != nil {
		next = *p.NextIncomingID
	}
	ss.remoteWindow = positive(next + p.IncomingWindow - ss.nextOutgoing)
	if p.Handle == nil {
		if p.Echo {
			ss.sendFlow(nil)
		}
		ss.resume()
		return nil
	}
	l := ss.links[*p.Handle]
	if l == nil {
		return &wire.Error{Condition: condUnattached, Description: fmt.Sprintf("flow on handle %d", *p.Handle)}
	}
	if !l.gone && l.out != nil {
		l.credit(p)
	}
	if p.Echo && !l.gone {
		ss.sendFlow(l)
	}
	ss.resume()
	return nil
}

// positive reads a difference of serial numbers (RFC 1982) that may be below
// zero as zero.
func positive(n uint32) uint32 {
	if n > 1<<31 {
		return 0
	}
	return n
}

// sendFlow tells the session's windows, and l's credit if l is not nil.
func (ss *session) sendFlow(l *link) {
	ss.window = incomingWindow
	f := &wire.Flow{
		NextIncomingID: &ss.nextIncoming, IncomingWindow: incomingWindow,
		NextOutgoingID: ss.nextOutgoing, OutgoingWindow: incomingWindow,
	}
	if l != nil {
		f.Handle = &l.handle
		if l.in != nil {
			f.DeliveryCount, f.LinkCredit = &l.in.count, &l.in.credit
		} else {
			f.DeliveryCount, f.LinkCredit, f.Drain = &l.out.count, &l.out.credit, l.out.drain
		}
	}
	ss.c.send(ss.channel, f, nil)
}

// transmit sends a message in as many frames as the client's frame size asks
// for. Frames beyond the client's window wait.
func (ss *session) transmit(t *wire.Transfer, payload []byte) {
	room := int(ss.c.peerFrame) - frameReserve
	for {
		part := payload[:min(room, len(payload))]
		payload = payload[len(part):]
		t.More = len(payload) > 0
		ss.backlog = append(ss.backlog, outgoing{t, part})
		ss.c.s.pending += len(part)
		if !t.More {
			break
		}
		t = &wire.Transfer{Handle: t.Handle, Settled: t.Settled}
	}
	ss.flush()
}

// flush sends what the window allows.
func (ss *session) flush() {
	for len(ss.backlog) > 0 && ss.remoteWindow > 0 {
		o := ss.backlog[0]
		ss.backlog[0] = outgoing{}
		ss.backlog = ss.backlog[1:]
		ss.c.s.pending -= len(o.payload)
		ss.c.send(ss.channel, o.t, o.payload)
		ss.remoteWindow--
		ss.nextOutgoing++
	}
	if len(ss.backlog) == 0 {
		ss.backlog = nil
	}
}

// resume goes on if deliveries waited for the window, credit or room.
func (ss *session) resume() {
	ss.flush()
	if !ss.blocked {
		return
	}
	ss.blocked = false
	for _, h := range slices.Sorted(maps.Keys(ss.links)) {
		if l := ss.links[h]; l != nil && !l.gone && l.out != nil {
			l.serve()
		}
	}
}

// open reports whether another message can go out now, and remembers if not.
func (ss *session) open() bool {
	if ss.c.closed || ss.ended {
		return false
	}
	if len(ss.backlog) > 0 || ss.remoteWindow == 0 || ss.c.s.pending > ss.c.s.pendingLimit {
		ss.blocked = true
		return false
	}
	if ss.c.out.size() > highWater {
		ss.blocked = true
		ss.c.full.Store(true)
		signal(ss.c.out.wake) // the writer may have emptied it by now
		return false
	}
	return true
}

// transfer takes a frame of a message (transport 2.7.5).
func (ss *session) transfer(p *wire.Transfer, payload []byte, f *Fault) *wire.Error {
	ss.nextIncoming++
	if ss.window--; ss.window < incomingWindow/2 {
		ss.sendFlow(nil)
	}
	l := ss.links[p.Handle]
	if l == nil || (!l.gone && l.in == nil) {
		return &wire.Error{Condition: condUnattached, Description: fmt.Sprintf("transfer on handle %d", p.Handle)}
	}
	if l.gone {
		return nil
	}
	if e := l.in.part(l, p, payload, f); e != nil {
		l.detach(e)
	}
	return nil
}

// fail ends the session with an error.
func (ss *session) fail(e *wire.Error) {
	ss.teardown(closedInOrder)
	ss.ended = true
	ss.c.send(ss.channel, &wire.End{Error: e}, nil)
}

// remoteEnd is the client's end, or its answer to ours.
func (ss *session) remoteEnd(*wire.End) {
	delete(ss.c.sessions, ss.channel)
	if !ss.ended {
		ss.teardown(closedInOrder)
		ss.c.send(ss.channel, &wire.End{}, nil)
	}
}

// teardown releases all links without a word.
func (ss *session) teardown(lost bool) {
	for _, h := range slices.Sorted(maps.Keys(ss.links)) {
		if l := ss.links[h]; !l.gone {
			l.teardown(lost)
		}
	}
	ss.c.s.links -= len(ss.links)
	clear(ss.links)
	clear(ss.unsettled)
	for _, o := range ss.backlog {
		ss.c.s.pending -= len(o.payload)
	}
	ss.backlog = nil
}

// inbound is the receiving end of a link: the client sends.
type inbound struct {
	credit uint32
	count  uint32 // delivery-count (transport 2.6.7)
	limit  int    // bytes of one message

	// The message that is arriving:
	arriving bool
	id       uint32
	format   uint32
	settled  bool
	tooLarge bool // above the limit: what comes of it is dropped
	buf      []byte
	waits    int // bytes of buf that count as pending
}

// wait counts n more bytes as pending.
func (in *inbound) wait(l *link, n int) {
	in.waits += n
	l.ss.c.s.pending += n
}

// inboundCredit is how many messages a client may send. It is renewed when half
// of it is used, so it never runs out.
const inboundCredit = 1000

// part takes a frame and, when it is the last of its message, the message.
func (in *inbound) part(l *link, p *wire.Transfer, payload []byte, f *Fault) *wire.Error {
	if !in.arriving {
		if p.DeliveryID == nil {
			return &wire.Error{Condition: condInvalidField, Description: "a first transfer without delivery-id"}
		}
		in.arriving, in.id, in.format, in.settled, in.tooLarge, in.buf = true, *p.DeliveryID, 0, false, false, nil
		if p.MessageFormat != nil {
			in.format = *p.MessageFormat
		}
	} else if p.DeliveryID != nil && *p.DeliveryID != in.id {
		return &wire.Error{Condition: condInvalidField, Description: "a message within a message"}
	}
	in.settled = in.settled || (p.Settled != nil && *p.Settled)
	if !p.Aborted {
		if e := in.store(l, p, payload); e != nil {
			return e
		}
		if p.More {
			return nil
		}
	}
	raw := in.buf
	in.wait(l, -in.waits)
	in.arriving, in.buf = false, nil
	in.count++
	in.credit--
	if !p.Aborted {
		if f.detaches() {
			return f.err()
		}
		if e := in.finish(l, raw, f); e != nil {
			return e
		}
	}
	if in.credit <= inboundCredit/2 && !l.gone {
		in.credit = inboundCredit
		l.ss.sendFlow(l)
	}
	return nil
}

// store keeps the payload of a frame, unless its message is above the limit.
func (in *inbound) store(l *link, p *wire.Transfer, payload []byte) *wire.Error {
	switch s := l.ss.c.s; {
	case in.tooLarge:
	case len(in.buf)+len(payload) > in.limit:
		in.wait(l, -in.waits)
		in.tooLarge, in.buf = true, nil
	case in.buf == nil && !p.More:
		in.buf = payload // of this frame alone, not shared
	case s.pending+len(payload) > s.pendingLimit:
		return &wire.Error{Condition: condResourceLimit, Description: "Too many messages are on their way."}
	default:
		in.wait(l, len(payload))
		in.buf = append(in.buf, payload...)
	}
	return nil
}

// finish takes the complete message and tells the client its outcome. One above the
// limit is rejected; if it came settled, so that no outcome is told, the link is
// detached (transport 2.8.18).
func (in *inbound) finish(l *link, raw []byte, f *Fault) *wire.Error {
	var state wire.State
	if in.tooLarge {
		e := &wire.Error{Condition: condMessageSize, Description: fmt.Sprintf(
			"The received message (delivery-id:%d) exceeds the limit (%d bytes) currently allowed on the link.", in.id, in.limit)}
		if in.settled {
			return e
		}
		state = wire.Rejected{Error: e}
	} else {
		state = l.take(raw, in.format, f)
	}
	if !in.settled && !l.gone {
		l.ss.c.send(l.ss.channel, &wire.Disposition{Receiver: true, First: in.id, Settled: true, State: state}, nil)
	}
	return nil
}
