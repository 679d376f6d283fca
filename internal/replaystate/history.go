package replaystate

import (
	"encoding/binary"
	"math"
	"slices"
)

// MaxLosses bounds the losses that a store remembers. Receivers that remember a memory
// from before the oldest of them stop, and an operator accepts once more.
const MaxLosses = 16

// Loss is a loss of memory that an operator has accepted.
type Loss struct {
	// At is when, by the store's clock.
	At int64
	// Lost is what was lost, as the operator named it. It has no birth.
	Lost Stamp
	// From is the memory that the store had until then, and To the ID that it has since.
	From Stamp
	To   [16]byte
}

// History says which memory a store has, and the accepted losses that led to it, the
// oldest first.
type History struct {
	Stamp  Stamp
	Losses []Loss
}

// Accepted returns the accepted loss by which the present memory took the place of s, which
// it had until then or which the operator named. It goes back over several losses. A change
// number that the store did not have any more at an acceptance is another loss, which the
// operator did not know of unless it was named.
func (h *History) Accepted(s Stamp) (Loss, bool) {
	if s.ID == h.Stamp.ID {
		return Loss{}, false
	}
	heirs := [][16]byte{h.Stamp.ID} // of which the present memory is the continuation
	for _, l := range slices.Backward(h.Losses) {
		switch {
		case !slices.Contains(heirs, l.To):
		case l.Lost.ID == s.ID || l.From.ID == s.ID && s.Change <= l.From.Change:
			return l, true
		default:
			heirs = append(heirs, l.Lost.ID, l.From.ID)
		}
	}
	return Loss{}, false
}

// Accept enters that the loss of a memory is accepted, unless it was. From then on the
// memory has another ID, id, so that every process notices; and it is born now, because it
// proves nothing of the time before: what it does not know may have been lost. If lost.Change
// is 0, it is not known, and only an operator that named the same ID has accepted that.
func (h *History) Accept(lost Stamp, id [16]byte, now int64) (l Loss, changed bool) {
	asked := lost
	if asked.Change == 0 {
		asked.Change = math.MaxUint64
	}
	if l, ok := h.Accepted(asked); ok {
		return l, false
	}
	l = Loss{At: now, Lost: Stamp{ID: lost.ID, Change: lost.Change}, From: h.Stamp, To: id}
	losses := append(slices.Clone(h.Losses), l)
	*h = History{
		Stamp:  Stamp{ID: id, Birth: max(h.Stamp.Birth, now), Change: h.Stamp.Change + 1},
		Losses: losses[max(0, len(losses)-MaxLosses):],
	}
	return l, true
}

// AppendLosses appends the encoding of losses.
func AppendLosses(b []byte, losses []Loss) []byte {
	b = append(b, lossesVersion)
	b = binary.AppendUvarint(b, uint64(len(losses)))
	for i := range losses {
		l := &losses[i]
		b = binary.AppendVarint(b, l.At)
		b = append(b, l.Lost.ID[:]...)
		b = binary.AppendUvarint(b, l.Lost.Change)
		b = append(b, l.From.ID[:]...)
		b = binary.AppendVarint(b, l.From.Birth)
		b = binary.AppendUvarint(b, l.From.Change)
		b = append(b, l.To[:]...)
	}
	return b
}

// DecodeLosses returns losses. An empty encoding has none.
func DecodeLosses(b []byte) ([]Loss, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := &reader{b: b}
	r.version(lossesVersion)
	n := r.count()
	if n > MaxLosses {
		return nil, ErrCorrupt
	}
	var losses []Loss
	for range n {
		l := Loss{At: r.int()}
		r.bytes(l.Lost.ID[:])
		l.Lost.Change = r.uint()
		r.bytes(l.From.ID[:])
		l.From.Birth, l.From.Change = r.int(), r.uint()
		r.bytes(l.To[:])
		losses = append(losses, l)
	}
	return losses, r.err()
}
