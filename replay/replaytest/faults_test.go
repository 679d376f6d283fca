package replaytest

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// faulty is a store with a planted fault: each hook, unless nil, changes what is
// asked or answered.
type faulty struct {
	replay.Store
	ask     func(*replay.Request)
	claim   func(replay.Request, *replay.Claim)
	renewed func(*replay.Renewed)
	end     func(*replay.Finish) (skip bool)
	ended   func(replay.Finish, *replay.Finished)
	look    func(*replay.Look)
	note    func(*replay.Note) (skip bool)
	noted   func(*replay.Noted)
	stream  func(*replay.Stream)
	stats   func(*replay.Stats)
	history func(*replay.History)
	accept  func(*replay.Stamp) (skip bool)
	reverse bool
}

func (s faulty) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	r = append([]replay.Request(nil), r...)
	if s.ask != nil {
		for i := range r {
			if r[i].Validate() == nil {
				s.ask(&r[i])
			}
		}
	}
	if s.reverse {
		turn(r)
	}
	c, err := s.Store.Begin(ctx, group, r)
	if s.reverse {
		turn(c)
	}
	if s.claim != nil {
		for i := range c {
			s.claim(r[i], &c[i])
		}
	}
	return c, err
}

func turn[T any](s []T) {
	for i, j := 0, len(s)-1; i < j; i, j = i+1, j-1 {
		s[i], s[j] = s[j], s[i]
	}
}

func (s faulty) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	out, err := s.Store.Renew(ctx, group, l)
	if s.renewed != nil {
		for i := range out {
			s.renewed(&out[i])
		}
	}
	return out, err
}

func (s faulty) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	out := make([]replay.Finished, len(f))
	for i := range f {
		one := f[i]
		if s.end != nil && s.end(&one) {
			continue
		}
		got, err := s.Store.Finish(ctx, group, []replay.Finish{one})
		if err != nil {
			return nil, err
		}
		out[i] = got[0]
		if s.ended != nil {
			s.ended(f[i], &out[i])
		}
	}
	return out, nil
}

func (s faulty) Look(ctx context.Context, group string, q []replay.Query) ([]replay.Look, error) {
	out, err := s.Store.Look(ctx, group, q)
	if s.look != nil {
		for i := range out {
			s.look(&out[i])
		}
	}
	return out, err
}

func (s faulty) Note(ctx context.Context, group string, n []replay.Note) ([]replay.Noted, error) {
	if s.note != nil && s.note(&n[0]) {
		return make([]replay.Noted, len(n)), nil
	}
	out, err := s.Store.Note(ctx, group, n)
	if s.noted != nil {
		for i := range out {
			s.noted(&out[i])
		}
	}
	return out, err
}

