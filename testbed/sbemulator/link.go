package sbemulator

import (
	"slices"
	"time"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// link is one end of an AMQP link (transport 2.6). Server.mu guards it.
type link struct {
	ss     *session
	name   string
	handle uint32
	addr   address
	asked  *wire.Attach // what the client asked for
	q      *queue       // nil at $cbs
	gone   bool         // detached by us; the client's detach is due

	in  *inbound  // the client sends
	out *outbound // the client receives

	waiter *waiter // waits for a session; the attach is not answered yet
	idle   *timer
}

// nodeAddress is the address at our end of the link.
func nodeAddress(p *wire.Attach) string {
	switch {
	case p.Receiver && p.Source != nil:
		return p.Source.Address
	case !p.Receiver && p.Target != nil:
		return p.Target.Address
	}
	return ""
}

// attach starts a link that the client asks for (transport 2.6.3).
func (ss *session) attach(p *wire.Attach, f *Fault) *wire.Error {
	if p.Handle > handleMax || ss.links[p.Handle] != nil {
		return &wire.Error{Condition: condHandleInUse, Description: "the handle is in use or beyond the limit"}
	}
	l := &link{ss: ss, name: p.Name, handle: p.Handle, asked: p, addr: parseAddress(nodeAddress(p))}
	ss.links[p.Handle] = l
	if ss.c.s.links++; ss.c.s.links > maxLinks {
		return &wire.Error{Condition: condResourceLimit, Description: "too many links"}
	}
	if f.refuses() {
		l.refuse(f.err())
		return nil
	}
	if e := l.connect(); e != nil {
		l.refuse(e)
		return nil
	}
	if p.Receiver {
		l.out = &outbound{destructive: p.SenderSettle == wire.SenderSettled}
		if p.Target != nil {
			l.out.replyTo = p.Target.Address
		}
	} else {
		l.in = &inbound{credit: inboundCredit, limit: l.limit()}
	}
	switch {
	case f.ignores():
	case p.Receiver && l.addr.entity():
		return l.receive()
	default:
		l.attached()
	}
	return nil
}

// entity reports whether messages of a queue come or go here.
func (a address) entity() bool { return !a.cbs && !a.management }

// connect finds the queue and checks that the client may use it.
func (l *link) connect() *wire.Error {
	c := l.ss.c
	if l.addr.cbs {
		return nil
	}
	if !c.claimed(l.addr) {
		return &wire.Error{Condition: condUnauthorized, Description: "Unauthorized access. A claim for the entity is required."}
	}
	if l.q = c.s.find(l.addr); l.q == nil {
		return c.s.notFound(l.addr.path())
	}
	if l.addr.entity() && !l.asked.Receiver && l.addr.dead {
		return &wire.Error{Condition: condNotAllowed, Description: "Messages cannot be sent to dead letters."}
	}
	return nil
}

// controlLimit is how many bytes a request to $cbs or $management may have.
const controlLimit = 1 << 20

func (l *link) limit() int {
	if l.addr.entity() {
		return l.q.opts.MaxMessageSize
	}
	return max(controlLimit, l.queueLimit())
}

// queueLimit: requests to schedule carry whole messages.
func (l *link) queueLimit() int {
	if l.q == nil {
		return 0
	}
	return 2 * l.q.opts.MaxMessageSize
}

// attached answers the attach. For a receiver with a session it tells which.
func (l *link) attached() {
	p := l.asked
	a := &wire.Attach{
		Name: p.Name, Handle: p.Handle, Receiver: !p.Receiver,
		SenderSettle: p.SenderSettle, ReceiverSettle: p.ReceiverSettle,
		Source: p.Source, Target: p.Target,
	}
	if a.Source == nil {
		a.Source = &wire.Source{}
	}
	if a.Target == nil {
		a.Target = &wire.Target{}
	}
	if l.in != nil {
		a.MaxMessageSize = uint64(l.in.limit)
		if l.addr.entity() {
			a.Properties = wire.Map{{Key: wire.Symbol("com.microsoft:max-message-batch-size"), Value: a.MaxMessageSize}}
		}
	} else {
		a.InitialDeliveryCount = new(uint32)
		if ms := l.out.session; ms != nil {
			source := *a.Source
			source.Filter = grantedFilter(source.Filter, ms.id)
			a.Source = &source
			a.Properties = wire.Map{{Key: wire.Symbol("com.microsoft:locked-until-utc"), Value: ticks(ms.until)}}
		}
	}
	l.ss.c.send(l.ss.channel, a, nil)
	if l.in != nil {
		l.ss.sendFlow(l)
	}
	l.touch()
}

// refuse answers the attach without a terminus and detaches at once (transport
// 2.6.3).
func (l *link) refuse(e *wire.Error) {
	p := l.asked
	l.gone = true
	l.ss.c.send(l.ss.channel, &wire.Attach{
		Name: p.Name, Handle: p.Handle, Receiver: !p.Receiver,
		SenderSettle: p.SenderSettle, ReceiverSettle: p.ReceiverSettle,
		InitialDeliveryCount: new(uint32),
	}, nil)
	l.ss.c.send(l.ss.channel, &wire.Detach{Handle: l.handle, Closed: true, Error: e}, nil)
}

// detach ends the link from our side. e may be nil.
func (l *link) detach(e *wire.Error) {
	if l.gone {
		return
	}
	if w := l.waiter; w != nil {
		l.q.stopWaiting(w)
		l.refuse(e)
		return
	}
	l.teardown(closedInOrder)
	l.ss.c.send(l.ss.channel, &wire.Detach{Handle: l.handle, Closed: true, Error: e}, nil)
}

// remoteDetach is the client's detach, or its answer to ours.
func (ss *session) remoteDetach(p *wire.Detach) *wire.Error {
	l := ss.links[p.Handle]
	if l == nil {
		return &wire.Error{Condition: condUnattached, Description: "detach of an unknown handle"}
	}
	l.detach(nil)
	delete(ss.links, p.Handle)
	ss.c.s.links--
	return nil
}

// teardown releases what the link holds and sends no frame. Locks of messages last:
// the messages can still be settled over $management. A session is released with its
// link, unless its connection was lost and the options keep the session then.
func (l *link) teardown(lost bool) {
	l.gone = true
	s := l.ss.c.s
	s.clock.stop(l.idle)
	if w := l.waiter; w != nil {
		l.q.stopWaiting(w)
	}
	if l.in != nil {
		l.in.wait(l, -l.in.waits)
		l.in.buf = nil
	}
	if l.out == nil {
		return
	}
	for _, raw := range l.out.replies {
		s.pending -= len(raw)
	}
	l.out.replies = nil
	for id, d := range l.ss.unsettled {
		if d.link == l {
			delete(l.ss.unsettled, id)
		}
	}
	if l.q != nil {
		l.q.consumers = slices.DeleteFunc(l.q.consumers, func(x *link) bool { return x == l })
	}
	if ms := l.out.session; ms != nil {
		if lost && s.opts.KeepSessionLocks {
			ms.holder, l.out.session = nil, nil
			return
		}
		ms.release(givenBack)
	}
}

// touch starts the idle time of the link anew.
func (l *link) touch() {
	s := l.ss.c.s
	if s.opts.IdleLinkTimeout <= 0 || !l.addr.entity() {
		return
	}
	s.clock.stop(l.idle)
	l.idle = s.clock.at(s.clock.now().Add(s.opts.IdleLinkTimeout), func() {
		l.detach(&wire.Error{Condition: condDetachForced, Description: "The link was idle for " + s.opts.IdleLinkTimeout.String() + "."})
	})
}

// dotnetEpoch is the Unix epoch in ticks of 100 ns since the year 1.
const dotnetEpoch = 621_355_968_000_000_000

// ticks returns t as .NET does.
func ticks(t time.Time) int64 { return dotnetEpoch + t.UnixMilli()*10_000 }
