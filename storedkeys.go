package queue

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// storedKeys keeps the known keys of a queue in the replay store as well, so that a process
// that starts can tell a forgery from a wrong secret at once, and stops before it fetches if
// an ID names another secret here. Of two secrets the one that the store had first counts.
// Without an answer the receiver goes on as if there were no store, and asks again later: what
// it does not know only makes it more careful.
type storedKeys struct {
	turn   chan struct{}              // held by the caller that asks the store; others of the first fetch wait
	synced atomic.Pointer[syncedKeys] // nil: the store was not read

	// Of the holder of turn.
	due     time.Time            // when the store may be asked again, after a failure
	memory  [16]byte             // the ID of the memory that the rest is about
	read    bool                 // its keys were read
	entered map[keys.ID]struct{} // that it has
}

// syncedKeys says which memory of a store has which of the known keys.
type syncedKeys struct {
	memory   [16]byte // zero before the store has answered a claim
	revision int64    // of the Client's known keys
}

func newStoredKeys() *storedKeys {
	return &storedKeys{turn: make(chan struct{}, 1), entered: make(map[keys.ID]struct{})}
}

// storedKeysPause is how long a store that did not answer is not asked for keys: claims tell
// sooner that it is away.
const storedKeysPause = 10 * time.Second

// syncKeys reads the known keys before the first fetch, and enters those that the store
// does not have. If the store has another memory than before, it does so again; if it lost one,
// once an operator has accepted that. It costs nothing while there is nothing new, and reports
// whether it may have taken a while.
func (r *Receiver) syncKeys(ctx context.Context) (waited bool) {
	s := r.storedKeys
	if s == nil {
		return false
	}
	if v := s.synced.Load(); v != nil && *v == r.keysNow() || r.watch.lost() != nil {
		return false
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return true
	}
	if time.Now().Before(s.due) {
		return true
	}
	now := r.keysNow() // before the store is asked, so that what is newer is noticed later
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	s.follow(now.memory)
	if !r.readKeys(ctx, s) || !r.enterKeys(ctx, s) {
		s.due = time.Now().Add(storedKeysPause)
		return true
	}
	s.synced.Store(&now)
	return true
}

func (r *Receiver) keysNow() syncedKeys {
	return syncedKeys{r.watch.seen().ID, r.client.known.revision()}
}

// follow forgets what the store is known to have if that was another memory of it.
func (s *storedKeys) follow(memory [16]byte) {
	if memory == s.memory {
		return
	}
	if s.memory = memory; len(s.entered) > 0 {
		clear(s.entered)
		s.read = false
	}
}

// readKeys reports whether the store has answered, now or before.
func (r *Receiver) readKeys(ctx context.Context, s *storedKeys) bool {
	if s.read {
		return true
	}
	all, err := r.store.KnownKeys(ctx, r.options.Group)
	if err != nil {
		return false
	}
	for _, k := range all {
		if k.Queue == r.queue {
			r.client.known.correct(r.queue, keys.ID(k.ID), k.Value)
			s.entered[keys.ID(k.ID)] = struct{}{}
		}
	}
	s.read = true
	return true
}

// enterKeys reports whether the store has all known keys of the queue. A receiver that has
// another secret leaves the key to others: an operator may have had the store forget it.
func (r *Receiver) enterKeys(ctx context.Context, s *storedKeys) bool {
	for _, k := range r.client.known.named(r.queue) {
		if _, ok := s.entered[k.id]; ok || r.contradicts(k) {
			continue
		}
		known, err := r.store.NoteKey(ctx, r.options.Group, replay.KnownKey{Queue: r.queue, ID: string(k.id), Value: k.value})
		if err != nil {
			return false
		}
		if known.Value != k.value {
			r.client.known.correct(r.queue, k.id, known.Value)
		}
		s.entered[k.id] = struct{}{}
	}
	return true
}
