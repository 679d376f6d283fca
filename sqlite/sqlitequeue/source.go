package sqlitequeue

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// source is what messages are received from: an open queue, an open dead-letter queue,
// or a session.
type source struct {
	broker *Broker
	queue  int64 // negative: the dead letters of the queue of that number
	name   string
	cfg    QueueOptions // the queue's, with what this holder asked for
	hold   *hold        // of a session, nil otherwise

	closing chan struct{} // closed by close

	// flowing is set while the last claim brought something: then the next one is made
	// without looking first.
	flowing atomic.Bool

	mu     sync.Mutex // guards what follows
	closed bool
	held   map[int64]*receipt // what was delivered and is not settled, by seq
	prune  int                // when held has grown to this, drop what is over
}

// receipt is the driver's handle of one delivery.
type receipt struct {
	source  *source
	seq     int64
	token   []byte
	session bool         // others may wait for it to be settled
	until   atomic.Int64 // end of the lock, Unix nanoseconds; 0 with a session's
	state   atomic.Uint32
}

// The states of a receipt. The call that moves it out of open settles it.
const (
	open uint32 = iota
	settling
	settled
)

// heldPrune is the least number of unsettled deliveries at which those whose
// lock is over are forgotten.
const heldPrune = 1024

func newSource(b *Broker, queue int64, name string, cfg QueueOptions) source {
	return source{
		broker:  b,
		queue:   queue,
		name:    name,
		cfg:     cfg,
		closing: make(chan struct{}),
		held:    make(map[int64]*receipt),
		prune:   heldPrune,
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

// keep notes deliveries, so that close can give them back. It reports false when
// s is closed.
func (s *source) keep(receipts []*receipt) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	for _, r := range receipts {
		s.held[r.seq] = r
	}
	if len(s.held) >= s.prune {
		now := time.Now().UnixNano()
		for seq, r := range s.held {
			if until := r.until.Load(); until != 0 && until <= now {
				delete(s.held, seq)
			}
		}
		s.prune = max(heldPrune, 2*len(s.held))
	}
	return true
}

// forget drops a delivery that is no longer held.
func (s *source) forget(r *receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[r.seq] == r {
		delete(s.held, r.seq)
	}
}

// shut marks s closed and returns what it holds; nil, false when it was closed.
func (s *source) shut() ([]*receipt, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false
	}
	s.closed = true
	close(s.closing)
	all := make([]*receipt, 0, len(s.held))
	for _, r := range s.held {
		all = append(all, r)
	}
	clear(s.held)
	return all, true
}

// giveBack releases deliveries. unseen says that they were not handed out: then they do
// not count.
func (s *source) giveBack(ctx context.Context, all []*receipt, unseen bool) error {
	if len(all) == 0 {
		return nil
	}
	err := giving(ctx, func(ctx context.Context) error {
		return s.broker.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) error { return s.releaseAll(c, all, unseen) })
	})
	s.broker.notifier.ring(s.queue, -s.queue)
	return err
}

// releaseAll makes deliveries ready again that are still held.
func (s *source) releaseAll(c *sqlitefile.Conn, all []*receipt, unseen bool) error {
	now := time.Now().UnixNano()
	for _, r := range all {
		if r.state.Load() == settled {
			continue
		}
		m, found, err := findLocked(c, s, r, now)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		if unseen {
			if err := s.uncount(c, &m); err != nil {
				return err
			}
		}
		if err := s.release(c, m, 0, now); err != nil {
			return err
		}
	}
	return nil
}

// uncount takes back that m's present delivery was counted. It is called only for a
// delivery that is given back on purpose: one whose lock runs out stays counted, so
// that a message which ends its process reaches the limit of deliveries.
func (s *source) uncount(c *sqlitefile.Conn, m *row) error {
	m.deliveries--
	_, err := c.Exec(uncountDelivery, s.queue, m.seq)
	return err
}

const uncountDelivery = `UPDATE messages SET deliveries = deliveries - 1 WHERE queue = ?1 AND seq = ?2`
