package queue

import (
	"fmt"
	"sync"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// StoreLoss says what a receiver does if its replay store lost its memory: if it answers
// with another ID than before, or with a lower change number, as after a backup was
// restored or a failover lost writes.
type StoreLoss uint8

// The ways to handle a lost memory.
const (
	// StopOnLoss stops receiving until an operator has accepted the loss (qrt nonces
	// accept-loss, replay.Store.AcceptLoss), or the process restarts: what was handled
	// before could be replayed. The operator finds out what was lost first.
	StopOnLoss StoreLoss = iota
	// WarnOnLoss logs the loss and goes on.
	WarnOnLoss
)

// storeWatch notices that a replay store lost its memory. It is shared by the receivers
// of a Client.
type storeWatch struct {
	policy   StoreLoss
	warn     func(error)       // called once for each loss
	accepted func(replay.Loss) // called when receiving may go on

	mu    sync.Mutex // guards what follows
	stamp replay.Stamp
	// err is the loss that stopped receiving, nil unless a memory was lost under
	// StopOnLoss; gone is the memory from before it. A further loss changes neither:
	// nothing was handled in between.
	err  error
	gone replay.Stamp
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
		loss = fmt.Errorf("%w: it is another store, %v, made %s, than before, %v, made %s", ErrReplayStoreLost,
			s, s.Birth.UTC().Format(time.RFC3339), w.stamp, w.stamp.Birth.UTC().Format(time.RFC3339))
	case s.ID == w.stamp.ID && s.ID == before.ID && s.Change < before.Change && before.Change <= w.stamp.Change:
		loss = fmt.Errorf("%w: its change number went back, from %v to %d", ErrReplayStoreLost, before, s.Change)
	}
	known := w.stamp
	if loss != nil || w.stamp.ID == [16]byte{} || s.ID == w.stamp.ID && s.Change > w.stamp.Change {
		w.stamp = s
	}
	if loss != nil && w.policy == StopOnLoss && w.err == nil {
		w.err, w.gone = loss, known
	}
	return loss, w.err
}

// accept lets receiving go on if an operator has accepted the loss that stopped it. It
// returns why receiving still stops.
func (w *storeWatch) accept(h *replay.History) error {
	loss, err := w.take(h)
	if err == nil && loss != (replay.Loss{}) {
		w.accepted(loss) // not under mu, as in see
	}
	return err
}

func (w *storeWatch) take(h *replay.History) (replay.Loss, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		return replay.Loss{}, nil // another receiver has asked
	}
	loss, ok := h.Accepts(w.gone)
	if !ok {
		return replay.Loss{}, w.err
	}
	w.stamp, w.err, w.gone = h.Stamp, nil, replay.Stamp{}
	return loss, nil
}

// lost is the loss that stopped receiving, nil if there was none.
func (w *storeWatch) lost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
