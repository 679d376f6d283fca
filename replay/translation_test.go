package replay_test

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/replay"
)

// echo is an engine that keeps what it is asked, and answers each outcome in turn.
type echo struct {
	replaystate.Engine
	begun   []replaystate.Request
	renewed []replaystate.Lease
	ended   []replaystate.Finish
	looked  []replaystate.Query
	noted   []replaystate.Note
	entries []replaystate.Entry
	outcome replaystate.Outcome
}

var echoStamp = replaystate.Stamp{ID: [16]byte{9}, Birth: 5000, Change: 7}

func (e *echo) Begin(_ context.Context, _ string, r []replaystate.Request) ([]replaystate.Claim, replaystate.Stamp, error) {
	e.begun = r
	out := make([]replaystate.Claim, len(r))
	for i := range out {
		out[i] = replaystate.Claim{Outcome: replaystate.Outcome(r[i].Sequence), FirstSeen: 1000, Until: 2000, Gap: true} //nolint:gosec // G115: small
	}
	return out, echoStamp, nil
}

func (e *echo) Renew(_ context.Context, _ string, l []replaystate.Lease) ([]replaystate.Outcome, replaystate.Stamp, error) {
	e.renewed = l
	return slices.Repeat([]replaystate.Outcome{replaystate.Handled}, len(l)), echoStamp, nil
}

func (e *echo) Finish(_ context.Context, _ string, f []replaystate.Finish) ([]replaystate.Outcome, replaystate.Stamp, error) {
	e.ended = f
	return slices.Repeat([]replaystate.Outcome{replaystate.Lost}, len(f)), echoStamp, nil
}

func (e *echo) Look(_ context.Context, _ string, q []replaystate.Query) ([]replaystate.Look, replaystate.Stamp, error) {
	e.looked = q
	return slices.Repeat([]replaystate.Look{{State: replaystate.Claimed, FirstSeen: 1000, Until: 0}}, len(q)), echoStamp, nil
}

func (e *echo) Note(_ context.Context, _ string, n []replaystate.Note) ([]uint64, replaystate.Stamp, error) {
	e.noted = n
	return slices.Repeat([]uint64{3}, len(n)), echoStamp, nil
}

func (e *echo) Streams(context.Context, string) iter.Seq2[replaystate.Entry, error] {
	return func(yield func(replaystate.Entry, error) bool) {
		for _, x := range e.entries {
			if !yield(x, nil) {
				return
			}
		}
	}
}

func (e *echo) Probe(context.Context, string) (replaystate.Outcome, error) { return e.outcome, nil }

// validRequest is a request with a value of its own in each field.
func validRequest() replay.Request {
	ms := time.UnixMilli
	return replay.Request{
		ID: replay.Identity{Sender: "bot", Stream: [16]byte{1}, Sequence: 9}, Token: replay.Token{2}, Tag: [8]byte{3}, Resealed: true,
		SealedAt: ms(100), FreshUntil: ms(200), Now: ms(150), RetryWindow: time.Second, Lease: 1500 * time.Microsecond,
		MaxMessageAge: 10 * time.Millisecond, MaxClockSkew: 2 * time.Millisecond,
		Settled: 8, Previous: 7, Void: []replay.Range{{First: 1, Last: 1}, {First: 3, Last: 8}},
	}
}

