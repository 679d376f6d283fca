package sbemulator

import (
	"encoding/binary"
	"time"
	"unicode/utf8"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// outbound is the sending end of a link: the client receives.
type outbound struct {
	credit uint32
	count  uint32 // delivery-count (transport 2.6.7)
	drain  bool

	destructive bool            // receive and delete
	session     *messageSession // that it holds

	replyTo string   // at $cbs and $management: whose answers it takes
	replies [][]byte // that wait for credit
}

// maxReplies is how many answers may wait for credit.
const maxReplies = 1000

// filterName is the filter of a source that asks for a session.
const filterName wire.Symbol = "com.microsoft:session-filter"

const (
	timeoutProperty = "com.microsoft:timeout"
	// sessionWait is how long an attach waits for a session if the client
	// does not say.
	sessionWait = time.Minute
)

// grantedFilter answers the session filter of an attach with the session that was
// granted, in the form that was asked: described or a plain string. Microsoft's
// clients differ in it and compare the answer with their own form.
func grantedFilter(asked wire.Map, id string) wire.Map {
	var v any = id
	if old, _ := asked.Get(string(filterName)); old != nil {
		if d, described := old.(wire.Described); described {
			v = wire.Described{Descriptor: d.Descriptor, Value: id}
		}
	}
	return wire.Map{{Key: filterName, Value: v}}
}

// wantedSession reads the session filter of an attach. A nil id asks for the
// next session.
func wantedSession(p *wire.Attach) (id *string, ok bool, e *wire.Error) {
	if p.Source == nil {
		return nil, false, nil
	}
	v, ok := p.Source.Filter.Get(string(filterName))
	if !ok {
		return nil, false, nil
	}
	if d, described := v.(wire.Described); described {
		v = d.Value
	}
	if v == nil {
		return nil, true, nil
	}
	s, isString := v.(string)
	if !isString {
		return nil, true, &wire.Error{Condition: condInvalidField, Description: "The session filter is no string."}
	}
	return &s, true, nil
}

// receive attaches a receiver of a queue's messages, with or without a session.
func (l *link) receive() *wire.Error {
	id, wanted, e := wantedSession(l.asked)
	q := l.q
	switch {
	case e != nil:
	case id != nil && utf8.RuneCountInString(*id) > maxID:
		e = &wire.Error{Condition: condNotAllowed, Description: "The SessionId is longer than 128 characters."}
	case wanted && !q.sessional():
		e = &wire.Error{Condition: condNotAllowed, Description: "A sessionful message receiver cannot be created on an entity that does not require sessions."}
	case !wanted && q.sessional():
		e = &wire.Error{Condition: condNotAllowed, Description: "It is not possible for an entity that requires sessions to create a non-sessionful message receiver."}
	}
	if e != nil {
		l.refuse(e)
		return nil
	}
	switch {
	case !wanted:
		q.consumers = append(q.consumers, l)
		l.attached()
	case id == nil:
		l.await()
	default:
		ms := q.session(*id)
		if ms.held {
			l.refuse(&wire.Error{Condition: condSessionTaken, Description: "The requested session '" + *id + "' cannot be accepted. It may be locked by another receiver."})
			return nil
		}
		ms.grant(l)
		l.attached()
	}
	return nil
}

// await attaches l as soon as a session with messages is free.
func (l *link) await() {
	s := l.ss.c.s
	limit := sessionWait
	if v, ok := l.asked.Properties.Get(timeoutProperty); ok {
		if ms, ok := wire.Int(v); ok && ms >= 0 {
			limit = min(time.Duration(min(ms, int64(time.Hour/time.Millisecond)))*time.Millisecond, time.Hour)
		}
	}
	w := &waiter{link: l}
	w.timer = s.system.at(s.system.now().Add(limit), func() {
		l.detach(&wire.Error{Condition: condTimeout, Description: "The operation did not complete within the allotted timeout: no session was available."})
	})
	l.waiter = w
	l.q.waiting = append(l.q.waiting, w)
	l.q.grantWaiting()
}

// credit takes the client's credit (transport 2.6.7).
func (l *link) credit(p *wire.Flow) {
	o := l.out
	if p.LinkCredit != nil {
		count := uint32(0) // the client has not seen our attach yet
		if p.DeliveryCount != nil {
			count = *p.DeliveryCount
		}
		o.credit = positive(count + *p.LinkCredit - o.count)
	}
	o.drain = p.Drain
	l.touch()
	l.serve()
	if o.drain && !l.gone {
		o.count += o.credit // what is not used up is given up
		o.credit = 0
		l.ss.sendFlow(l)
		o.drain = false
	}
}

// wants reports whether l takes another message now.
func (l *link) wants() bool {
	return !l.gone && l.waiter == nil && l.out.credit > 0 && l.ss.open()
}

// serve delivers what there is for l.
func (l *link) serve() {
	switch {
	case l.waiter != nil:
	case !l.addr.entity():
		l.flushReplies()
	case l.out.session != nil:
		l.out.session.pump()
	case !l.q.sessional():
		l.q.pump()
	}
}

// pump delivers ready messages to the links that have credit, in turn.
func (q *queue) pump() {
	for {
		r := q.ready.peek()
		if r == nil {
			return
		}
		l := q.consumer()
		if l == nil {
			return
		}
		q.ready.pop()
		l.deliver(r)
	}
}

// consumer returns the next link that wants a message, nil for none.
func (q *queue) consumer() *link {
	for i := range q.consumers {
		at := (q.turn + i) % len(q.consumers)
		if l := q.consumers[at]; l.wants() {
			q.turn = at + 1
			return l
		}
	}
	return nil
}

// deliver sends r, which is free, to l, which wants it.
func (l *link) deliver(r *record) {
	ss, q := l.ss, l.q
	f := ss.c.s.fault(OnDeliver, q.path)
	if f.detaches() {
		q.putBack(r)
		l.detach(f.err())
		return
	}
	var lk *lock
	tag := make([]byte, 16) // receivers that delete have no use for a token
	if !l.out.destructive {
		lk = q.acquire(r)
		tag = lk.tag()
	}
	raw := r.encode(lk)
	if lk == nil {
		q.remove(r)
	}
	if f != nil { // Drop
		ss.c.abort()
		return
	}
	id := ss.nextDelivery
	ss.nextDelivery++
	l.out.credit--
	l.out.count++
	if lk != nil {
		ss.unsettled[id] = &delivery{l, lk}
	}
	settled, format := lk == nil, uint32(0)
	ss.transmit(&wire.Transfer{
		Handle: l.handle, DeliveryID: &id, DeliveryTag: tag, MessageFormat: &format, Settled: &settled,
	}, raw)
	l.touch()
}

// putBack makes r, which was popped, ready again without delivering anything.
func (q *queue) putBack(r *record) {
	r.ready = true
	if r.session != nil {
		r.session.ready.push(r)
		return
	}
	q.ready.push(r)
}

// reply queues an answer for l. A link whose answers wait beyond the limits is
// detached: its client would wait in vain for the next one.
func (l *link) reply(raw []byte) {
	s := l.ss.c.s
	if len(l.out.replies) >= maxReplies || s.pending+len(raw) > s.pendingLimit {
		l.detach(&wire.Error{Condition: condResourceLimit, Description: "Too many answers wait for credit."})
		return
	}
	s.pending += len(raw)
	l.out.replies = append(l.out.replies, raw)
	l.flushReplies()
}

func (l *link) flushReplies() {
	ss, o := l.ss, l.out
	for len(o.replies) > 0 && o.credit > 0 && !l.gone && ss.open() {
		raw := o.replies[0]
		o.replies = o.replies[1:]
		ss.c.s.pending -= len(raw)
		id := ss.nextDelivery
		ss.nextDelivery++
		o.credit--
		o.count++
		settled, format := true, uint32(0)
		ss.transmit(&wire.Transfer{
			Handle: l.handle, DeliveryID: &id, DeliveryTag: binary.BigEndian.AppendUint32(nil, id), MessageFormat: &format, Settled: &settled,
		}, raw)
	}
}
