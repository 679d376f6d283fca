package replaystate

import (
	"reflect"
	"testing"
)

// The clock of these tests, the lease and the retry window of their requests.
const (
	testNow    = int64(1_000_000_000)
	testLease  = int64(30_000)
	testWindow = int64(600_000)
)

// bench is a stream with its surroundings.
type bench struct {
	*testing.T
	e *Env
	s *plainStream
}

func newBench(t *testing.T) *bench {
	return &bench{t, &Env{Now: testNow, Birth: 1, Group: &Group{}, Span: 64, ParkedTTL: 5_000_000}, &plainStream{pages: map[uint64]*Page{}}}
}

func token(n byte) [16]byte { return [16]byte{n} }

// request asks for a sequence with token 1; change may be nil.
func (b *bench) request(n uint64, change func(*Request)) Claim {
	r := &Request{Sequence: n, Token: token(1), Tag: [8]byte{1}, SealedAt: testNow, FreshUntil: testNow + 1000, Now: testNow, RetryWindow: testWindow, Lease: testLease}
	if change != nil {
		change(r)
	}
	return Begin(b.e, b.s, r)
}

func (b *bench) wants(what string, c Claim, out Outcome) {
	b.Helper()
	if c.Outcome != out {
		b.Errorf("%s: outcome %d, want %d", what, c.Outcome, out)
	}
}

// finish ends the claim of token 1.
func (b *bench) finish(n uint64, k Kind, out Outcome) {
	b.Helper()
	if got := End(b.e, b.s, &Finish{Sequence: n, Token: token(1), Kind: k}); got != out {
		b.Errorf("End of %d as %d: %d, want %d", n, k, got, out)
	}
}

// claimed claims n and ends it as k; 0 leaves it claimed.
func (b *bench) claimed(n uint64, k Kind) {
	b.Helper()
	b.wants("a new message", b.request(n, nil), Done)
	if k != 0 {
		b.finish(n, k, Done)
	}
}

// settle folds a page whose tags are due, and reports whether nothing is left of it.
func (b *bench) settle(p *Page) (empty bool) {
	return b.s.head.Settle(p, max(b.e.Now, p.quiet), 0, 0, false)
}

// fold folds page 0 into the head.
func (b *bench) fold() {
	b.Helper()
	p := b.s.pages[0]
	b.s.head.Fold(p)
	if p.Folded() {
		delete(b.s.pages, 0)
	}
}