// TestEngineIsAskedInItsTerms: milliseconds are rounded up, and all else is as it is.
func TestEngineIsAskedInItsTerms(t *testing.T) {
	e := &echo{}
	s := replay.FromEngine(e)
	stamp := replay.Stamp{ID: [16]byte{9}, Birth: time.UnixMilli(5000), Change: 7}
	r := validRequest()
	claims, err := s.Begin(t.Context(), "g", []replay.Request{r})
	key := replaystate.Key{Sender: "bot", Stream: [16]byte{1}}
	want := replaystate.Request{
		Key: key, Sequence: 9, Token: [16]byte{2}, Tag: [8]byte{3}, Resealed: true, SealedAt: 100, FreshUntil: 200, Now: 150,
		RetryWindow: 1000, Lease: 2, Reach: 16, Skew: 2, Settled: 8, Previous: 7, Void: []replaystate.Range{{First: 1, Last: 1}, {First: 3, Last: 8}},
	}
	if err != nil || !reflect.DeepEqual(e.begun, []replaystate.Request{want}) {
		t.Errorf("asked %+v, %v; want %+v", e.begun, err, want)
	}
	if c := claims[0]; !errors.Is(c.Err, replay.ErrHandled) || !c.FirstSeen.Equal(time.UnixMilli(1000)) || !c.BusyUntil.Equal(time.UnixMilli(2000)) || !c.Gap || c.Stamp != stamp {
		t.Errorf("claim %+v, want ErrHandled with every field", c)
	}
	leases, err := s.Renew(t.Context(), "g", []replay.Lease{{ID: r.ID, Token: r.Token, Lease: 3 * time.Millisecond}})
	if err != nil || !reflect.DeepEqual(e.renewed, []replaystate.Lease{{Key: key, Sequence: 9, Token: [16]byte{2}, Lease: 3}}) || !errors.Is(leases[0].Err, replay.ErrHandled) || leases[0].Stamp != stamp {
		t.Errorf("asked %+v: %+v, %v", e.renewed, leases, err)
	}
	ends, err := s.Finish(t.Context(), "g", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: replay.Parked}})
	if err != nil || !reflect.DeepEqual(e.ended, []replaystate.Finish{{Key: key, Sequence: 9, Token: [16]byte{2}, Kind: replaystate.Park}}) || !errors.Is(ends[0].Err, replay.ErrClaimLost) || ends[0].Stamp != stamp {
		t.Errorf("asked %+v: %+v, %v", e.ended, ends, err)
	}
	looks, err := s.Look(t.Context(), "g", []replay.Query{{ID: r.ID, SealedAt: time.UnixMilli(100)}, {ID: r.ID}})
	if err != nil || !reflect.DeepEqual(e.looked, []replaystate.Query{{Key: key, Sequence: 9, SealedAt: 100}, {Key: key, Sequence: 9}}) ||
		looks[0].State != replay.StateClaimed || !looks[0].FirstSeen.Equal(time.UnixMilli(1000)) || !looks[0].LeaseUntil.IsZero() || looks[0].Stamp != stamp {
		t.Errorf("asked %+v: %+v, %v", e.looked, looks, err)
	}
	notes, err := s.Note(t.Context(), "g", []replay.Note{{Sender: "bot", Stream: [16]byte{1}, Range: replay.Range{First: 2, Last: 4}, Kind: replay.NoteAccepted}})
	if err != nil || !reflect.DeepEqual(e.noted, []replaystate.Note{{Key: key, Range: replaystate.Range{First: 2, Last: 4}, Kind: replaystate.NoteAccepted}}) || notes[0].Fresh != 3 || notes[0].Stamp != stamp {
		t.Errorf("asked %+v: %+v, %v", e.noted, notes, err)
	}
}

// TestEachOutcomeHasItsError: and what an engine must not answer counts as a lost claim.
func TestEachOutcomeHasItsError(t *testing.T) {
	e := &echo{}
	s := replay.FromEngine(e)
	for o, want := range map[replaystate.Outcome]error{
		replaystate.Done: nil, replaystate.Duplicate: replay.ErrDuplicate, replaystate.Reused: replay.ErrReused, replaystate.Collision: replay.ErrCollision,
		replaystate.Busy: replay.ErrBusy, replaystate.NotFresh: replay.ErrNotFresh, replaystate.Full: replay.ErrFull, replaystate.Quota: replay.ErrQuota,
		replaystate.Handled: replay.ErrHandled, replaystate.Lost: replay.ErrClaimLost, 0: replay.ErrClaimLost,
	} {
		if e.outcome = o; !errors.Is(s.Probe(t.Context(), "g"), want) {
			t.Errorf("outcome %d: %v, want %v", o, s.Probe(t.Context(), "g"), want)
		}
	}
}

