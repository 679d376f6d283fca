package replay

import (
	"fmt"
	"time"
)

// Request asks to claim a message that was authenticated.
type Request struct {
	// ID is the message's.
	ID Identity
	// Token owns the claim if it is granted. The same token again gives the
	// same claim again.
	Token Token
	// Tag is the first 8 bytes of the envelope's authentication tag.
	Tag [8]byte
	// Resealed: the envelope has a resealed_at. Its tag is not compared.
	Resealed bool
	// SealedAt is the later of the envelope's encrypted_at and not_before.
	// Required.
	SealedAt time.Time
	// FreshUntil is when the message stops being fresh, by the receiver's
	// clock; Now is that clock. Both required. An unknown message is claimed
	// only while Now is not after FreshUntil.
	FreshUntil, Now time.Time
	// RetryWindow bounds the redelivery of a message that was claimed while it
	// was fresh, counted from the first claim by the receiver's clock. A
	// record of a claimed or released message is kept for as long. Above zero.
	RetryWindow time.Duration
	// Lease is how long the claim lives without Renew, by the store's clock.
	// Above zero; at most the broker's lock, so that a claim does not outlast
	// the delivery it belongs to.
	Lease time.Duration
	// MaxMessageAge and MaxClockSkew are the receiver's. The store keeps
	// streams for the largest MaxMessageAge + 3 x MaxClockSkew that its group
	// ever asked for, at least. MaxMessageAge above zero, MaxClockSkew not
	// below it.
	MaxMessageAge, MaxClockSkew time.Duration
	// Settled, Previous and Void are the envelope's: zero if it has none.
	Settled, Previous uint64
	Void              []Range
}

// Claim answers a Request.
type Claim struct {
	// Err is nil if the claim is granted; otherwise ErrDuplicate, ErrReused,
	// ErrCollision, ErrBusy, ErrNotFresh, ErrFull, ErrQuota or ErrInvalid.
	Err error
	// FirstSeen is when the message was first claimed, by the receiver's clock
	// (Request.Now of that call). Only of a granted claim.
	FirstSeen time.Time
	// Gap: the message before this one in its session and stream was not seen
	// yet. Only of a granted claim.
	Gap bool
	// BusyUntil is when the other claim ends unless it is renewed, by this
	// process's clock as far as the store can tell. Only with ErrBusy.
	BusyUntil time.Time
	Stamp     Stamp
}

// Lease extends a claim.
type Lease struct {
	ID    Identity
	Token Token
	// Lease is how long the claim lives from now on. Above zero.
	Lease time.Duration
}

// Renewed answers a Lease.
type Renewed struct {
	// Err is nil, ErrClaimLost, ErrHandled or ErrInvalid.
	Err   error
	Stamp Stamp
}

// FinishKind is what a claim ends as.
type FinishKind uint8

const (
	// Consumed means that the message was handled. It is never granted again.
	Consumed FinishKind = iota + 1
	// Released means that the message was given back; the next Begin is granted.
	Released
	// Parked means that the message was given back by dead-lettering, before it is
	// moved. It is like Released, kept for ParkedTTL, and final for the accounting.
	Parked
)

// Finish ends a claim.
type Finish struct {
	ID    Identity
	Token Token
	Kind  FinishKind
}

// Finished answers a Finish.
type Finished struct {
	// Err is nil if the claim ended so, now or in an earlier call with the same
	// token; otherwise ErrHandled, ErrClaimLost or ErrInvalid.
	Err   error
	Stamp Stamp
}

// validate says what breaks the bounds of an identity.
func (id *Identity) validate() error {
	switch {
	case len(id.Sender) > MaxSender:
		return fmt.Errorf("%w: a sender ID of %d bytes: use at most %d", ErrInvalid, len(id.Sender), MaxSender)
	case id.Stream == [16]byte{}:
		return fmt.Errorf("%w: no stream: a message of direct use has no identity", ErrInvalid)
	case id.Sequence < 1 || id.Sequence > MaxSequence:
		return fmt.Errorf("%w: sequence %d: use 1 to %d", ErrInvalid, id.Sequence, uint64(MaxSequence))
	}
	return nil
}

func validateClaim(id *Identity, t Token) error {
	if t == (Token{}) {
		return fmt.Errorf("%w: no token: draw one with NewToken", ErrInvalid)
	}
	return id.validate()
}

// Validate says what in the request breaks its bounds; nil if nothing does. Stores
// call it.
func (r *Request) Validate() error {
	if err := validateClaim(&r.ID, r.Token); err != nil {
		return err
	}
	switch {
	case r.SealedAt.IsZero() || r.FreshUntil.IsZero() || r.Now.IsZero():
		return fmt.Errorf("%w: SealedAt, FreshUntil and Now are required", ErrInvalid)
	case r.RetryWindow <= 0 || r.Lease <= 0 || r.MaxMessageAge <= 0 || r.MaxClockSkew < 0:
		return fmt.Errorf("%w: RetryWindow %v, Lease %v, MaxMessageAge %v, MaxClockSkew %v: use times above zero, a skew of at least zero",
			ErrInvalid, r.RetryWindow, r.Lease, r.MaxMessageAge, r.MaxClockSkew)
	case r.Settled >= r.ID.Sequence || r.Previous >= r.ID.Sequence:
		return fmt.Errorf("%w: settled %d and previous %d of sequence %d: both must be below it", ErrInvalid, r.Settled, r.Previous, r.ID.Sequence)
	case len(r.Void) > MaxVoid:
		return fmt.Errorf("%w: %d void ranges: use at most %d", ErrInvalid, len(r.Void), MaxVoid)
	}
	for _, v := range r.Void {
		if v.First < 1 || v.First > v.Last || v.Last > r.Settled {
			return fmt.Errorf("%w: void range %d to %d with settled %d", ErrInvalid, v.First, v.Last, r.Settled)
		}
	}
	return nil
}

func (l *Lease) validate() error {
	if l.Lease <= 0 {
		return fmt.Errorf("%w: a lease of %v: use one above zero", ErrInvalid, l.Lease)
	}
	return validateClaim(&l.ID, l.Token)
}

func (f *Finish) validate() error {
	if f.Kind < Consumed || f.Kind > Parked {
		return fmt.Errorf("%w: kind %d: use Consumed, Released or Parked", ErrInvalid, f.Kind)
	}
	return validateClaim(&f.ID, f.Token)
}