// TestBeginAtItsBounds has each comparison of Begin at its bound and one beyond.
func TestBeginAtItsBounds(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*bench)
		change func(*Request)
		want   Outcome
	}{
		"fresh to the end":       {nil, func(r *Request) { r.Now = r.FreshUntil }, Done},
		"past its freshness":     {nil, func(r *Request) { r.Now = r.FreshUntil + 1 }, NotFresh},
		"at the group's mark":    {func(b *bench) { b.e.Group.Mark = testNow }, nil, NotFresh},
		"newer than the mark":    {func(b *bench) { b.e.Group.Mark = testNow - 1 }, nil, Done},
		"claimed by another":     {func(b *bench) { b.claimed(1, 0) }, func(r *Request) { r.Token = token(2) }, Busy},
		"the lease ends now":     {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease }, func(r *Request) { r.Token = token(2) }, Done},
		"the lease ends in 1 ms": {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease - 1 }, func(r *Request) { r.Token = token(2) }, Busy},
		"claimed by itself":      {func(b *bench) { b.claimed(1, 0) }, nil, Done},
		"released":               {func(b *bench) { b.claimed(1, Release) }, func(r *Request) { r.Token = token(2) }, Done},
		"parked":                 {func(b *bench) { b.claimed(1, Park) }, func(r *Request) { r.Token = token(2) }, Done},
		"another tag":            {func(b *bench) { b.claimed(1, Release) }, func(r *Request) { r.Tag = [8]byte{2} }, Collision},
		"another tag, resealed":  {func(b *bench) { b.claimed(1, Release) }, func(r *Request) { r.Tag, r.Resealed = [8]byte{2}, true }, Done},
		"the original of a resealed one": {func(b *bench) {
			b.wants("", b.request(1, func(r *Request) { r.Tag, r.Resealed = [8]byte{2}, true }), Done)
			b.finish(1, Release, Done)
		}, nil, Done},
		"in the retry window":        {func(b *bench) { b.claimed(1, Release) }, func(r *Request) { r.Now += testWindow }, Done},
		"past the retry window":      {func(b *bench) { b.claimed(1, Release) }, func(r *Request) { r.Now += testWindow + 1 }, NotFresh},
		"past it, and still fresh":   {func(b *bench) { b.claimed(1, Release) }, func(r *Request) { r.Now += testWindow + 1; r.FreshUntil = r.Now }, Done},
		"past it, claimed by itself": {func(b *bench) { b.claimed(1, 0) }, func(r *Request) { r.Now += testWindow + 1 }, Done},
		"past it, over, of another": {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease }, func(r *Request) {
			r.Now += testWindow + 1
			r.Token = token(2)
		}, NotFresh},
		"kept to the end, and old": {func(b *bench) { b.claimed(1, Release); b.e.Now += testWindow - 1 }, func(r *Request) { r.Now = r.FreshUntil + 1 }, Done},
		"past its keep, and old":   {func(b *bench) { b.claimed(1, Release); b.e.Now += testWindow }, func(r *Request) { r.Now = r.FreshUntil + 1 }, NotFresh},
		"a long lease is kept": {func(b *bench) {
			b.wants("", b.request(1, func(r *Request) { r.RetryWindow = 1 }), Done)
			b.e.Now += testLease - 1
		}, func(r *Request) { r.Now = r.FreshUntil + 1 }, Done},
		"consumed":                        {func(b *bench) { b.claimed(1, Consume) }, nil, Duplicate},
		"consumed, another tag":           {func(b *bench) { b.claimed(1, Consume) }, func(r *Request) { r.Tag = [8]byte{2} }, Collision},
		"consumed, another tag, resealed": {func(b *bench) { b.claimed(1, Consume) }, func(r *Request) { r.Tag, r.Resealed = [8]byte{2}, true }, Reused},
		"consumed resealed, and a copy": {func(b *bench) {
			b.wants("", b.request(1, func(r *Request) { r.Resealed = true }), Done)
			b.finish(1, Consume, Done)
		}, func(r *Request) { r.Resealed = true }, Duplicate},
		"consumed resealed": {func(b *bench) {
			b.wants("", b.request(1, func(r *Request) { r.Resealed, r.Tag = true, [8]byte{3} }), Done)
			b.finish(1, Consume, Done)
		}, nil, Reused},
		"consumed long ago":            {func(b *bench) { b.claimed(1, Consume); b.claimed(2, Release); b.fold() }, nil, Reused},
		"consumed long ago, page gone": {func(b *bench) { b.claimed(1, Consume); b.fold() }, nil, Reused},
		"the sender has no room":       {func(b *bench) { b.e.Room = func(Key, bool) Outcome { return Quota } }, nil, Quota},
		"known, and there is no room": {func(b *bench) {
			b.claimed(1, Release)
			b.e.Room = func(Key, bool) Outcome { return Full }
		}, nil, Done},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			if c.before != nil {
				c.before(b)
			}
			b.wants(name, b.request(1, c.change), c.want)
			if c.want == NotFresh && b.s.head == nil && len(b.s.pages) > 0 || c.want == Quota && len(b.s.pages) > 0 {
				t.Error("what was refused made a page")
			}
		})
	}
}

// TestRoomIsAskedForAStream only if the stream is not held.
func TestRoomIsAskedForAStream(t *testing.T) {
	b := newBench(t)
	var asked []bool
	b.e.Room = func(_ Key, stream bool) Outcome { asked = append(asked, stream); return 0 }
	b.claimed(1, Consume)
	b.claimed(2, 0)
	b.claimed(65, 0) // another page
	b.request(2, nil)
	if want := []bool{true, false, false}; !reflect.DeepEqual(asked, want) {
		t.Errorf("asked for a stream: %v, want %v", asked, want)
	}
	if len(b.s.pages) != 2 || b.s.head.Start != 1 || !b.s.pages[1].New {
		t.Errorf("%d pages, head %+v", len(b.s.pages), b.s.head)
	}
}

