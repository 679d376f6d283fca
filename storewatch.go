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

// see compares the stamp of an answer with those before it.
func (w *storeWatch) see(s replay.Stamp) error {
	loss, err := w.compare(s)
	if loss != nil {
		w.warn(loss) // not under mu: a logger may send its lines to a queue of this Client
	}
	return err
}

// compare returns the loss that the stamp shows, and why receiving stops; nil each if there
// is none.
func (w *storeWatch) compare(s replay.Stamp) (loss, stop error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.stamp.ID == [16]byte{}:
	case s.ID != w.stamp.ID:
		loss = fmt.Errorf("%w: it is another store, made %s, than the one of %s", ErrReplayStoreLost, s.Birth.UTC(), w.stamp.Birth.UTC())
	case s.Change < w.stamp.Change && w.stamp.Change-s.Change > changeSlack:
		loss = fmt.Errorf("%w: its change number went back from %d to %d", ErrReplayStoreLost, w.stamp.Change, s.Change)
	case s.Change < w.stamp.Change:
		return nil, w.err // an answer overtook another
	}
	w.stamp = s
	if loss != nil && w.policy == StopOnLoss {
		w.err = loss
	}
	return loss, w.err
}

// changeSlack is by how much answers of concurrent calls may overtake each other.
const changeSlack = 1 << 12

// lost is the loss that stopped receiving, nil if there was none.
func (w *storeWatch) lost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
