package replay

import (
	"fmt"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// MaxLosses is how many accepted losses a store remembers.
const MaxLosses = replaystate.MaxLosses

// History says which memory a store has, and which losses led to it.
type History struct {
	Stamp Stamp
	// Losses were accepted by operators, the oldest first: at most MaxLosses.
	Losses []Loss
}

// Loss is a loss of memory that an operator accepted: see Store.AcceptLoss.
type Loss struct {
	// At is when it was accepted, by the store's clock.
	At time.Time
	// Lost is the memory that was lost, as the operator named it: its ID and, if it was
	// known, its change number. Birth is zero.
	Lost Stamp
	// From is the memory that the store had when the loss was accepted.
	From Stamp
	// To is the ID of the memory since.
	To [16]byte
}

// Accepts returns the accepted loss by which the present memory has taken the place of
// lost, also over several losses: of a memory that the operator named, or that the store had
// until then. The latter only up to the change number that it had: more than that is a
// further loss. Birth is not used.
func (h *History) Accepts(lost Stamp) (Loss, bool) {
	s := replaystate.History{Stamp: h.Stamp.state()}
	for i := range h.Losses {
		l := &h.Losses[i]
		s.Losses = append(s.Losses, replaystate.Loss{At: unix(l.At), Lost: l.Lost.state(), From: l.From.state(), To: l.To})
	}
	l, ok := s.Accepted(lost.state())
	if !ok {
		return Loss{}, false
	}
	return lossOf(&l), true
}

// String is the ID in hexadecimal and the change number: "ID:CHANGE".
func (s Stamp) String() string { return fmt.Sprintf("%x:%d", s.ID, s.Change) }

func (s Stamp) state() replaystate.Stamp {
	return replaystate.Stamp{ID: s.ID, Birth: unix(s.Birth), Change: s.Change}
}

func lossOf(l *replaystate.Loss) Loss {
	return Loss{At: at(l.At), Lost: stampOf(l.Lost), From: stampOf(l.From), To: l.To}
}