// TestGrantSaysWhatItKnows: FirstSeen stays, Until is the end of the lease, and a record is
// kept for the longest of its windows.
func TestGrantSaysWhatItKnows(t *testing.T) {
	b := newBench(t)
	if c := b.request(1, func(r *Request) { r.Reach, r.Skew = 70, 10 }); c.FirstSeen != testNow {
		t.Errorf("first seen %d", c.FirstSeen)
	}
	if g := b.e.Group; g.Reach != 70 || g.Skew != 10 {
		t.Errorf("the group's reach is %d and its skew %d, want those that were asked for", g.Reach, g.Skew)
	}
	b.e.Now += 100
	if c := b.request(1, func(r *Request) { r.Token = token(2) }); c.Until != testNow+testLease || c.FirstSeen != 0 {
		t.Errorf("busy until %d, want %d", c.Until, testNow+testLease)
	}
	c := b.request(1, func(r *Request) { r.Now += 50; r.RetryWindow, r.Lease = 1, 7 })
	p := b.s.pages[0]
	if r := p.records[0]; c.FirstSeen != testNow || r.keep != testNow+testWindow || r.changed != b.e.Now || r.lease != 7 || r.beat != 2 {
		t.Errorf("%+v, record %+v", c, r)
	}
	b.finish(1, Release, Done)
	b.e.Now += 1000
	if b.request(1, nil); p.records[0].keep != b.e.Now+testWindow {
		t.Errorf("kept until %d, want %d", p.records[0].keep, b.e.Now+testWindow)
	}
}

// TestGap: the message before is a gap unless it is accounted for, and a repeated call answers
// as the first did.
func TestGap(t *testing.T) {
	gap := func(r *Request) { r.Previous = 3 }
	for name, c := range map[string]struct {
		before func(*bench)
		want   bool
	}{
		"never seen":              {func(b *bench) {}, true},
		"never seen, older head":  {func(b *bench) { b.s.head.Start = 4 }, false},
		"at the start":            {func(b *bench) { b.s.head.Start = 3 }, true},
		"consumed":                {func(b *bench) { b.claimed(3, Consume) }, false},
		"claimed":                 {func(b *bench) { b.claimed(3, 0) }, false},
		"parked":                  {func(b *bench) { b.claimed(3, Park) }, false},
		"released":                {func(b *bench) { b.claimed(3, Release) }, true},
		"claimed, past its keep":  {func(b *bench) { b.claimed(3, 0); b.e.Now += testWindow }, true},
		"claimed, to its keep":    {func(b *bench) { b.claimed(3, 0); b.e.Now += testWindow - 1 }, false},
		"excused":                 {func(b *bench) { b.s.pages[0].excuse(Range{3, 3}) }, false},
		"excused in the head":     {func(b *bench) { b.s.head.excuse(Range{3, 3}) }, false},
		"in an interval":          {func(b *bench) { b.s.head.add(Interval{2, 3, 1}) }, false},
		"consumed, and page gone": {func(b *bench) { b.claimed(3, Consume); b.fold(); delete(b.s.pages, 0) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.claimed(1, 0)
			b.s.head.Start = 1
			c.before(b)
			fresh := func(r *Request) { gap(r); r.Now, r.FreshUntil = b.e.Now, b.e.Now }
			if got := b.request(5, fresh); got.Outcome != Done || got.Gap != c.want {
				t.Errorf("%+v, want gap %v", got, c.want)
			}
			if got := b.request(70, fresh); got.Gap != c.want { // another page
				t.Errorf("from another page: %+v, want gap %v", got, c.want)
			}
			b.request(3, fresh)
			if got := b.request(5, fresh); got.Gap != c.want {
				t.Errorf("repeated: %+v, want gap %v as before", got, c.want)
			}
		})
	}
	b := newBench(t)
	if c := b.request(5, nil); c.Gap {
		t.Error("a message that names none before it has a gap")
	}
}

// TestRefusedIsNotMissing: what is not fresh arrived all the same; it makes no page and no
// stream, and as many of them as come fill no memory.
func TestRefusedIsNotMissing(t *testing.T) {
	old := func(r *Request) { r.Now = r.FreshUntil + 1 }
	b := newBench(t)
	b.wants("no stream", b.request(1, old), NotFresh)
	if b.s.head != nil || len(b.s.pages) != 0 {
		t.Error("it made a stream")
	}
	b.claimed(1, 0)
	b.wants("in the page", b.request(2, old), NotFresh)
	if !b.s.pages[0].excused.Has(2) || b.s.head.Excused.Has(2) {
		t.Error("the page does not excuse it")
	}
	b.wants("beside the pages", b.request(200, old), NotFresh)
	if len(b.s.pages) != 1 || !b.s.head.Excused.Has(200) {
		t.Error("the head does not excuse it")
	}
	for n := uint64(1000); n < 1000+4*maxExcused; n += 2 {
		b.request(n, old)
	}
	if n := len(b.s.head.Excused); n > maxExcused {
		t.Errorf("the head excuses %d ranges, want at most %d", n, maxExcused)
	}
	for range 3 { // of a page, too
		p := b.s.pages[0]
		for n := uint64(10_000); n < 10_000+4*maxExcused; n += 2 {
			p.settle(b.e, b.s, 0, []Range{{n, n}})
		}
		if n := len(p.excused); n != maxExcused {
			t.Errorf("the page excuses %d ranges, want the newest %d", n, maxExcused)
		}
	}
}

