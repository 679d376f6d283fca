package replay

import (
	"fmt"
	"time"
)

// NoteKind is what a [Note] says.
type NoteKind uint8

const (
	// NoteLate says that the sequences were reported as late.
	NoteLate NoteKind = iota + 1
	// NoteMissing says that the sequences were reported as missing.
	NoteMissing
	// NoteAccepted says that the sequences count as seen from now on, because an
	// operator accepted them, a command took them, or the message was rejected
	// after authentication. They can still be claimed.
	NoteAccepted
)

// Note enters something about a range of sequences of a stream that is held. A
// stream that is not held stays so.
type Note struct {
	Sender string
	Stream [16]byte
	Range  Range
	Kind   NoteKind
}

// Noted answers a Note.
type Noted struct {
	// Err is nil or ErrInvalid.
	Err error
	// Fresh is for how many sequences the note says something new. Of several
	// receivers that report the same, one gets a number above zero. 0 beside an Err.
	Fresh uint64
	Stamp Stamp
}

// Stream is a stream that is held, with its account.
type Stream struct {
	Sender string
	Stream [16]byte
	// Opened is when the sender opened the stream, by its clock.
	Opened time.Time
	// Start is the first sequence that is accounted for, Settled the last.
	Start, Settled uint64
	// NewestSealedAt is the newest of the consumed messages, and of the first
	// message of the stream.
	NewestSealedAt time.Time
	// Consumed counts the sequences that are remembered as consumed.
	Consumed uint64
	// Missing are the sequences from Start to Settled that are neither void nor
	// seen nor accepted, ascending. Seen is consumed, parked, rejected after
	// authentication, or under a live claim. There may be some below Start, near
	// messages that were released or claimed and not finished.
	Missing []Missing
	// MissingForgotten counts missing sequences below Start, which are not
	// listed any more because the intervals around them were forgotten. A NoteAccepted
	// of 1 to Start - 1 at least settles them, and nothing else below Start.
	MissingForgotten uint64
	// Implausible: more than 1,000,000 sequences are missing. Missing is empty
	// then.
	Implausible bool
}

// Missing is a run of sequences that are missing.
type Missing struct {
	Range Range
	// Since is when the first message arrived that settles them, or when a claim
	// of the message was released or its lease ended, whichever is later, by the
	// store's clock. It may be late by a second.
	Since time.Time
	// ReportedLate and ReportedMissing: a Note said so.
	ReportedLate, ReportedMissing bool
}

// Stats says what a store holds.
type Stats struct {
	Stamp Stamp
	// Records are the messages that are claimed, released or parked; Recent
	// those consumed recently, whose tags are kept.
	Records, Recent int64
	// Intervals and Streams are as in the package comment.
	Intervals, Streams int64
	// Bytes is about what the store takes of memory or disk.
	Bytes int64
	// Capacity is what it may hold.
	Capacity Bounds
	// Shared: several processes can use the store at once.
	Shared bool
	// Durable: what was consumed outlasts the process.
	Durable bool
}

// Full returns how much of the tightest bound is used, 0 to 1, as if one group held it
// all: at the bound of a group Begin answers ErrFull although the store has room left.
func (s *Stats) Full() float64 {
	full := 0.0
	store, group := &s.Capacity.Store, &s.Capacity.Group
	for _, u := range [...]struct {
		n             int64
		bound, groups int
	}{{s.Records, store.Records, group.Records}, {s.Streams, store.Streams, group.Streams}, {s.Intervals, store.Intervals, group.Intervals}} {
		if u.groups > 0 && u.groups < u.bound {
			u.bound = u.groups
		}
		if u.bound > 0 {
			full = max(full, float64(u.n)/float64(u.bound))
		}
	}
	return min(full, 1)
}

func (n *Note) validate() error {
	switch {
	case n.Kind < NoteLate || n.Kind > NoteAccepted:
		return fmt.Errorf("%w: note kind %d: use NoteLate, NoteMissing or NoteAccepted", ErrInvalid, n.Kind)
	case n.Range.First < 1 || n.Range.First > n.Range.Last || n.Range.Last > MaxSequence:
		return fmt.Errorf("%w: range %d to %d: use 1 to %d, ascending", ErrInvalid, n.Range.First, n.Range.Last, uint64(MaxSequence))
	}
	id := Identity{Sender: n.Sender, Stream: n.Stream, Sequence: n.Range.First}
	return id.validate()
}
