package sqlitereplay

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// handle notices that the file has lost calls that were confirmed to this process, as after
// a backup was restored into it. The change number shows that only until others have called
// as often as was lost. So the file has, among its counters, the change number of the last
// call of each open store, and it is never lower than what was confirmed to that store.
type handle struct {
	id int64 // of its row, below 0: other counters count up from 1

	mu        sync.Mutex // guards what follows
	confirmed replaystate.Stamp
	stored    bool // it may have a row
}

func newHandle() *handle {
	var b [8]byte
	_, _ = rand.Read(b[:])                                           // never fails: it ends the process instead
	return &handle{id: -1 - int64(binary.BigEndian.Uint64(b[:])>>2)} //nolint:gosec // G115: 62 bits
}

// confirm notes the answer of a call that wrote. Answers overtake each other.
func (h *handle) confirm(s replaystate.Stamp) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.confirmed.ID != s.ID || h.confirmed.Change < s.Change {
		h.confirmed = s
	}
}

// check gives the memory another ID and another birth if it has not got what was confirmed,
// so that the receivers of all processes notice. If it has another ID already, they do.
func (l *call) check() {
	h := l.e.handle
	h.mu.Lock()
	was := h.confirmed
	h.mu.Unlock()
	if l.err != nil || was.Change == 0 || was.ID != l.cache.stamp.ID {
		return
	}
	last, err := l.c.Int(selectHandle, h.id)
	if l.fail(err) || uint64(last) >= was.Change { //nolint:gosec // G115: counts up from 0
		return
	}
	s := &l.cache.stamp
	_, _ = rand.Read(s.ID[:]) // never fails: it ends the process instead
	s.Birth = max(s.Birth, l.e.now())
	l.exec(updateMemory, s.ID[:], s.Birth)
}

// maxHandles bounds the rows of stores that were not closed, to a MiB or so. A store whose row
// goes would take its memory for lost, so there are more of them than of crashes in a week.
const maxHandles = 1 << 16

// saveHandle enters the change number of this call.
func (l *call) saveHandle() {
	h := l.e.handle
	h.mu.Lock()
	stored := h.stored
	h.stored = true
	h.mu.Unlock()
	if !stored {
		l.exec(pruneHandles, int64(maxHandles))
	}
	l.exec(saveHandle, h.id, int64(l.cache.stamp.Change)) //nolint:gosec // G115: counts up from 0
}

// closeTimeout bounds how long Close waits for others that write. A row that stays does no harm.
const closeTimeout = time.Second

// leave removes the row.
func (e *engine) leave(ctx context.Context) {
	e.handle.mu.Lock()
	stored := e.handle.stored
	e.handle.stored = false
	e.handle.mu.Unlock()
	if !stored {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	_ = e.file.WriteUnsynced(ctx, func(c *sqlitefile.Conn) error {
		_, err := c.Exec(deleteHandle, e.handle.id)
		return err
	})
}