// TestEachCopySettles: what a message says of its stream counts when it is granted and when it
// is a duplicate, and otherwise not; a duplicate keeps the tags of its page longer.
func TestEachCopySettles(t *testing.T) {
	b := newBench(t)
	says := func(settled uint64) func(*Request) {
		return func(r *Request) { r.Settled, r.Void = settled, []Range{{settled, settled}} }
	}
	b.wants("", b.request(9, says(3)), Done)
	p := b.s.pages[0]
	if p.Settled != 3 || !p.excused.Has(3) || len(p.steps) != 1 || p.steps[0] != (Step{3, testNow}) {
		t.Errorf("page %+v, want settled 3 in one step, and 3 excused", p)
	}
	b.finish(9, Consume, Done)
	if p.quiet != testNow+minRecent {
		t.Errorf("its tag is kept until %d, want %d", p.quiet, testNow+minRecent)
	}
	b.e.Now += 5000
	p.Dirty = false
	b.wants("", b.request(9, says(5)), Duplicate)
	if p.Settled != 5 || !p.excused.Has(5) || p.quiet != b.e.Now+minRecent || !p.Dirty {
		t.Errorf("page %+v, want settled 5, excused, and to be saved", p)
	}
	b.wants("", b.request(9, func(r *Request) { says(5)(r); r.Lease = minRecent }), Duplicate)
	if p.quiet != b.e.Now+2*minRecent {
		t.Errorf("its tag is kept until %d, want for two leases", p.quiet)
	}
	p.Dirty = false
	b.wants("", b.request(9, says(5)), Duplicate)
	if p.Dirty || p.quiet != b.e.Now+2*minRecent {
		t.Error("a copy that says nothing new changed the page")
	}
	b.wants("", b.request(9, func(r *Request) { says(7)(r); r.Tag = [8]byte{9} }), Collision)
	if p.Settled != 5 || p.excused.Has(7) {
		t.Error("a collision settles the stream")
	}
}

// TestForgedCopyKeepsNothing: only a true copy announces others. One with another tag leaves the
// page as it is, so that forgeries do not keep tags for ever.
func TestForgedCopyKeepsNothing(t *testing.T) {
	b := newBench(t)
	b.claimed(1, Consume)
	p := b.s.pages[0]
	quiet := p.quiet
	b.e.Now += 1000
	p.Dirty = false
	b.wants("another tag", b.request(1, func(r *Request) { r.Tag = [8]byte{9} }), Collision)
	if p.quiet != quiet || p.Dirty {
		t.Errorf("the tags are kept until %d, want %d as before; to be saved: %v", p.quiet, quiet, p.Dirty)
	}
	b.wants("a copy", b.request(1, nil), Duplicate)
	if p.quiet != quiet+1000 || !p.Dirty {
		t.Errorf("after a copy the tags are kept until %d, want %d; to be saved: %v", p.quiet, quiet+1000, p.Dirty)
	}
	p.Dirty = false
	if b.wants("another at that moment", b.request(1, nil), Duplicate); p.Dirty {
		t.Error("a copy that keeps the tags no longer is to be saved")
	}
}

