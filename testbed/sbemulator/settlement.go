package sbemulator

import (
	"maps"
	"slices"

	"github.com/queue-runtime/queue/testbed/sbemulator/internal/wire"
)

// disposition settles deliveries as the receiving client says (transport
// 2.7.6). What a sending client says about its own is of no interest: those are
// settled when they arrive.
func (ss *session) disposition(p *wire.Disposition, f *Fault) {
	if !p.Receiver {
		return
	}
	if d := ss.unsettled[p.First]; d != nil && f.detaches() {
		d.link.detach(f.err())
		return
	}
	for _, id := range ss.between(p.First, p.Last) {
		d := ss.unsettled[id]
		if d == nil {
			continue
		}
		state, ok := ss.settle(d, p, f)
		if !ok {
			continue
		}
		delete(ss.unsettled, id)
		if !p.Settled { // the client waits to hear that it is settled
			ss.c.send(ss.channel, &wire.Disposition{First: id, Settled: true, State: state}, nil)
		}
		d.link.touch()
	}
}

// between returns the unsettled deliveries of a range of serial numbers, in
// order. The range is the client's and may be of any length.
func (ss *session) between(first uint32, last *uint32) []uint32 {
	if last == nil || *last == first {
		return []uint32{first}
	}
	span := *last - first
	if span > 1<<31 {
		return nil
	}
	return slices.SortedFunc(
		func(yield func(uint32) bool) {
			for id := range maps.Keys(ss.unsettled) {
				if id-first <= span && !yield(id) {
					return
				}
			}
		},
		func(a, b uint32) int { return int(int64(a-first) - int64(b-first)) },
	)
}

// settle ends a delivery and returns the state to answer with; ok is false for
// a state that ends nothing.
func (ss *session) settle(d *delivery, p *wire.Disposition, f *Fault) (state wire.State, ok bool) {
	if f.refuses() {
		return wire.Rejected{Error: f.err()}, true
	}
	q := d.link.q
	o, state := outcomeOf(p)
	switch {
	case o.kind == 0:
		return nil, false
	case o.kind == deadLettered && q.dead == nil:
		return wire.Rejected{Error: &wire.Error{Condition: condNotAllowed, Description: "Dead letters cannot be dead-lettered."}}, true
	case q.settle(d.lock, o):
		return state, true
	case d.lock.session != nil:
		return wire.Rejected{Error: &wire.Error{Condition: condSessionLockLost, Description: "The session lock was lost."}}, true
	}
	return wire.Rejected{Error: &wire.Error{Condition: condMessageLockLost, Description: "The lock supplied is invalid. Either the lock expired, or the message has already been removed from the queue."}}, true
}

// outcomeOf translates a state of AMQP into what Service Bus makes of it, and
// the state with which a settlement is confirmed. That is never an error: a
// client takes one as its own settlement's.
func outcomeOf(p *wire.Disposition) (outcome, wire.State) {
	switch s := p.State.(type) {
	case wire.Accepted:
		return outcome{kind: completed}, s
	case wire.Released:
		return outcome{kind: released}, s
	case wire.Modified:
		if s.UndeliverableHere {
			return outcome{kind: deferred, changes: s.Annotations}, s
		}
		return outcome{kind: abandoned, changes: s.Annotations}, s
	case wire.Rejected:
		o := outcome{kind: deadLettered}
		if s.Error != nil {
			o.reason, o.description = string(s.Error.Condition), s.Error.Description
			if s.Error.Condition == condDeadLetter {
				o.reason, o.description, o.changes = deadLetterInfo(s.Error.Info)
			}
		}
		return o, wire.Rejected{}
	case nil:
		if p.Settled { // settled without an outcome: as if never delivered
			return outcome{kind: released}, wire.Released{}
		}
	}
	return outcome{}, nil
}

// deadLetterInfo splits the info of com.microsoft:dead-letter into reason,
// description and the properties to set.
func deadLetterInfo(info wire.Map) (reason, description string, changes wire.Map) {
	for _, p := range info {
		switch name, _ := wire.Text(p.Key); name {
		case "DeadLetterReason":
			reason, _ = wire.Text(p.Value)
		case "DeadLetterErrorDescription":
			description, _ = wire.Text(p.Value)
		default:
			changes = append(changes, p)
		}
	}
	return reason, description, changes
}