// TestCallsAtTheirBounds: a batch of MaxBatch, a group of MaxGroup bytes, and items that are
// refused among others.
func TestCallsAtTheirBounds(t *testing.T) {
	e := &echo{}
	s := replay.FromEngine(e)
	r := validRequest()
	r.Settled, r.Previous, r.Void = 0, 0, nil
	longest := strings.Repeat("g", replay.MaxGroup)
	if _, err := s.Begin(t.Context(), longest, slices.Repeat([]replay.Request{r}, replay.MaxBatch)); err != nil || len(e.begun) != replay.MaxBatch {
		t.Errorf("a call at its bounds: %d items, %v", len(e.begun), err)
	}
	var mixed []replay.Request
	for n := range 6 {
		r := r
		if r.ID.Sequence = uint64(n + 1); n%2 == 0 { //nolint:gosec // G115: small
			r.Lease = 0
		}
		mixed = append(mixed, r)
	}
	claims, err := s.Begin(t.Context(), "g", mixed)
	if err != nil || len(claims) != 6 || len(e.begun) != 3 {
		t.Fatalf("%d claims of %d items, %v", len(claims), len(e.begun), err)
	}
	for n, c := range claims {
		want := map[int]error{1: replay.ErrDuplicate, 3: replay.ErrCollision, 5: replay.ErrNotFresh}[n]
		if n%2 == 0 {
			want = replay.ErrInvalid
		}
		if !errors.Is(c.Err, want) {
			t.Errorf("item %d: %v, want %v", n, c.Err, want)
		}
	}
	mixed = append([]replay.Request{mixed[1], mixed[3]}, mixed...) // the first that is refused is the third
	claims, err = s.Begin(t.Context(), "g", mixed)
	if err != nil || len(claims) != 8 || !errors.Is(claims[0].Err, replay.ErrDuplicate) || !errors.Is(claims[1].Err, replay.ErrCollision) ||
		!errors.Is(claims[2].Err, replay.ErrInvalid) || !errors.Is(claims[7].Err, replay.ErrNotFresh) {
		t.Errorf("two before the first that is refused: %+v, %v", claims, err)
	}
	mixed = mixed[2:]
	e.begun = nil
	if claims, err := s.Begin(t.Context(), "g", mixed[:1]); err != nil || !errors.Is(claims[0].Err, replay.ErrInvalid) || e.begun != nil {
		t.Errorf("an item that is refused alone: %+v, %v", claims, err)
	}
}

// TestRequestAtItsBounds has each bound, kept and passed.
func TestRequestAtItsBounds(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*replay.Request)
		ok     bool
	}{
		"as it is":            {func(*replay.Request) {}, true},
		"the longest sender":  {func(r *replay.Request) { r.ID.Sender = strings.Repeat("s", replay.MaxSender) }, true},
		"a longer sender":     {func(r *replay.Request) { r.ID.Sender = strings.Repeat("s", replay.MaxSender+1) }, false},
		"no stream":           {func(r *replay.Request) { r.ID.Stream = [16]byte{} }, false},
		"sequence 0":          {func(r *replay.Request) { r.ID.Sequence, r.Settled, r.Previous, r.Void = 0, 0, 0, nil }, false},
		"sequence 1":          {func(r *replay.Request) { r.ID.Sequence, r.Settled, r.Previous, r.Void = 1, 0, 0, nil }, true},
		"the last sequence":   {func(r *replay.Request) { r.ID.Sequence = replay.MaxSequence }, true},
		"beyond the last":     {func(r *replay.Request) { r.ID.Sequence = replay.MaxSequence + 1 }, false},
		"no token":            {func(r *replay.Request) { r.Token = replay.Token{} }, false},
		"no SealedAt":         {func(r *replay.Request) { r.SealedAt = time.Time{} }, false},
		"no FreshUntil":       {func(r *replay.Request) { r.FreshUntil = time.Time{} }, false},
		"no Now":              {func(r *replay.Request) { r.Now = time.Time{} }, false},
		"no window":           {func(r *replay.Request) { r.RetryWindow = 0 }, false},
		"the shortest window": {func(r *replay.Request) { r.RetryWindow = 1 }, true},
		"no lease":            {func(r *replay.Request) { r.Lease = 0 }, false},
		"the shortest lease":  {func(r *replay.Request) { r.Lease = 1 }, true},
		"no age":              {func(r *replay.Request) { r.MaxMessageAge = 0 }, false},
		"the shortest age":    {func(r *replay.Request) { r.MaxMessageAge = 1 }, true},
		"no skew":             {func(r *replay.Request) { r.MaxClockSkew = 0 }, true},
		"a negative skew":     {func(r *replay.Request) { r.MaxClockSkew = -1 }, false},
		"settles itself":      {func(r *replay.Request) { r.Settled = 9 }, false},
		"previous is itself":  {func(r *replay.Request) { r.Previous = 9 }, false},
		"previous is before":  {func(r *replay.Request) { r.Previous = 8 }, true},
		"most void ranges":    {func(r *replay.Request) { r.Void = slices.Repeat([]replay.Range{{First: 1, Last: 1}}, replay.MaxVoid) }, true},
		"more void ranges":    {func(r *replay.Request) { r.Void = slices.Repeat([]replay.Range{{First: 1, Last: 1}}, replay.MaxVoid+1) }, false},
		"void from 0":         {func(r *replay.Request) { r.Void = []replay.Range{{First: 0, Last: 1}} }, false},
		"void of none":        {func(r *replay.Request) { r.Void = []replay.Range{{First: 2, Last: 1}} }, false},
		"void to settled":     {func(r *replay.Request) { r.Void = []replay.Range{{First: 8, Last: 8}} }, true},
		"void past settled":   {func(r *replay.Request) { r.Void = []replay.Range{{First: 8, Last: 9}} }, false},
	} {
		r := validRequest()
		c.change(&r)
		if err := r.Validate(); (err == nil) != c.ok || err != nil && !errors.Is(err, replay.ErrInvalid) {
			t.Errorf("%s: %v, want that it is accepted: %v", name, err, c.ok)
		}
	}
	e := &echo{}
	s := replay.FromEngine(e)
	id, token := validRequest().ID, replay.Token{1}
	for kind, ok := range map[replay.FinishKind]bool{0: false, replay.Consumed: true, replay.Released: true, replay.Parked: true, replay.Parked + 1: false} {
		f, err := s.Finish(t.Context(), "g", []replay.Finish{{ID: id, Token: token, Kind: kind}})
		if err != nil || errors.Is(f[0].Err, replay.ErrInvalid) == ok {
			t.Errorf("kind %d: %v, %v", kind, f, err)
		}
	}
	if f, err := s.Finish(t.Context(), "g", []replay.Finish{{ID: id, Kind: replay.Consumed}}); err != nil || !errors.Is(f[0].Err, replay.ErrInvalid) {
		t.Errorf("no token: %v, %v", f, err)
	}
	if l, err := s.Renew(t.Context(), "g", []replay.Lease{{ID: id, Token: token, Lease: 1}}); err != nil || errors.Is(l[0].Err, replay.ErrInvalid) {
		t.Errorf("the shortest lease: %v, %v", l, err)
	}
	for sequence, ok := range map[uint64]bool{0: false, 1: true, replay.MaxSequence: true, replay.MaxSequence + 1: false} {
		id.Sequence = sequence
		f, err := s.Finish(t.Context(), "g", []replay.Finish{{ID: id, Token: token, Kind: replay.Consumed}})
		l, err2 := s.Renew(t.Context(), "g", []replay.Lease{{ID: id, Token: token, Lease: 1}})
		q, err3 := s.Look(t.Context(), "g", []replay.Query{{ID: id, SealedAt: time.UnixMilli(1)}})
		if err := errors.Join(err, err2, err3); err != nil {
			t.Fatal(err)
		}
		for call, err := range map[string]error{"Finish": f[0].Err, "Renew": l[0].Err, "Look": q[0].Err} {
			if errors.Is(err, replay.ErrInvalid) == ok {
				t.Errorf("%s of sequence %d: %v, want that it is accepted: %v", call, sequence, err, ok)
			}
		}
	}
	if q, err := s.Look(t.Context(), "g", []replay.Query{{}}); err != nil || !errors.Is(q[0].Err, replay.ErrInvalid) {
		t.Errorf("no identity: %v, %v", q, err)
	}
}