// TestEnd has each state and each kind.
func TestEnd(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*bench)
		want   [3]Outcome // Consume, Release, Park
	}{
		"no stream":                     {func(*bench) {}, [3]Outcome{Lost, Lost, Lost}},
		"no record":                     {func(b *bench) { b.claimed(2, 0) }, [3]Outcome{Lost, Lost, Lost}},
		"claimed":                       {func(b *bench) { b.claimed(1, 0) }, [3]Outcome{Done, Done, Done}},
		"claimed, and over":             {func(b *bench) { b.claimed(1, 0); b.e.Now += 2 * testLease }, [3]Outcome{Done, Done, Done}},
		"claimed by another":            {func(b *bench) { b.request(1, func(r *Request) { r.Token = token(2) }) }, [3]Outcome{Lost, Lost, Lost}},
		"released":                      {func(b *bench) { b.claimed(1, Release) }, [3]Outcome{Lost, Done, Lost}},
		"parked":                        {func(b *bench) { b.claimed(1, Park) }, [3]Outcome{Lost, Lost, Done}},
		"consumed":                      {func(b *bench) { b.claimed(1, Consume) }, [3]Outcome{Done, Handled, Handled}},
		"consumed long ago":             {func(b *bench) { b.claimed(1, Consume); b.claimed(2, 0); b.fold() }, [3]Outcome{Handled, Handled, Handled}},
		"consumed long ago, page gone":  {func(b *bench) { b.claimed(1, Consume); b.fold() }, [3]Outcome{Handled, Handled, Handled}},
		"another consumed, page gone":   {func(b *bench) { b.claimed(2, Consume); b.fold() }, [3]Outcome{Lost, Lost, Lost}},
		"consumed by another":           {func(b *bench) { b.another(1) }, [3]Outcome{Handled, Handled, Handled}},
		"of a page that is not in hand": {func(b *bench) { b.claimed(100, Consume) }, [3]Outcome{Lost, Lost, Lost}},
	} {
		for i, k := range []Kind{Consume, Release, Park} {
			b := newBench(t)
			c.before(b)
			if got := End(b.e, b.s, &Finish{Sequence: 1, Token: token(1), Kind: k}); got != c.want[i] {
				t.Errorf("%s, kind %d: %d, want %d", name, k, got, c.want[i])
			}
		}
	}
}

// TestHeld has each state. It is asked for by a transaction that has yet to commit, so it changes
// nothing.
func TestHeld(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*bench)
		want   Outcome
	}{
		"no stream":                    {func(*bench) {}, Lost},
		"no record":                    {func(b *bench) { b.claimed(2, Consume) }, Lost},
		"the record of another":        {func(b *bench) { b.claimed(2, 0) }, Lost},
		"claimed":                      {func(b *bench) { b.claimed(1, 0) }, Done},
		"claimed, and over":            {func(b *bench) { b.claimed(1, 0); b.e.Now += 2 * testLease }, Done},
		"claimed by another":           {func(b *bench) { b.request(1, func(r *Request) { r.Token = token(2) }) }, Lost},
		"released":                     {func(b *bench) { b.claimed(1, Release) }, Lost},
		"parked":                       {func(b *bench) { b.claimed(1, Park) }, Lost},
		"consumed":                     {func(b *bench) { b.claimed(1, Consume) }, Handled},
		"consumed by another":          {func(b *bench) { b.another(1) }, Handled},
		"consumed long ago, page gone": {func(b *bench) { b.claimed(1, Consume); b.fold() }, Handled},
		"another consumed, page gone":  {func(b *bench) { b.claimed(2, Consume); b.fold() }, Lost},
	} {
		b := newBench(t)
		c.before(b)
		for _, p := range b.s.pages {
			p.Dirty = false
		}
		if got := Held(b.e, b.s, &Finish{Sequence: 1, Token: token(1)}); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		for _, p := range b.s.pages {
			if p.Dirty {
				t.Errorf("%s: the page is to be saved", name)
			}
		}
	}
}

// another consumes n with token 2.
func (b *bench) another(n uint64) {
	b.request(n, func(r *Request) { r.Token = token(2) })
	End(b.e, b.s, &Finish{Sequence: n, Token: token(2), Kind: Consume})
}

// TestEndNotes: what the end of a claim leaves behind.
func TestEndNotes(t *testing.T) {
	b := newBench(t)
	b.claimed(1, 0)
	b.claimed(2, 0)
	b.claimed(3, 0)
	p := b.s.pages[0]
	p.Dirty = false
	b.finish(1, Consume, Done)
	if !p.Dirty || p.Newest != testNow || p.Records() != 2 || p.Recents() != 1 || b.e.Group.Newest != testNow || !b.e.Group.Dirty {
		t.Errorf("consumed: %+v, %+v", p, b.e.Group)
	}
	b.e.Now += 10
	p.Dirty = false
	b.finish(2, Release, Done)
	if r := p.records[0]; !p.Dirty || r.changed != b.e.Now || r.status != released || p.excused.Has(2) {
		t.Errorf("released: %+v", r)
	}
	p.Dirty = false
	b.finish(3, Park, Done)
	if r := p.records[1]; !p.Dirty || r.changed != b.e.Now || r.status != parked || r.keep != b.e.Now+b.e.ParkedTTL || !p.excused.Has(3) || p.excused.Count() != 1 {
		t.Errorf("parked: %+v, excused %v", r, p.excused)
	}
	b.e.ParkedTTL = 1
	b.claimed(4, 0)
	if b.finish(4, Park, Done); p.records[2].keep != b.e.Now+testWindow {
		t.Errorf("parked for less than it is kept anyway: until %d", p.records[2].keep)
	}
	b.wants("", b.request(5, func(r *Request) { r.SealedAt -= 500; r.FreshUntil = b.e.Now }), Done)
	if b.finish(5, Consume, Done); p.Newest != testNow {
		t.Errorf("the newest is %d after an older one, want %d", p.Newest, testNow)
	}
	p = b.s.pages[0]
	b.claimed(64, Consume)
	if !p.consumed(63) || p.consumed(62) || !p.consumed(0) {
		t.Error("the bits are of others")
	}
}