func (s faulty) Streams(ctx context.Context, group string) iter.Seq2[replay.Stream, error] {
	return func(yield func(replay.Stream, error) bool) {
		for e, err := range s.Store.Streams(ctx, group) {
			if s.stream != nil {
				s.stream(&e)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

func (s faulty) Stats(ctx context.Context) (replay.Stats, error) {
	out, err := s.Store.Stats(ctx)
	if s.stats != nil {
		s.stats(&out)
	}
	return out, err
}

func (s faulty) History(ctx context.Context) (replay.History, error) {
	out, err := s.Store.History(ctx)
	if s.history != nil {
		s.history(&out)
	}
	return out, err
}

// raise gives losses a change number that no memory had.
func raise(losses []replay.Loss) {
	for i := range losses {
		losses[i].From.Change = 1 << 40
	}
}

func (s faulty) AcceptLoss(ctx context.Context, lost replay.Stamp) (replay.Loss, error) {
	if s.accept != nil && s.accept(&lost) {
		h, err := s.Store.History(ctx)
		return replay.Loss{Lost: lost, From: h.Stamp, To: h.Stamp.ID}, err
	}
	return s.Store.AcceptLoss(ctx, lost)
}

// grantIf grants what the store refused with one of these errors.
func grantIf(refusals ...error) faulty {
	return faulty{claim: func(r replay.Request, c *replay.Claim) {
		for _, e := range refusals {
			if errors.Is(c.Err, e) {
				c.Err, c.FirstSeen, c.BusyUntil = nil, r.Now, time.Time{}
			}
		}
	}}
}

// swap answers one error in place of another.
func swap(from, to error) faulty {
	return faulty{claim: func(_ replay.Request, c *replay.Claim) {
		if errors.Is(c.Err, from) {
			c.Err = to
		}
	}}
}

func ended(from, to error) faulty {
	return faulty{ended: func(_ replay.Finish, f *replay.Finished) {
		if from == nil && f.Err == nil || from != nil && errors.Is(f.Err, from) {
			f.Err = to
		}
	}}
}

// planted are faults that a store could have. The suite must find each.
var planted = map[string]faulty{
	"grants what is claimed":   grantIf(replay.ErrBusy),
	"grants recent copies":     grantIf(replay.ErrDuplicate),
	"grants old copies":        grantIf(replay.ErrReused),
	"grants what is not fresh": grantIf(replay.ErrNotFresh),
	"drops its marks": {claim: func(r replay.Request, c *replay.Claim) {
		if errors.Is(c.Err, replay.ErrNotFresh) && !r.Now.After(r.FreshUntil) {
			c.Err, c.FirstSeen = nil, r.Now
		}
	}},
	"grants beyond its bounds":        grantIf(replay.ErrFull),
	"grants beyond quotas":            grantIf(replay.ErrQuota),
	"ignores tags":                    swap(replay.ErrCollision, replay.ErrDuplicate),
	"takes copies for collisions":     swap(replay.ErrDuplicate, replay.ErrCollision),
	"takes quotas for a full store":   swap(replay.ErrQuota, replay.ErrFull),
	"takes a full store for quotas":   swap(replay.ErrFull, replay.ErrQuota),
	"forgets at the mark":             swap(replay.ErrReused, replay.ErrNotFresh),
	"ignores resealing":               {ask: func(r *replay.Request) { r.Resealed = false }},
	"takes all for resealed":          {ask: func(r *replay.Request) { r.Resealed = true }},
	"ignores retry windows":           {ask: func(r *replay.Request) { r.RetryWindow = 1 << 50 }},
	"ignores freshness":               {ask: func(r *replay.Request) { r.FreshUntil = r.Now }},
	"ignores settled":                 {ask: func(r *replay.Request) { r.Settled, r.Void = 0, nil }},
	"ignores void":                    {ask: func(r *replay.Request) { r.Void = nil }},
	"ignores previous":                {ask: func(r *replay.Request) { r.Previous = 0 }},
	"ignores the reach":               {ask: func(r *replay.Request) { r.MaxMessageAge = time.Minute }},
	"ignores senders":                 {ask: func(r *replay.Request) { r.ID.Sender = "" }},
	"draws tokens itself":             {ask: func(r *replay.Request) { r.Token = replay.NewToken() }},
	"lets leases last for ever":       {ask: func(r *replay.Request) { r.Lease = 1 << 50 }},
	"lets leases last a second":       {ask: func(r *replay.Request) { r.Lease = time.Second }},
	"believes what was sealed is new": {ask: func(r *replay.Request) { r.SealedAt = r.Now.Add(1000 * time.Hour) }},
	"never sees a gap":                {claim: func(_ replay.Request, c *replay.Claim) { c.Gap = false }},
	"forgets when it saw a message":   {claim: func(r replay.Request, c *replay.Claim) { c.FirstSeen = c.FirstSeen.Add(time.Second) }},
	"renews what is lost":             {renewed: func(r *replay.Renewed) { r.Err = nil }},
	"never renews":                    {renewed: func(r *replay.Renewed) { r.Err = replay.ErrClaimLost }},
	"says done of what is lost":       ended(replay.ErrClaimLost, nil),
	"says lost of what is handled":    ended(replay.ErrHandled, replay.ErrClaimLost),
	"says done of what is handled":    ended(replay.ErrHandled, nil),
	"says handled of what is done":    ended(nil, replay.ErrHandled),
	"consumes nothing":                {end: func(f *replay.Finish) bool { return f.Kind == replay.Consumed }},
	"releases in place of consuming":  {end: func(f *replay.Finish) bool { f.Kind = replay.Released; return false }},
	"releases nothing":                {end: func(f *replay.Finish) bool { return f.Kind == replay.Released }},
	"parks nothing":                   {end: func(f *replay.Finish) bool { return f.Kind == replay.Parked }},
	"releases in place of parking":    {end: func(f *replay.Finish) bool { f.Kind = min(f.Kind, replay.Released); return false }},
	"parks in place of releasing": {end: func(f *replay.Finish) bool {
		if f.Kind == replay.Released {
			f.Kind = replay.Parked
		}
		return false
	}},
	"finds all unused":                 {look: func(l *replay.Look) { l.State = max(l.State, replay.StateUnused) }},
	"finds nothing unused":             {look: func(l *replay.Look) { l.State &^= replay.StateUnused }},
	"notes nothing":                    {note: func(*replay.Note) bool { return true }},
	"takes late for missing":           {note: func(n *replay.Note) bool { n.Kind = max(n.Kind, replay.NoteMissing); return false }},
	"lets all receivers report":        {noted: func(n *replay.Noted) { n.Fresh = max(n.Fresh, 1) }},
	"hides what is missing":            {stream: func(s *replay.Stream) { s.Missing = nil }},
	"hides the first that is missing":  {stream: func(s *replay.Stream) { s.Missing = s.Missing[min(1, len(s.Missing)):] }},
	"says missing since ever":          {stream: func(s *replay.Stream) { clear(sinces(s)) }},
	"counts no records":                {stats: func(s *replay.Stats) { s.Records = 0 }},
	"counts no streams":                {stats: func(s *replay.Stats) { s.Streams = 0 }},
	"counts no intervals":              {stats: func(s *replay.Stats) { s.Intervals = 0 }},
	"takes no memory":                  {stats: func(s *replay.Stats) { s.Bytes = 0 }},
	"forgets accepted losses":          {history: func(h *replay.History) { h.Losses = nil }},
	"remembers the last loss only":     {history: func(h *replay.History) { h.Losses = h.Losses[max(0, len(h.Losses)-1):] }},
	"accepts more than it had":         {history: func(h *replay.History) { raise(h.Losses) }},
	"accepts no loss":                  {accept: func(*replay.Stamp) bool { return true }},
	"accepts the loss of another":      {accept: func(s *replay.Stamp) bool { s.ID[0]++; return false }},
	"acts on a batch from the end":     {reverse: true},
	"confuses the answers of a batch":  {claim: func(r replay.Request, c *replay.Claim) { c.FirstSeen = time.Time{} }},
	"answers without a stamp":          {claim: func(r replay.Request, c *replay.Claim) { c.Stamp = replay.Stamp{} }},
	"hides until when a claim is busy": {claim: func(r replay.Request, c *replay.Claim) { c.BusyUntil = time.Time{} }},
}

// sinces moves the times of what is missing to the epoch.
func sinces(s *replay.Stream) []replay.Missing {
	for i := range s.Missing {
		s.Missing[i].Since = time.UnixMilli(1)
	}
	return nil
}

// TestFaultsAreFound: the suite finds every planted fault, and none in the store
// that has none.
func TestFaultsAreFound(t *testing.T) {
	planted["none"] = faulty{}
	for name, fault := range planted {
		t.Run(name, func(t *testing.T) {
			o := Options{Schedules: 20, New: func(t testing.TB, b replay.Bounds) Fixture {
				m, err := replay.NewMemory(&replay.MemoryOptions{Bounds: b})
				if err != nil {
					t.Fatal(err)
				}
				s := fault
				s.Store = m
				return Fixture{Open: func(time.Duration) replay.Store { return s }}
			}}
			f := Failures(t, o)
			t.Log("found:", f)
			if (len(f) == 0) != (name == "none") {
				t.Errorf("found %q", f)
			}
		})
	}
}

// TestStoreThatWaits: the suite ends although only some of a store's calls wait. In a bubble
// they do so for ever if the others follow each other without a pause.
func TestStoreThatWaits(t *testing.T) {
	if f := Failures(t, Options{Schedules: 20, New: func(t testing.TB, b replay.Bounds) Fixture {
		m, err := replay.NewMemory(&replay.MemoryOptions{Bounds: b})
		if err != nil {
			t.Fatal(err)
		}
		s := faulty{Store: m, accept: func(*replay.Stamp) bool { <-time.After(time.Millisecond); return false }} // in a bubble
		return Fixture{Open: func(time.Duration) replay.Store { return s }}
	}}); f != nil {
		t.Errorf("found %q", f)
	}
}
