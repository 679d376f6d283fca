package queue

import (
	"fmt"
	"sync"

	"github.com/queue-runtime/queue/replay"
)

// StoreLoss says what a receiver does if its replay store lost its memory: if it answers
// with another ID than before, or with a lower change number, as after a backup was
// restored or a failover lost writes.
type StoreLoss uint8

// The ways to handle a lost memory.
const (
	// StopOnLoss stops receiving until the process restarts: what was handled before
	// could be replayed. An operator finds out what was lost first.
	StopOnLoss StoreLoss = iota
	// WarnOnLoss logs the loss and goes on.
	WarnOnLoss
)

// storeWatch notices that a replay store lost its memory. It is shared by the receivers
// of a Client.
type storeWatch struct {
	policy StoreLoss
	warn   func(error) // called once for each loss

	mu    sync.Mutex // guards what follows
	stamp replay.Stamp
	err   error // not nil once a memory was lost under StopOnLoss
}

// seen is the newest stamp. A caller takes it before it calls the store.
func (w *storeWatch) seen() replay.Stamp {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stamp
}

// see compares the stamp of an answer with what was seen before its call. It is compared
// with nothing newer: concurrent answers overtake each other.
func (w *storeWatch) see(before, s replay.Stamp) error {
	loss, err := w.compare(before, s)
	if loss != nil {
		w.warn(loss) // not under mu: a logger may send its lines to a queue of this Client
	}
	return err
}

// compare returns the loss that the stamp shows, and why receiving stops; nil each if there
// is none.
func (w *storeWatch) compare(before, s replay.Stamp) (loss, stop error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Of several calls that were under way, the first one to answer reports the loss.
	switch {
	case w.stamp.ID == [16]byte{}:
	case s.ID != w.stamp.ID && s.ID != before.ID:
		loss = fmt.Errorf("%w: it is another store, made %s, than the one of %s", ErrReplayStoreLost, s.Birth.UTC(), w.stamp.Birth.UTC())
	case s.ID == w.stamp.ID && s.ID == before.ID && s.Change < before.Change && before.Change <= w.stamp.Change:
		loss = fmt.Errorf("%w: its change number went back from %d to %d", ErrReplayStoreLost, before.Change, s.Change)
	}
	if loss != nil || w.stamp.ID == [16]byte{} || s.ID == w.stamp.ID && s.Change > w.stamp.Change {
		w.stamp = s
	}
	if loss != nil && w.policy == StopOnLoss {
		w.err = loss
	}
	return loss, w.err
}

// lost is the loss that stopped receiving, nil if there was none.
func (w *storeWatch) lost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
