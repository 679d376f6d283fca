package deadletter

import (
	"context"
	"errors"
	"fmt"
)

// This file bounds a read by the letters that there were when it began, and finds out at
// its end whether all of them were reached.

// maxRead bounds the letters of one call, whatever the broker says about their number: a
// broker could invent letters without end, and a read by receiving remembers each (about
// 300 bytes).
const maxRead = 1 << 20

// ErrIncomplete is the error of a call that ended before it had reached every letter:
// others hold some of them, or they came round again faster than they could be read.
// Repeat the call. [IncompleteError] says how many are left.
var ErrIncomplete = errors.New("not every dead letter was reached")

// IncompleteError is an [ErrIncomplete].
type IncompleteError struct {
	Reached int   // letters that the call looked at, selected or not
	Left    int64 // letters that it did not look at, by the broker's count; -1 if unknown
	end     ending
}

func (e *IncompleteError) Error() string {
	left := "an unknown number is left"
	if e.Left >= 0 {
		left = fmt.Sprintf("%d are left", e.Left)
	}
	why := "other receivers hold them: repeat this when their locks are over"
	switch e.end {
	case repeated:
		why = "the others came round again first: repeat this, or lengthen the lock of the dead-letter queue"
	case bounded:
		why = "repeat this for the rest"
	case behind:
		why = "letters of a session come one after the other here, and those that were passed over hold up the rest: select a whole session, or all"
	case drained:
	}
	return fmt.Sprintf("%v: %d were looked at and %s; %s", ErrIncomplete, e.Reached, left, why)
}

// Is reports whether target is ErrIncomplete.
func (e *IncompleteError) Is(target error) bool { return target == ErrIncomplete }

// letterCount is how many letters a queue has, by the broker's word.
type letterCount struct {
	n           int64 // -1: unknown
	approximate bool
}

// count asks for the number of letters. A broker that does not tell leaves it unknown.
func (q *Queue) count(ctx context.Context) (letterCount, error) {
	s, err := q.dead.Stats(ctx)
	switch {
	case ctx.Err() != nil:
		return letterCount{n: -1}, ctx.Err()
	case err != nil, s.Ready < 0:
		return letterCount{n: -1}, nil // counting is a help, and needs rights that reading does not
	}
	return letterCount{n: s.Ready + max(s.InFlight, 0) + max(s.Scheduled, 0), approximate: s.Approximate}, nil
}

// bound is how many letters a read that begins at this count looks at.
func (c letterCount) bound() int {
	switch {
	case c.n < 0:
		return maxRead
	case c.approximate:
		// The counts of a distributed queue lag by up to a minute: an estimate that is too
		// low must not end the read.
		return int(min(2*min(c.n, maxRead)+1000, maxRead))
	}
	return int(min(c.n, maxRead))
}

// ending is how a read came to its end.
type ending uint8

const (
	drained  ending = iota // the broker had nothing more to give
	repeated               // what was seen came again, and nothing else
	bounded                // as many letters were looked at as there were at the beginning
	behind                 // what is left stands behind letters that the read holds
)

// remainder is what is known of a read at its end.
type remainder struct {
	end     ending
	begun   letterCount // at the beginning
	now     letterCount // at the end
	reached int         // letters of the beginning that were looked at
	kept    int         // letters that the read itself still holds
	ordered bool        // a letter is received only if no earlier one of its session is held
}

// left is how many letters the read did not reach; -1 if some are left and their number is
// unknown.
func (r *remainder) left() int64 {
	if r.begun.n < 0 {
		if r.end == drained {
			return 0
		}
		return -1
	}
	missed := r.begun.n - int64(r.reached)
	switch {
	case missed <= 0 && (r.end == drained || !r.begun.approximate):
		return 0
	case r.now.n < 0:
		return -1
	case r.end == bounded && !r.begun.approximate:
		return missed // it met more letters than there can be, or more than one call reads
	case !r.begun.approximate:
		// Letters that were taken away meanwhile are not left; those that came do not count.
		return max(0, min(missed, r.now.n-int64(r.kept)))
	}
	return max(0, r.now.n-int64(r.kept))
}

// err is the error of the read: nil if it reached every letter.
func (r *remainder) err() error {
	left := r.left()
	if left == 0 {
		return nil
	}
	end := r.end
	if end == drained && r.ordered && r.kept > 0 {
		end = behind
	}
	return &IncompleteError{Reached: r.reached, Left: left, end: end}
}
