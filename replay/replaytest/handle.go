package replaytest

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// group is the group of all tests that need only one.
const group = "group"

// Times of the messages in the suite.
const (
	lease  = time.Minute
	window = 4 * time.Hour
	maxAge = 10 * time.Minute
	skew   = time.Minute
)

// stream returns a stream of a sender that was opened at a time; each call
// another.
func (t *trial) stream(sender string, opened time.Time) replay.Identity {
	t.streams++
	id := replay.Identity{Sender: sender, Sequence: 1}
	binary.BigEndian.PutUint64(id.Stream[:], uint64(opened.UnixMilli())<<16) //nolint:gosec // G115: after 1970
	id.Stream[15] = t.streams
	return id
}

// young returns a stream that was opened after the store, and moves the clock on
// until that is beyond doubt.
func (t *trial) young(sender string) replay.Identity {
	t.advance(2 * skew)
	return t.stream(sender, time.Now())
}

// at returns the message of a stream with that sequence, sealed now.
func at(id replay.Identity, sequence uint64) replay.Request {
	id.Sequence = sequence
	now := time.Now()
	r := replay.Request{
		ID: id, Token: replay.NewToken(), SealedAt: now, FreshUntil: now.Add(maxAge + skew), Now: now,
		RetryWindow: window, Lease: lease, MaxMessageAge: maxAge, MaxClockSkew: skew,
	}
	copy(r.Tag[:], id.Stream[12:])
	binary.BigEndian.PutUint32(r.Tag[4:], uint32(sequence)) //nolint:gosec // G115: small in tests
	return r
}

// again returns the request of another delivery of the same message.
func again(r replay.Request) replay.Request {
	r.Token, r.Now = replay.NewToken(), time.Now()
	return r
}

// handle is a store with its test.
type handle struct {
	t *trial
	s replay.Store
}

// begin claims messages, and fails the test unless each has the wanted answer.
func (h handle) begin(want error, r ...replay.Request) []replay.Claim {
	c, err := h.s.Begin(h.t.ctx, group, r)
	if err != nil {
		h.t.fatalf("Begin: %v", err)
	}
	if len(c) != len(r) {
		h.t.fatalf("Begin: %d answers to %d requests", len(c), len(r))
	}
	for i := range c {
		if !errors.Is(c[i].Err, want) {
			h.t.fatalf("Begin of sequence %d: %v, want %v", r[i].ID.Sequence, c[i].Err, want) //nolint:gosec // G602: one answer for each request was checked above
		}
		if want == nil && (c[i].FirstSeen.IsZero() || !c[i].BusyUntil.IsZero()) {
			h.t.errorf("Begin: %+v, want a time first seen and no other claim", c[i])
		}
		if want != nil && (c[i].Gap || !c[i].FirstSeen.IsZero()) {
			h.t.errorf("Begin: %+v beside an error", c[i])
		}
	}
	return c
}

func (h handle) finish(want error, kind replay.FinishKind, r ...replay.Request) {
	f := make([]replay.Finish, len(r))
	for i := range r {
		f[i] = replay.Finish{ID: r[i].ID, Token: r[i].Token, Kind: kind}
	}
	got, err := h.s.Finish(h.t.ctx, group, f)
	if err != nil || len(got) != len(r) {
		h.t.fatalf("Finish: %d answers, %v", len(got), err)
	}
	for i := range got {
		if !errors.Is(got[i].Err, want) {
			h.t.fatalf("Finish(%v) of sequence %d: %v, want %v", kind, r[i].ID.Sequence, got[i].Err, want) //nolint:gosec // G602: one answer for each request was checked above
		}
	}
}

// handled claims and consumes messages.
func (h handle) handled(r ...replay.Request) {
	h.begin(nil, r...)
	h.finish(nil, replay.Consumed, r...)
}

func (h handle) renew(want error, r replay.Request) {
	got, err := h.s.Renew(h.t.ctx, group, []replay.Lease{{ID: r.ID, Token: r.Token, Lease: lease}})
	if err != nil || len(got) != 1 {
		h.t.fatalf("Renew: %d answers, %v", len(got), err)
	}
	if !errors.Is(got[0].Err, want) {
		h.t.fatalf("Renew: %v, want %v", got[0].Err, want)
	}
}

func (h handle) look(want replay.State, r replay.Request) replay.Look {
	got, err := h.s.Look(h.t.ctx, group, []replay.Query{{ID: r.ID, SealedAt: r.SealedAt}})
	if err != nil || len(got) != 1 || got[0].Err != nil {
		h.t.fatalf("Look: %+v, %v", got, err)
	}
	if got[0].State != want {
		h.t.fatalf("Look at sequence %d: %v, want %v", r.ID.Sequence, got[0].State, want)
	}
	return got[0]
}

// note enters a note and fails the test unless it is new for so many sequences.
func (h handle) note(want uint64, kind replay.NoteKind, id replay.Identity, first, last uint64) {
	got, err := h.s.Note(h.t.ctx, group, []replay.Note{{Sender: id.Sender, Stream: id.Stream, Range: replay.Range{First: first, Last: last}, Kind: kind}})
	if err != nil || len(got) != 1 || got[0].Err != nil {
		h.t.fatalf("Note: %+v, %v", got, err)
	}
	if got[0].Fresh != want {
		h.t.errorf("Note of %d to %d: new for %d, want %d", first, last, got[0].Fresh, want)
	}
}

// account returns the account of a stream, nil if it is not held.
func (h handle) account(id replay.Identity) *replay.Stream {
	var found *replay.Stream
	for s, err := range h.s.Streams(h.t.ctx, group) {
		if err != nil {
			h.t.fatalf("Streams: %v", err)
		}
		if s.Sender == id.Sender && s.Stream == id.Stream {
			if found != nil {
				h.t.errorf("Streams: a stream twice")
			}
			found = &s
		}
	}
	return found
}

// missing fails the test unless exactly these sequences of a stream are missing.
func (h handle) missing(id replay.Identity, want ...uint64) *replay.Stream {
	a := h.account(id)
	if a == nil {
		h.t.fatalf("Streams: the stream is not there")
	}
	var got []uint64
	for _, m := range a.Missing {
		for n := m.Range.First; n <= m.Range.Last && len(got) < 10_000; n++ {
			got = append(got, n)
		}
	}
	same := len(got) == len(want)
	for i := 0; same && i < len(want); i++ {
		same = got[i] == want[i]
	}
	if !same {
		h.t.fatalf("Streams: missing %v, want %v (start %d, settled %d)", got, want, a.Start, a.Settled)
	}
	return a
}

func (h handle) stats() replay.Stats {
	s, err := h.s.Stats(h.t.ctx)
	if err != nil {
		h.t.fatalf("Stats: %v", err)
	}
	return s
}

// passLease lets the lease of a claim pass. A store without a clock has to observe
// it meanwhile.
func (h handle) passLease(r replay.Request) {
	if h.t.o.Observes {
		h.begin(replay.ErrBusy, again(r))
	}
	h.t.advance(lease + time.Second)
}

// passFolding lets so much time pass that tags are folded, and makes the calls that give
// the store occasion to do it: more of them on an unreliable store, where one may fail.
// It returns how many intervals the calls have left.
func (h handle) passFolding() (intervals int64) {
	calls := int64(3)
	if h.t.o.Unreliable {
		calls = 9
	}
	for range calls {
		h.t.advance(10 * time.Minute)
		h.handled(at(h.t.stream("clock", time.Now()), 1))
	}
	return calls - 1 // the last one is still recent
}
