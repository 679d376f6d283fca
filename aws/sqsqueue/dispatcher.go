package sqsqueue

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// state is where a receipt stands.
type state uint8

const (
	waiting  state = iota // received, not handed out yet
	held                  // handed out
	settling              // a request that settles it is under way
	settled
	lost // its lock is over, or it was given back
)

// receipt is one receipt of one message. All but the fields that are set once is
// guarded by queue.mu.
type receipt struct {
	q        *queue
	g        *group
	raw      *types.Message
	d        *driver.Delivery
	handle   string
	received time.Time // from when SQS counts its 12 hours, at the earliest

	state    state
	lease    time.Time // when the lock ends, at the earliest
	renewals int       // under way
	// unanswered: while settling, the call that began it has given up.
	unanswered bool
}

func (r *receipt) live(now time.Time) bool {
	return (r.state == waiting || r.state == held) && now.Before(r.lease)
}

// group is a message group of a FIFO queue with what was received of it; on a
// standard queue every message is one of its own.
//
// SQS hands out no message of a group while another is in flight, and may hand
// out several at once. So the messages of a group here came in one receipt, and no
// other receiver has any of the group.
type group struct {
	key     string
	waiting []*receipt // in order, not handed out
	out     []*receipt // handed out and not settled; one at most without an owner
	owner   *session   // nil means any waiter may have the next message
	ready   bool       // in dispatcher.ready
	giveUp  time.Time  // while ready: when its messages are given back
}

// dispatcher connects the calls that wait for messages with the polls that bring them. A
// message that a poll brings goes to any waiter that may have it, so that no message is
// orphaned if the poll's caller has gone or the message is of another group.
type dispatcher struct {
	waiters  []*waiter // in order of arrival
	asked    int       // messages that the shared polls under way may bring
	out      int       // messages handed out and neither settled nor lost
	groups   map[string]*group
	ready    []*group // with a message that any waiter may have, oldest first
	sweeper  *time.Timer
	sweeping time.Time // when the sweeper runs; zero means it does not
	expired  time.Time // when expire last looked

	renewed chan struct{} // closed and replaced when a renewal ends
}

const (
	// surplusGrace is how long a message stays that a poll brought after its
	// caller had gone: the next call often follows at once.
	surplusGrace = time.Second
	// maxGrace is how long a group stays that no call has asked for yet, at most
	// a third of the lock.
	maxGrace = 10 * time.Second
	// groupWait is how long a session that has no messages goes on waiting while
	// other groups that came instead find no taker. SQS cannot be asked for one
	// group, so it would only keep them from others.
	groupWait = 2 * time.Second
	// maxUnclaimed is how many such groups end its groupWait at once.
	maxUnclaimed = 3
)

func (d *dispatcher) init() {
	d.groups = make(map[string]*group)
	d.renewed = make(chan struct{})
}

// arrive takes in the messages of one poll. wanted says that its caller still waits.
func (q *queue) arrive(batch []*receipt, wanted bool, now time.Time) {
	var fresh []*group
	for _, r := range batch {
		g := q.groups[r.g.key]
		if g == nil {
			g = r.g
			q.groups[g.key] = g
		}
		r.g = g
		if !contains(fresh, g) {
			fresh = append(fresh, g)
			q.supersede(g, now)
			if g.owner != nil {
				g.owner.until = r.lease
			}
		}
		g.waiting = append(g.waiting, r)
	}
	grace := min(maxGrace, q.lock/3)
	if !wanted {
		grace = q.broker.surplusGrace
	}
	for _, g := range fresh {
		q.tidy(g, now.Add(grace))
	}
}

func contains(gs []*group, g *group) bool {
	for _, x := range gs {
		if x == g {
			return true
		}
	}
	return false
}

// supersede drops what is left of a group from earlier receipts: SQS has handed
// it out anew, so the locks of the old ones are over, whatever the clock says.
// One that is being settled right now is not touched.
func (q *queue) supersede(g *group, now time.Time) {
	stale := len(g.waiting) > 0
	for _, r := range g.waiting {
		r.state = lost
	}
	g.waiting = nil
	if q.loseHeld(g) {
		stale = true
	}
	if s := g.owner; s != nil && (stale || !now.Before(s.until)) {
		s.lost = true
		g.owner = nil
	}
}

// loseHeld drops what was handed out of a group and is not being settled, and
// reports whether there was any.
func (q *queue) loseHeld(g *group) bool {
	kept := g.out[:0]
	for _, r := range g.out {
		if r.state == held {
			r.state = lost
			continue
		}
		kept = append(kept, r)
	}
	n := len(g.out) - len(kept)
	clear(g.out[len(kept):])
	g.out = kept
	q.out -= n
	return n > 0
}

// lose drops all messages of a group and ends its session.
func (q *queue) lose(g *group, now time.Time) {
	for _, r := range g.waiting {
		r.state = lost
	}
	g.waiting = nil
	q.loseHeld(g)
	if g.owner != nil {
		g.owner.lost = true
		g.owner = nil
	}
	q.tidy(g, now)
}

