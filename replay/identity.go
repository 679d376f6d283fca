package replay

import (
	"crypto/rand"
	"time"
)

// Bounds of what a call may carry.
const (
	// MaxGroup bounds a group in bytes.
	MaxGroup = 255
	// MaxSender bounds a sender ID in bytes (qre1, Section 2.3).
	MaxSender = 64
	// MaxSequence is the largest sequence of a stream (qre1, Section 2.6).
	MaxSequence = 1<<53 - 1
	// MaxVoid bounds the void ranges of a message (qre1, Section 2.7).
	MaxVoid = 8
	// MaxBatch bounds the items of a call.
	MaxBatch = 4096
)

// Identity names a message for ever.
type Identity struct {
	// Sender is the authentic sender ID, 0 to MaxSender bytes.
	Sender string
	// Stream is the sender's stream: 48 bits of opening time in Unix
	// milliseconds, then 10 random bytes. All zeros is direct use, which no
	// store takes.
	Stream [16]byte
	// Sequence is the number of the message in its stream, 1 to MaxSequence.
	Sequence uint64
}

// Range is the sequences from First to Last, both included.
type Range struct{ First, Last uint64 }

// Token owns a claim: 128 random bits, drawn by the caller for each message and
// delivery. All zeros is refused.
type Token [16]byte

// NewToken draws a token.
func NewToken() (t Token) {
	_, _ = rand.Read(t[:]) // never fails: it ends the process instead
	return t
}

// String keeps a token out of logs.
func (t Token) String() string { return "replay.Token" }

// Stamp says which memory answered.
type Stamp struct {
	// ID is drawn when the store is made; all zeros in the result of an invalid
	// item.
	ID [16]byte
	// Birth is when the store was made.
	Birth time.Time
	// Change grows with what is written. A number lower than one that was seen
	// before the call means that the store lost writes.
	Change uint64
}
