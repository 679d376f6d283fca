package queue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// keeper keeps the locks of everything that one queue of a Processor has in
// hand, and ends the context of a handler whose lock is over. It has one timer.
// The clock side never waits for the broker: a lock that runs out while the
// broker does not answer is noticed all the same.
type keeper struct {
	ctx    context.Context // of the calls that renew
	cancel context.CancelFunc
	calls  sync.WaitGroup

	mu    sync.Mutex // guards what follows
	held  []*kept
	over  bool // closed: nothing is kept any more
	timer *time.Timer
	next  time.Time // when timer fires; zero: it does not
}

// kept is one lock. All but the constants are guarded by the keeper's mu.
type kept struct {
	d      *Delivery // a message's lock, renewed together with others of its source
	s      *Session  // or a session's
	end    context.CancelCauseFunc
	lost   error // the cause when the lock is over
	until  time.Time
	renew  time.Time // when to renew next; zero: never
	cap    time.Time // when the time for processing is over; zero: never
	asking bool      // a renewal is under way
	at     int       // its index in keeper.held; -1: dropped

	// settling is what the handler's settlement runs in. It is here to be made
	// together with the rest, and the worker's alone.
	settling settleContext
}

func newKeeper(ctx context.Context) *keeper {
	k := &keeper{}
	k.ctx, k.cancel = context.WithCancel(ctx)
	return k
}

// close ends every renewal and returns when none is under way.
func (k *keeper) close() {
	k.mu.Lock()
	if k.timer != nil {
		k.timer.Stop()
	}
	k.held, k.over = nil, true
	k.mu.Unlock()
	k.cancel()
	k.calls.Wait()
}

// keepDelivery keeps the lock of d from now until drop, and lets its processing
// take at most most.
func (k *keeper) keepDelivery(d *Delivery, now time.Time, most time.Duration, end context.CancelCauseFunc) *kept {
	x := &kept{d: d, end: end, lost: ErrLockLost, until: d.HeldUntil(), cap: now.Add(most)}
	k.add(x, now)
	return x
}

// keepSession keeps the lock of s until drop.
func (k *keeper) keepSession(s *Session) *kept {
	x := &kept{s: s, end: func(error) {}, lost: ErrSessionLost, until: s.LockedUntil()}
	k.add(x, time.Now())
	return x
}

// limit lets the processing of a session's message take at most most from now.
func (k *keeper) limit(now time.Time, most time.Duration, end context.CancelCauseFunc) *kept {
	x := &kept{end: end, cap: now.Add(most)}
	k.add(x, now)
	return x
}

func (k *keeper) add(x *kept, now time.Time) {
	x.schedule(now)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		x.at = -1
		return
	}
	x.at = len(k.held)
	k.held = append(k.held, x)
	k.wake(x.due())
}

// drop stops keeping x. A renewal that is under way may still end.
func (k *keeper) drop(x *kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over || x.at < 0 {
		return
	}
	last := len(k.held) - 1
	k.held[x.at] = k.held[last]
	k.held[x.at].at = x.at
	k.held[last] = nil
	k.held = k.held[:last]
	x.at = -1
}

// schedule sets the next renewal to half of what is left.
func (x *kept) schedule(now time.Time) {
	x.renew = time.Time{}
	if !x.until.IsZero() && (x.d != nil || x.s != nil) {
		x.renew = now.Add(x.until.Sub(now) / 2)
	}
}

// due is when x needs attention next; zero: never.
func (x *kept) due() time.Time {
	var at time.Time
	for _, t := range [...]time.Time{x.until, x.cap} {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if t := x.renew; !x.asking && !t.IsZero() && (at.IsZero() || t.Before(at)) {
		at = t
	}
	return at
}

// wake makes the timer fire at t at the latest. Called under mu.
func (k *keeper) wake(t time.Time) {
	if t.IsZero() || !k.next.IsZero() && !t.Before(k.next) {
		return
	}
	k.next = t
	if k.timer == nil {
		k.timer = time.AfterFunc(time.Until(t), k.tick)
	} else {
		k.timer.Reset(time.Until(t))
	}
}

func (k *keeper) tick() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.over {
		return
	}
	now := time.Now()
	k.next = time.Time{}
	var bySource map[driver.Source][]*kept
	for _, x := range k.held {
		if !x.until.IsZero() && !now.Before(x.until) {
			x.end(x.lost)
			x.until, x.renew = time.Time{}, time.Time{}
		}
		if !x.cap.IsZero() && !now.Before(x.cap) {
			x.end(ErrMaxProcessing)
			x.cap, x.renew = time.Time{}, time.Time{}
		}
		if x.renew.IsZero() || x.asking || now.Before(x.renew) {
			continue
		}
		x.asking = true
		if x.s != nil {
			k.calls.Go(func() { k.renewSession(x) })
			continue
		}
		if bySource == nil {
			bySource = make(map[driver.Source][]*kept)
		}
		bySource[x.d.src] = append(bySource[x.d.src], x)
	}
	for _, batch := range bySource {
		k.calls.Go(func() { k.renewBatch(batch) })
	}
	for _, x := range k.held {
		k.wake(x.due())
	}
}

func (k *keeper) renewSession(x *kept) {
	ctx, cancel := context.WithDeadline(k.ctx, x.s.LockedUntil())
	defer cancel()
	err := x.s.Renew(ctx)
	k.renewed([]*kept{x}, []time.Time{x.s.LockedUntil()}, []error{err})
}

func (k *keeper) renewBatch(batch []*kept) {
	deadline := batch[0].d.HeldUntil()
	deliveries := make([]*Delivery, len(batch))
	for i, x := range batch {
		deliveries[i] = x.d
		if t := x.d.HeldUntil(); t.Before(deadline) {
			deadline = t
		}
	}
	ctx, cancel := context.WithDeadline(k.ctx, deadline)
	defer cancel()
	errs := batch[0].d.r.renew(ctx, batch[0].d.src, deliveries)
	until := make([]time.Time, len(batch))
	for i, d := range deliveries {
		until[i] = d.HeldUntil()
	}
	k.renewed(batch, until, errs)
}

// renewed takes in what a renewal brought.
func (k *keeper) renewed(batch []*kept, until []time.Time, errs []error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for i, x := range batch {
		x.asking = false
		if k.over || x.at < 0 {
			continue
		}
		switch err := errs[i]; {
		case x.until.IsZero() || x.renew.IsZero():
			// Over meanwhile, or past its time.
		case err == nil:
			x.until = until[i]
			x.schedule(now)
		case errors.Is(err, ErrLockLost), errors.Is(err, ErrSessionLost), errors.Is(err, ErrSettled):
			x.end(x.lost)
			x.until, x.renew = time.Time{}, time.Time{}
		default:
			// Again soon, while the lock lives: perhaps longer than it was known
			// to, where the handler renews it, too.
			if until[i].After(x.until) {
				x.until = until[i]
			}
			x.renew = now.Add(max(x.until.Sub(now)/4, 10*time.Millisecond))
		}
		k.wake(x.due())
	}
}