// tidy puts a group where it belongs after a change. giveUp applies if it
// becomes ready.
func (q *queue) tidy(g *group, giveUp time.Time) {
	ready := g.owner == nil && len(g.out) == 0 && len(g.waiting) > 0
	switch {
	case ready && !g.ready:
		g.ready, g.giveUp = true, giveUp
		q.ready = append(q.ready, g)
		q.armSweeper(giveUp)
	case !ready && g.ready:
		g.ready = false
		for i, x := range q.ready {
			if x == g {
				q.ready = append(q.ready[:i], q.ready[i+1:]...)
				break
			}
		}
	}
	if g.owner == nil && len(g.out) == 0 && len(g.waiting) == 0 && q.groups[g.key] == g {
		delete(q.groups, g.key)
	}
}

// detach takes a receipt that is settled or lost off its group's hands.
func (q *queue) detach(r *receipt, now time.Time) {
	for i, x := range r.g.out {
		if x == r {
			r.g.out = append(r.g.out[:i], r.g.out[i+1:]...)
			q.out--
			break
		}
	}
	q.tidy(r.g, now.Add(min(maxGrace, q.lock/3)))
}

// expire drops what has outlived its lock, a few times per lock, so that what a
// holder never settled does not stay for ever.
func (q *queue) expire(now time.Time) {
	if now.Sub(q.expired) < q.lock/4 {
		return
	}
	q.expired = now
	for _, g := range q.groups {
		over := g.owner != nil && !now.Before(g.owner.until)
		for _, r := range g.out {
			over = over || r.state == held && !r.live(now)
		}
		for _, r := range g.waiting {
			over = over || !r.live(now)
		}
		if over {
			q.lose(g, now)
		}
	}
}

// serve gives w what it waits for, and reports whether it did.
func (q *queue) serve(w *waiter, now time.Time) bool {
	switch {
	case w.session != nil:
		return q.serveSession(w, now)
	case w.accept:
		for len(q.ready) > 0 {
			g := q.ready[0]
			if !g.waiting[0].live(now) {
				q.lose(g, now)
				continue
			}
			s := newSession(q, g)
			g.owner = s
			q.tidy(g, now)
			w.finish(outcome{session: s})
			return true
		}
		return false
	}
	var got []*receipt
	for len(got) < w.max && len(q.ready) > 0 {
		g := q.ready[0]
		r := g.waiting[0]
		if !r.live(now) {
			q.lose(g, now)
			continue
		}
		g.waiting = g.waiting[1:]
		r.state = held
		g.out = append(g.out, r)
		q.out++
		q.tidy(g, now)
		got = append(got, r)
	}
	if len(got) == 0 {
		return false
	}
	w.finish(outcome{receipts: got})
	return true
}

func (q *queue) serveSession(w *waiter, now time.Time) bool {
	s := w.session
	if err := s.check(now); err != nil {
		w.finish(outcome{err: err})
		return true
	}
	g := s.g
	n := min(w.max, len(g.waiting))
	if n == 0 {
		if u := len(q.ready); u >= maxUnclaimed || u > 0 && w.yields {
			w.finish(outcome{})
			return true
		}
		return false
	}
	got := append([]*receipt(nil), g.waiting[:n]...)
	g.waiting = g.waiting[n:]
	for _, r := range got {
		r.state = held
	}
	g.out = append(g.out, got...)
	q.out += len(got)
	w.finish(outcome{receipts: got})
	return true
}

// armSweeper has sweep run at the given time, or earlier.
func (q *queue) armSweeper(at time.Time) {
	if !q.sweeping.IsZero() && !at.Before(q.sweeping) {
		return
	}
	q.sweeping = at
	if q.sweeper == nil {
		q.sweeper = time.AfterFunc(time.Until(at), q.sweep)
		return
	}
	q.sweeper.Reset(time.Until(at))
}

// sweep gives back the messages that no call has asked for in time.
func (q *queue) sweep() {
	q.mu.Lock()
	q.sweeping = time.Time{}
	if q.closed {
		q.mu.Unlock()
		return
	}
	now := time.Now()
	var back []*receipt
	next := time.Time{}
	for _, g := range append([]*group(nil), q.ready...) {
		if now.Before(g.giveUp) {
			if next.IsZero() || g.giveUp.Before(next) {
				next = g.giveUp
			}
			continue
		}
		for _, r := range g.waiting {
			if r.live(now) {
				back = append(back, r)
			}
		}
		q.lose(g, now)
	}
	if !next.IsZero() {
		q.armSweeper(next)
	}
	q.work.Add(1)
	q.mu.Unlock()
	defer q.work.Done()
	q.giveBack(back)
}

// drain ends every wait and session and returns what is still locked.
func (q *queue) drain() []*receipt {
	if q.sweeper != nil {
		q.sweeper.Stop()
	}
	for _, w := range q.waiters {
		if !w.done {
			w.finish(outcome{err: &driver.Error{Kind: driver.Closed}})
		}
	}
	q.waiters = nil
	now := time.Now()
	var back []*receipt
	for _, g := range q.groups {
		for _, rs := range [...][]*receipt{g.out, g.waiting} {
			for _, r := range rs {
				if r.live(now) {
					back = append(back, r)
					r.state = lost
				}
			}
		}
		if g.owner != nil {
			g.owner.lost = true
		}
	}
	q.groups, q.ready = nil, nil
	return back
}
