package postgresqueue

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// source is what messages are received from: an open queue, an open dead-letter queue,
// or a session.
type source struct {
	broker   *Broker
	queue    int64 // negative: the dead letters of the queue of that number
	name     string
	settings QueueOptions // the queue's, with what this holder asked for
	hold     *hold        // of a session, nil otherwise

	settler *settler      // nil in a session
	closing chan struct{} // closed by shut

	mu        sync.Mutex // guards what follows
	closed    bool
	unsettled map[int64]*receipt // by seq
	prune     int                // when unsettled has grown to this, drop what is over
}

// receipt is the driver's handle of one delivery.
type receipt struct {
	source  *source
	seq     int64
	token   []byte
	session string                    // of the message, empty for none
	until   atomic.Pointer[time.Time] // end of the lock; nil in a session
	state   atomic.Uint32
}

// The states of a receipt. The call that moves it out of open settles it.
const (
	open uint32 = iota
	settling
	settled
)

// prunedFrom is the least number of unsettled deliveries at which those whose lock is
// over are forgotten.
const prunedFrom = 1024

func newSource(b *Broker, queue int64, name string, settings QueueOptions) source {
	return source{
		broker:    b,
		queue:     queue,
		name:      name,
		settings:  settings,
		closing:   make(chan struct{}),
		unsettled: make(map[int64]*receipt),
		prune:     prunedFrom,
	}
}

// usable fails if s can do nothing more.
func (s *source) usable(ctx context.Context) error {
	select {
	case <-s.closing:
		return &driver.Error{Kind: driver.Closed}
	default:
		return ctx.Err()
	}
}

// keep notes deliveries, so that Close can give them back. It reports false when s is
// closed.
func (s *source) keep(receipts []*receipt) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	for _, r := range receipts {
		s.unsettled[r.seq] = r
	}
	if len(s.unsettled) >= s.prune {
		now := time.Now()
		for seq, r := range s.unsettled {
			if until := r.until.Load(); until != nil && until.Before(now) {
				delete(s.unsettled, seq)
			}
		}
		s.prune = max(prunedFrom, 2*len(s.unsettled))
	}
	return true
}

// forget drops a delivery that is no longer locked.
func (s *source) forget(r *receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsettled[r.seq] == r {
		delete(s.unsettled, r.seq)
	}
}

// shut marks s closed and returns what is unsettled; nil, false when it was closed.
func (s *source) shut() ([]*receipt, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	s.closed = true
	close(s.closing)
	all := make([]*receipt, 0, len(s.unsettled))
	for _, r := range s.unsettled {
		if r.state.Load() != settled {
			all = append(all, r)
		}
	}
	clear(s.unsettled)
	return all, true
}

// giveBack settles deliveries of which no caller will hear again: as Abandon if one
// has seen them, as Release otherwise. Callers often close because their context is
// over: it goes on for a while after that.
func (s *source) giveBack(ctx context.Context, all []*receipt, kind driver.SettleKind) error {
	if len(all) == 0 {
		return nil
	}
	list := make([]order, len(all))
	for i, r := range all {
		list[i] = order{receipt: r, kind: kind}
	}
	err := last(ctx, func(ctx context.Context) error {
		_, err := s.perform(ctx, list)
		return err
	})
	s.broker.announce(s.queue, -s.queue)
	return err
}