// TestExtend has each state, and the end of the lease.
func TestExtend(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*bench)
		want   Outcome
	}{
		"no stream":                    {func(*bench) {}, Lost},
		"no record":                    {func(b *bench) { b.claimed(2, 0) }, Lost},
		"claimed":                      {func(b *bench) { b.claimed(1, 0) }, Done},
		"in its last millisecond":      {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease - 1 }, Done},
		"at its end":                   {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease }, Lost},
		"at its end, without a clock":  {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease; b.e.Live = dead }, Done},
		"claimed by another":           {func(b *bench) { b.request(1, func(r *Request) { r.Token = token(2) }) }, Lost},
		"released":                     {func(b *bench) { b.claimed(1, Release) }, Lost},
		"parked":                       {func(b *bench) { b.claimed(1, Park) }, Lost},
		"consumed":                     {func(b *bench) { b.claimed(1, Consume) }, Handled},
		"consumed long ago, page gone": {func(b *bench) { b.claimed(1, Consume); b.fold() }, Handled},
		"another consumed, page gone":  {func(b *bench) { b.claimed(2, Consume); b.fold() }, Lost},
	} {
		b := newBench(t)
		c.before(b)
		for _, p := range b.s.pages {
			p.Dirty = false
		}
		got := Extend(b.e, b.s, &Lease{Sequence: 1, Token: token(1), Lease: 99})
		if got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		if p := b.s.pages[0]; got == Done && (!p.Dirty || p.records[0].lease != 99 || p.records[0].changed != b.e.Now || p.records[0].beat != 2) {
			t.Errorf("%s: %+v", name, p.records[0])
		} else if p != nil && got != Done && p.Dirty {
			t.Errorf("%s: it changed the page", name)
		}
	}
}

func dead(o Observed) (int64, bool) { return o.Changed + o.Lease, false }

// TestLapse: the lease of a claim that is not live ends, once; nothing else changes, so that a
// store has nothing to write.
func TestLapse(t *testing.T) {
	for name, c := range map[string]struct {
		before func(*bench)
		lapses bool
	}{
		"no stream":       {func(*bench) {}, false},
		"no record":       {func(b *bench) { b.claimed(2, 0) }, false},
		"live":            {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease - 1 }, false},
		"over":            {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease }, true},
		"not live":        {func(b *bench) { b.claimed(1, 0); b.e.Now++; b.e.Live = dead }, true},
		"lapsed before":   {func(b *bench) { b.claimed(1, 0); b.e.Live = dead; Lapse(b.e, b.s, Key{}, 1) }, false},
		"released":        {func(b *bench) { b.claimed(1, Release); b.e.Live = dead }, false},
		"parked":          {func(b *bench) { b.claimed(1, Park); b.e.Live = dead }, false},
		"consumed":        {func(b *bench) { b.claimed(1, Consume); b.e.Live = dead }, false},
		"beside the last": {func(b *bench) { b.claimed(64, 0); b.e.Live = dead }, false},
	} {
		b := newBench(t)
		c.before(b)
		for _, p := range b.s.pages {
			p.Dirty = false
		}
		Lapse(b.e, b.s, Key{}, 1)
		p := b.s.pages[0]
		if p == nil {
			continue
		}
		if p.Dirty != c.lapses {
			t.Errorf("%s: it changed the page: %v", name, p.Dirty)
		}
		if c.lapses && (p.records[0].lease != 0 || p.records[0].status != claimed || p.records[0].changed != b.e.Now) {
			t.Errorf("%s: %+v, want a claim without a lease since now", name, p.records[0])
		}
		if c.lapses {
			b.finish(1, Consume, Done) // by its owner, which may be slow and not dead
		}
	}
}

