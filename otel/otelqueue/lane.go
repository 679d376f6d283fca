package otelqueue

import "sync/atomic"

// complete is the outcome of most messages, as a settlement and of a handler.
const complete = "complete"

// lane has what nearly every message of a queue counts at hand: one look at the
// queue's name finds it, where each series would cost one at all of its labels.
type lane struct {
	plain              *series // the queue alone
	completed, handled *series // settlements and handlers with the outcome complete

	// By whether the message was encrypted.
	sent, received [2]recent

	running, sealed, opened recent
}

func (i *instruments) lane(queue string) *lane { return i.lanes.get(queue, i.newLane) }

func (i *instruments) newLane(queue string) *lane {
	return &lane{
		plain:     i.series(labels{byQueue, queue, "", ""}),
		completed: i.series(labels{byOperation, queue, complete, ""}),
		handled:   i.series(labels{byOutcome, queue, complete, ""}),
	}
}

// recent is the series of a tally that was counted last. For one key, which seals
// all messages for weeks, it is always the same.
type recent struct{ atomic.Pointer[count] }

// of returns the series, and begins it where there is none: what never happens in a
// process is none of its metrics.
func (r *recent) of(t *tally, l labels) *count {
	c := r.Load()
	if c == nil || c.labels != l {
		c = t.at(l)
		r.Store(c)
	}
	return c
}
