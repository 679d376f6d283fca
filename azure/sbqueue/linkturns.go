package sbqueue

import (
	"context"
	"slices"
	"sync"
)

// linkTurns has the links of a connection made one after the other. The SDK makes their
// claims so in any case, by a mutex for which it waits whatever a context says: with dozens of
// queues over a long way, the last would find its time over before its turn. Further links to
// receive by come after all that calls wait for. It is safe for concurrent use.
type linkTurns struct {
	mu      sync.Mutex // guards what follows
	busy    bool
	needed  []chan struct{} // of those that wait, in order
	further []chan struct{}
}

// neededLink says that calls wait for the link: it is no further one.
const neededLink = false

// wait returns when it is the caller's turn, which ends with done, or when ctx ends.
func (t *linkTurns) wait(ctx context.Context, further bool) error {
	t.mu.Lock()
	if !t.busy {
		t.busy = true
		t.mu.Unlock()
		return nil
	}
	turn, line := make(chan struct{}), &t.needed
	if further {
		line = &t.further
	}
	*line = append(*line, turn)
	t.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(*line, turn); i >= 0 {
		*line = slices.Delete(*line, i, i+1)
	} else {
		t.next() // it came meanwhile
	}
	return ctx.Err()
}

// done ends a turn.
func (t *linkTurns) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next()
}

// next begins the next turn. Called under mu.
func (t *linkTurns) next() {
	for _, line := range [...]*[]chan struct{}{&t.needed, &t.further} {
		if len(*line) > 0 {
			close((*line)[0])
			*line = (*line)[1:]
			return
		}
	}
	t.busy = false
}