// TestExamine has each state, and changes nothing.
func TestExamine(t *testing.T) {
	at := func(sealed int64) int64 { return sealed }
	for name, c := range map[string]struct {
		before func(*bench)
		sealed int64
		want   Look
	}{
		"no stream":                    {func(*bench) {}, testNow, Look{State: Unknown}},
		"claimed":                      {func(b *bench) { b.claimed(1, 0) }, testNow, Look{State: Claimed, FirstSeen: testNow, Until: testNow + testLease}},
		"claimed, and over":            {func(b *bench) { b.claimed(1, 0); b.e.Now += testLease }, testNow, Look{State: Claimed, FirstSeen: testNow, Until: testNow + testLease}},
		"released":                     {func(b *bench) { b.claimed(1, Release) }, testNow, Look{State: Released, FirstSeen: testNow}},
		"parked":                       {func(b *bench) { b.claimed(1, Park) }, testNow, Look{State: Parked, FirstSeen: testNow}},
		"consumed":                     {func(b *bench) { b.claimed(1, Consume) }, testNow, Look{State: Consumed}},
		"consumed long ago, page gone": {func(b *bench) { b.claimed(1, Consume); b.fold() }, testNow, Look{State: Consumed}},
		"kept to the end":              {func(b *bench) { b.claimed(1, Release); b.e.Now += testWindow - 1 }, testNow, Look{State: Released, FirstSeen: testNow}},
		"past its keep":                {func(b *bench) { b.claimed(1, Release); b.e.Now += testWindow }, testNow, Look{State: Unused}},
		"never seen":                   {func(b *bench) { b.claimed(2, 0) }, testNow, Look{State: Unused}},
		"never seen, no page":          {func(b *bench) { b.claimed(100, 0) }, testNow, Look{State: Unused}},
		"at the head's mark":           {func(b *bench) { b.claimed(2, 0); b.s.head.Mark = testNow }, at(testNow), Look{State: Unknown}},
		"newer than the head's mark":   {func(b *bench) { b.claimed(2, 0); b.s.head.Mark = testNow - 1 }, at(testNow), Look{State: Unused}},
		"at the page's mark":           {func(b *bench) { b.claimed(2, 0); b.s.pages[0].Mark = testNow }, at(testNow), Look{State: Unknown}},
		"at the birth of the store":    {func(b *bench) { b.claimed(2, 0); b.e.Birth, b.e.Group.Skew = testNow-5, 5 }, at(testNow), Look{State: Unknown}},
		"later than that":              {func(b *bench) { b.claimed(2, 0); b.e.Birth, b.e.Group.Skew = testNow-5, 4 }, at(testNow), Look{State: Unused}},
	} {
		b := newBench(t)
		c.before(b)
		for _, p := range b.s.pages {
			p.Dirty = false
		}
		if got := Examine(b.e, b.s, &Query{Sequence: 1, SealedAt: c.sealed}); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
		for _, p := range b.s.pages {
			if p.Dirty {
				t.Errorf("%s: it changed the page", name)
			}
		}
	}
}

// TestOwnersOfALiveClaim: a store without a clock says itself whether a claim is live, of
// exactly the state that it is asked for.
func TestOwnersOfALiveClaim(t *testing.T) {
	b := newBench(t)
	b.claimed(66, 0)
	var asked Observed
	b.e.Live = func(o Observed) (int64, bool) { asked = o; return 42, true }
	if c := b.request(66, func(r *Request) { r.Token = token(2) }); c.Outcome != Busy || c.Until != 42 {
		t.Errorf("claim %+v, want Busy until 42", c)
	}
	if want := (Observed{Sequence: 66, Token: token(1), Beat: 1, Lease: testLease, Changed: testNow}); asked != want {
		t.Errorf("asked for %+v, want %+v", asked, want)
	}
}

