package replaystate

// Key names a stream of a group.
type Key struct {
	Sender string
	Stream [16]byte
}

// Opened is when the stream was opened by its sender's clock: the first 48 bits
// of the stream (qre1, Section 2.6).
func (k Key) Opened() int64 {
	var t int64
	for _, b := range k.Stream[:6] {
		t = t<<8 | int64(b)
	}
	return t
}

// Request asks to claim the sequence of a stream.
type Request struct {
	Key      Key
	Sequence uint64
	Token    [16]byte
	Tag      [8]byte
	// Resealed: the tag is not the first of this identity.
	Resealed bool
	SealedAt int64
	// FreshUntil and Now are by the receiver's clock.
	FreshUntil, Now int64
	RetryWindow     int64
	Lease           int64
	// Reach is the largest age at which the receiver takes a message for fresh,
	// plus three times its clock skew; Skew is that skew.
	Reach, Skew int64
	// Settled, Previous and Void are as the envelope has them.
	Settled, Previous uint64
	Void              []Range
}

// Outcome is the answer to one item of a call. The zero value is none.
type Outcome uint8

const (
	// Done: the claim is granted, extended or finished.
	Done Outcome = iota + 1
	// Duplicate: consumed recently, and this copy says nothing new.
	Duplicate
	// Reused: consumed, too long ago to compare tags.
	Reused
	// Collision: the identity is known with another tag.
	Collision
	// Busy: another claim is live.
	Busy
	// NotFresh: unknown, and too old for its freshness or its mark.
	NotFresh
	// Full: the store or the group has no room.
	Full
	// Quota: the sender has used up its own room.
	Quota
	// Handled: the sequence is consumed, not by this token or too long ago to tell.
	Handled
	// Lost: the token does not own the claim.
	Lost
)

// Claim answers a Request.
type Claim struct {
	Outcome Outcome
	// FirstSeen is the receiver's clock at the first claim; only with Done.
	FirstSeen int64
	// Until is when the live claim of another ends; only with Busy.
	Until int64
	// Gap: Previous was not seen yet; only with Done.
	Gap bool

	repeated bool // the token owned the claim before
}

// Kind is what a claim ends as.
type Kind uint8

// The kinds of Finish.
const (
	Consume Kind = iota + 1
	Release
	Park
)

// Finish ends a claim.
type Finish struct {
	Key      Key
	Sequence uint64
	Token    [16]byte
	Kind     Kind
}

// Lease extends a claim.
type Lease struct {
	Key      Key
	Sequence uint64
	Token    [16]byte
	Lease    int64
}

// State is what is known of an identity.
type State uint8

// The states that Look tells apart.
const (
	Unknown State = iota
	Unused
	Claimed
	Released
	Parked
	Consumed
)

// Query asks for the state of an identity.
type Query struct {
	Key      Key
	Sequence uint64
	SealedAt int64
}

// Look answers a Query. Times are 0 unless the state has them.
type Look struct {
	State     State
	FirstSeen int64 // by a receiver's clock: Claimed, Released, Parked
	Until     int64 // end of the lease: Claimed
}

// NoteKind is what is entered about a range of sequences.
type NoteKind uint8

// The kinds of Note.
const (
	// NoteLate and NoteMissing: reported as such.
	NoteLate NoteKind = iota + 1
	NoteMissing
	// NoteAccepted: counts as seen from now on, by an operator's decision or
	// because the message was rejected after authentication. See Enter.
	NoteAccepted
)

// Note enters something about a range of sequences.
type Note struct {
	Key   Key
	Range Range
	Kind  NoteKind
}