// TestStreamsStop when the caller has enough, and with its context.
func TestStreamsStop(t *testing.T) {
	entry := replaystate.Entry{Key: replaystate.Key{Sender: "bot", Stream: [16]byte{0, 0, 0, 0, 1, 0, 9}}, Account: replaystate.Account{
		Start: 1, Settled: 2, Newest: 3000, Consumed: 4, Lost: 5, Implausible: true,
		Missing: []replaystate.Missing{{Range: replaystate.Range{First: 6, Last: 7}, Since: 8000, Late: true}},
	}}
	e := &echo{entries: []replaystate.Entry{entry, entry, entry}}
	s := replay.FromEngine(e)
	n := 0
	for got, err := range s.Streams(t.Context(), "g") {
		want := replay.Stream{
			Sender: "bot", Stream: entry.Key.Stream, Opened: time.UnixMilli(256), Start: 1, Settled: 2, NewestSealedAt: time.UnixMilli(3000),
			Consumed: 4, MissingForgotten: 5, Implausible: true, Missing: []replay.Missing{{Range: replay.Range{First: 6, Last: 7}, Since: time.UnixMilli(8000), ReportedLate: true}},
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if n++; n == 2 {
			break
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n = 0
	for _, err := range s.Streams(ctx, "g") {
		if n++; n == 2 && !errors.Is(err, context.Canceled) {
			t.Errorf("after its context: %v", err)
		}
		cancel()
	}
	if n != 2 {
		t.Errorf("%d results, want a stream and the error", n)
	}
}