// TestGroupTakesTheLargest: of reach and skew, and grows its newest by steps.
func TestGroupTakesTheLargest(t *testing.T) {
	g := &Group{}
	for _, c := range []struct {
		reach, skew int64
		want        Group
	}{
		{5, 3, Group{Reach: 5, Skew: 3, Dirty: true}},
		{5, 3, Group{Reach: 5, Skew: 3}},
		{4, 2, Group{Reach: 5, Skew: 3}},
		{6, 1, Group{Reach: 6, Skew: 3, Dirty: true}},
		{1, 4, Group{Reach: 6, Skew: 4, Dirty: true}},
	} {
		g.Dirty = false
		if g.Ask(c.reach, c.skew); !reflect.DeepEqual(*g, c.want) {
			t.Errorf("after %d, %d: %+v, want %+v", c.reach, c.skew, *g, c.want)
		}
	}
	g = &Group{Newest: 10_000}
	for _, c := range []struct{ sealed, want int64 }{{9000, 10_000}, {10_999, 10_000}, {11_000, 11_000}} {
		g.Dirty = false
		if g.advance(c.sealed); g.Newest != c.want || g.Dirty != (c.sealed == c.want) {
			t.Errorf("after %d: %+v, want %d", c.sealed, *g, c.want)
		}
	}
	if g.Time(10_999) != 10_999 || g.Time(12_000) != 11_000 {
		t.Error("time is not the earlier of the two")
	}
}

// TestLimits has each bound reached and not.
func TestLimits(t *testing.T) {
	wide := Bound{100, 100, 100}
	at := func(r, s, i int64) Counts { return Counts{Records: r, Streams: s, Intervals: i} }
	below := at(4, 4, 4)
	for _, c := range []struct {
		counts            Counts
		plain, stream     bool // there is room
		tight, openRefuse bool
	}{
		{below, true, true, false, false},
		{at(5, 4, 4), false, false, false, true},
		{at(4, 5, 4), true, false, true, false},
		{at(4, 4, 5), false, false, true, true},
	} {
		narrow := Bound{5, 5, 5}
		room := func(out Outcome, free bool) Outcome {
			if free {
				return 0
			}
			return out
		}
		for _, stream := range []bool{false, true} {
			free := c.plain && !stream || c.stream && stream
			sender := Limits{Store: wide, Group: wide, Sender: narrow}
			group := Limits{Store: wide, Group: narrow, Sender: wide}
			store := Limits{Store: narrow, Group: wide, Sender: wide}
			if got := sender.Room(below, below, c.counts, stream); got != room(Quota, free) {
				t.Errorf("sender with %+v, stream %v: %d", c.counts, stream, got)
			}
			if got := group.Room(below, c.counts, below, stream); got != room(Full, free) {
				t.Errorf("group with %+v, stream %v: %d", c.counts, stream, got)
			}
			if got := store.Room(c.counts, below, below, stream); got != room(Full, free) {
				t.Errorf("store with %+v, stream %v: %d", c.counts, stream, got)
			}
			want := Done
			if c.openRefuse {
				want = Full
			}
			if a, b := store.Open(c.counts, below), group.Open(below, c.counts); a != want || b != want {
				t.Errorf("open with %+v: %d and %d, want %d", c.counts, a, b, want)
			}
		}
		if narrow.Tight(c.counts) != c.tight {
			t.Errorf("%+v is tight: %v", c.counts, !c.tight)
		}
	}
	l := Limits{KeepStream: 10}
	if l.Keep(&Group{Reach: 5}, false) != 10 || l.Keep(&Group{Reach: 15}, false) != 15 || l.Keep(&Group{Reach: 5}, true) != 5 {
		t.Error("streams are kept for another time")
	}
	c := Counts{1, 2, 3, 4}
	c.Add(Counts{10, 20, 30, 40})
	if c != (Counts{11, 22, 33, 44}) || c.Sub(Counts{1, 2, 3, 4}) != (Counts{10, 20, 30, 40}) {
		t.Errorf("counts %+v, want the sums", c)
	}
}

// TestWhereAStreamBegins: the accounting starts at 1 only for a stream that is younger than the
// store and than what the group dropped.
func TestWhereAStreamBegins(t *testing.T) {
	k := Key{Stream: [16]byte{0, 0, 1, 2, 3, 4, 255}}
	opened := int64(0x01020304)
	if k.Opened() != opened {
		t.Fatalf("opened at %x", k.Opened())
	}
	for _, c := range []struct {
		birth, skew, mark int64
		want              uint64
	}{
		{opened - 3, 2, opened - 1, 1},
		{opened - 2, 2, 0, 7},
		{opened - 2, 1, opened, 7},
	} {
		h := NewHead(&Env{Birth: c.birth, Group: &Group{Skew: c.skew, Mark: c.mark}}, &Request{Key: k, Sequence: 7, SealedAt: 9})
		if h.Start != c.want || h.Mark != c.mark || h.Newest != 9 || !h.Dirty {
			t.Errorf("born %d, skew %d, mark %d: %+v, want start %d", c.birth, c.skew, c.mark, h, c.want)
		}
	}
}
