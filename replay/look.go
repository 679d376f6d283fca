package replay

import (
	"fmt"
	"time"
)

// State is what a store knows of a message.
type State uint8

const (
	// StateUnknown means that the store holds nothing of the message and can prove
	// nothing about it.
	StateUnknown State = iota
	// StateUnused means that the message was provably never consumed: the store
	// holds its stream back to the message, and the message is not in it.
	StateUnused
	// StateClaimed means that a claim was granted and not finished. Look.LeaseUntil says
	// when its lease ends or ended.
	StateClaimed
	// StateReleased means that the message was given back.
	StateReleased
	// StateParked means that the message was given back by dead-lettering.
	StateParked
	// StateConsumed means that the message was handled.
	StateConsumed
)

// String returns the name of the state in lower case.
func (s State) String() string {
	names := [...]string{"unknown", "unused", "claimed", "released", "parked", "consumed"}
	if int(s) >= len(names) {
		return fmt.Sprintf("state %d", uint8(s))
	}
	return names[s]
}

// Query asks what is known of a message that was authenticated.
type Query struct {
	ID Identity
	// SealedAt is the later of the envelope's encrypted_at and not_before:
	// without it nothing can be proven unused. Zero is StateUnknown in place of
	// StateUnused.
	SealedAt time.Time
}

// Look answers a Query.
type Look struct {
	// Err is nil or ErrInvalid.
	Err   error
	State State
	// FirstSeen is when the message was first claimed, by the receiver's clock:
	// StateClaimed, StateReleased and StateParked.
	FirstSeen time.Time
	// LeaseUntil is when the lease ends or ended: StateClaimed.
	LeaseUntil time.Time
	Stamp      Stamp
}

// Resealable reports whether a message in this state may be resealed at now: it is
// known or provably unused, not consumed, and no claim is live.
func (l *Look) Resealable(now time.Time) bool {
	switch l.State {
	case StateUnused, StateReleased, StateParked:
		return l.Err == nil
	case StateClaimed:
		return l.Err == nil && now.After(l.LeaseUntil)
	}
	return false
}
