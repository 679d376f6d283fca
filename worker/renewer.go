package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/queue-runtime/queue"
)

// renewer extends the locks of everything that one queue of a Pool has in hand, and ends
// the context of a handler whose lock or time is over. It has one timer.
//
// Invariant: what watches the clock never waits for the broker. A lock that runs out
// while the broker does not answer is noticed all the same.
type renewer struct {
	renewAll func(context.Context, []*queue.Delivery) []error
	log      *slog.Logger
	queue    string

	ctx    context.Context // of the calls that renew
	cancel context.CancelFunc
	calls  sync.WaitGroup

	mu     sync.Mutex // guards the fields below, and the state of the leases
	leases []*lease
	closed bool
	timer  *time.Timer
	next   time.Time // when timer fires; zero means it does not
}

func newRenewer(base context.Context, r *queue.Receiver, log *slog.Logger) *renewer {
	k := &renewer{renewAll: r.RenewAll, log: log, queue: r.Queue()}
	k.ctx, k.cancel = context.WithCancel(base)
	return k
}

// stop ends every renewal. No lease is kept any more.
func (k *renewer) stop() {
	k.mu.Lock()
	if k.timer != nil {
		k.timer.Stop()
	}
	k.leases, k.closed = nil, true
	k.mu.Unlock()
	k.cancel()
}

// keep extends the lock of x, and watches its time, until drop.
func (k *renewer) keep(x *lease, now time.Time) {
	x.schedule(now)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		x.index = -1
		return
	}
	x.index = len(k.leases)
	k.leases = append(k.leases, x)
	k.wake(x.due())
}

// drop stops keeping x. A renewal that is under way may still end.
func (k *renewer) drop(x *lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || x.index < 0 {
		return
	}
	last := len(k.leases) - 1
	k.leases[x.index] = k.leases[last]
	k.leases[x.index].index = x.index
	k.leases[last] = nil
	k.leases = k.leases[:last]
	x.index = -1
}

// wake makes the timer fire at t at the latest. Called under mu.
func (k *renewer) wake(t time.Time) {
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

// tick advances every lease, and starts the renewals that are due: those of messages of
// the queue with one call, any other on its own, so that none waits for another source.
func (k *renewer) tick() {
	var late []string
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return
	}
	now := time.Now()
	k.next = time.Time{}
	var together []*lease
	for _, x := range k.leases {
		do := x.advance(now)
		if do.warn {
			late = append(late, x.id)
		}
		if do.renew {
			if _, ok := x.lock.(messageLock); ok {
				together = append(together, x)
			} else {
				k.calls.Go(func() { k.renew([]*lease{x}, x.until) })
			}
		}
		k.wake(x.due())
	}
	if len(together) > 0 {
		deadline := together[0].until
		for _, x := range together {
			if x.until.Before(deadline) {
				deadline = x.until
			}
		}
		k.calls.Go(func() { k.renew(together, deadline) })
	}
	k.mu.Unlock()
	for _, id := range late {
		k.log.LogAttrs(k.ctx, slog.LevelWarn, "Handler goes on although its context has ended: its message stays locked and its slot in use",
			slog.String("queue", k.queue), slog.String("message_id", id), slog.String("cause", ErrMaxProcessing.Error()))
	}
}

// renew extends the locks of leases of one source, until deadline at the latest.
func (k *renewer) renew(batch []*lease, deadline time.Time) {
	ctx, cancel := context.WithDeadline(k.ctx, deadline)
	defer cancel()
	var errs []error
	if _, ok := batch[0].lock.(messageLock); ok {
		deliveries := make([]*queue.Delivery, len(batch))
		for i, x := range batch {
			deliveries[i] = x.lock.(messageLock).Delivery //nolint:forcetypeassert // tick sorts them
		}
		errs = k.renewAll(ctx, deliveries)
	} else {
		errs = []error{batch[0].lock.renew(ctx)}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for i, x := range batch {
		if k.closed || x.index < 0 {
			continue
		}
		x.renewed(now, errs[i])
		k.wake(x.due())
	}
}
