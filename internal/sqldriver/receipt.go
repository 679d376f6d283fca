package sqldriver

import (
	"crypto/rand"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// tokenSize is more than can be guessed, in bytes.
const tokenSize = 16

// NewToken returns what locks one message, or all that one call takes.
func NewToken() []byte {
	b := make([]byte, tokenSize)
	_, _ = rand.Read(b) // never fails: it ends the process instead
	return b
}

// Receipt is a driver's handle of one delivery.
type Receipt struct {
	Seq     int64
	Token   [tokenSize]byte // of its lock, or of the session's
	Session string          // of the message; empty if none waits for it to be settled

	holder *Holder
	until  atomic.Int64 // end of its own lock, see SetUntil; 0 in a session
	state  atomic.Uint32
}

// The states of a receipt. The call that moves it out of open settles it.
const (
	open uint32 = iota
	settling
	settled
)

// begun is from when the ends of locks are counted: by the monotonic clock, which nothing sets.
var begun = time.Now()

// SetUntil says when the message's own lock ends.
func (r *Receipt) SetUntil(t time.Time) { r.until.Store(int64(t.Sub(begun))) }

// End notes what became of a settlement that Begin let pass: it failed with err, or else it was
// done unless the lock was over. It returns the error for the caller.
func (r *Receipt) End(done bool, err error) error {
	switch {
	case err != nil:
		r.state.Store(open)
		return err
	case !done:
		r.state.Store(open)
		r.holder.forget(r)
		return &driver.Error{Kind: driver.LockLost}
	}
	r.state.Store(settled)
	r.holder.forget(r)
	return nil
}
