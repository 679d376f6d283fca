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
// an ID names another secret here. Without an answer the receiver goes on as if there were no
// store, and asks again later: what it does not know only makes it more careful.
type storedKeys struct {
	turn  chan struct{} // held by the caller that asks the store; others of the first fetch wait
	ready atomic.Bool   // the store was read
	saved atomic.Int64  // the revision of the Client's known keys that the store has

	// Of the holder of turn.
	due     time.Time // when the store may be asked again, after a failure
	entered map[keys.ID]struct{}
}

func newStoredKeys() *storedKeys {
	return &storedKeys{turn: make(chan struct{}, 1), entered: make(map[keys.ID]struct{})}
}

// storedKeysPause is how long a store that did not answer is not asked for keys: claims tell
// sooner that it is away.
const storedKeysPause = 10 * time.Second

// syncKeys reads the known keys before the first fetch, and enters those that the store
// does not have. It costs nothing while there is nothing new, and reports whether it may
// have taken a while.
func (r *Receiver) syncKeys(ctx context.Context) (waited bool) {
	s := r.storedKeys
	if s == nil || s.ready.Load() && s.saved.Load() == r.client.known.revision() {
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
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	if !r.readKeys(ctx, s) || !r.enterKeys(ctx, s) {
		s.due = time.Now().Add(storedKeysPause)
	}
	return true
}

// readKeys reports whether the store has answered, now or before.
func (r *Receiver) readKeys(ctx context.Context, s *storedKeys) bool {
	if s.ready.Load() {
		return true
	}
	all, err := r.store.KnownKeys(ctx, r.options.Group)
	if err != nil {
		return false
	}
	for _, k := range all {
		if k.Queue == r.queue {
			r.client.known.note(r.queue, keys.ID(k.ID), k.Value)
			s.entered[keys.ID(k.ID)] = struct{}{}
		}
	}
	s.ready.Store(true)
	return true
}

// enterKeys reports whether the store has all known keys of the queue.
func (r *Receiver) enterKeys(ctx context.Context, s *storedKeys) bool {
	revision := r.client.known.revision() // before they are read
	for _, k := range r.client.known.named(r.queue) {
		if _, ok := s.entered[k.id]; ok {
			continue
		}
		if err := r.store.NoteKey(ctx, r.options.Group, replay.KnownKey{Queue: r.queue, ID: string(k.id), Value: k.value}); err != nil {
			return false
		}
		s.entered[k.id] = struct{}{}
	}
	s.saved.Store(revision)
	return true
}
