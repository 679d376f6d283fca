package replaystate

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// longStream is a stream of which messages are lost, given back, parked, rejected and not sent, in
// pages that are folded in any order and reloaded, and what is true of them.
type longStream struct {
	*bench
	random                                    *rand.Rand
	lost, waiting, parked, accounted, handled map[uint64]bool
	voids                                     []uint64       // that messages carry, with how often they still do
	carried                                   map[uint64]int // how often voids were carried
	settled                                   []int64        // by sequence, when it was settled
	due                                       map[uint64]uint64
}

// step is how far the clock goes between two messages.
const step = 100

// request asks for a message of the stream as its sender has sealed it. A later copy settles nothing new.
func (l *longStream) request(n uint64, first, fresh bool) Outcome {
	return Begin(l.e, l.s, l.sealed(n, first, fresh)).Outcome
}

func (l *longStream) sealed(n uint64, first, fresh bool) *Request {
	q := &Request{
		Sequence: n, Token: token(1), Tag: [8]byte{1}, SealedAt: testNow + int64(n), Now: testNow, RetryWindow: 1 << 50, Lease: testLease, //nolint:gosec // G115: small
	}
	if fresh {
		q.FreshUntil = 1 << 60
	}
	if !first {
		return q
	}
	q.Settled = n - 1
	for uint64(len(l.settled)) < n {
		l.settled = append(l.settled, l.e.Now)
	}
	for _, v := range l.voids {
		q.Void = append(q.Void, Range{v, v})
		l.carried[v]++
	}
	l.voids = slices.DeleteFunc(l.voids, func(v uint64) bool { return l.carried[v] == 64 })
	return q
}

func (l *longStream) settle(index uint64) {
	if p := l.s.pages[index]; p != nil && l.bench.settle(p) {
		delete(l.s.pages, index)
	}
}

// end claims a message and ends the claim as kind.
func (l *longStream) end(n uint64, first bool, kind Kind) {
	l.Helper()
	if out := l.request(n, first, true); out != Done {
		l.Fatalf("%d begins with %d", n, out)
	}
	l.finish(n, kind, Done)
	l.handled[n], l.waiting[n], l.parked[n] = kind == Consume, kind == Release, kind == Park
}

// again handles some messages of a set that waited.
func (l *longStream) again(set map[uint64]bool, of int) {
	for _, n := range slices.Sorted(maps.Keys(set)) {
		if !set[n] {
			delete(set, n)
		} else if l.random.IntN(of) == 0 {
			l.end(n, false, Consume)
			l.settle(IndexOf(n, l.e.Span))
		}
	}
}

func (l *longStream) reload() {
	for index, p := range l.s.pages {
		b := AppendPage(nil, p)
		q, err := DecodePage(b, index, l.e.Span)
		if err != nil || !bytes.Equal(b, AppendPage(nil, q)) {
			l.Fatal("a page does not survive its encoding:", err)
		}
		l.s.pages[index] = q
	}
	b := AppendHead(nil, l.s.head)
	h, err := DecodeHead(b)
	if err != nil || !bytes.Equal(b, AppendHead(nil, h)) {
		l.Fatal("a head does not survive its encoding:", err)
	}
	l.s.head = h
}

// check holds the account against what is true.
func (l *longStream) check() (forgotten bool) {
	l.Helper()
	h := l.s.head
	if len(h.Intervals) > MaxIntervals || len(h.Excused) > maxExcused || len(h.Steps) > MaxIntervals || len(h.Apart) > maxApart {
		l.Fatalf("the head has %d intervals, %d excused, %d steps and %d apart", len(h.Intervals), len(h.Excused), len(h.Steps), len(h.Apart))
	}
	a := Count(l.e, Key{}, h, slices.Collect(maps.Values(l.s.pages)))
	listed, losses := uint64(0), uint64(0)
	for _, m := range a.Missing {
		for n := m.Range.First; n <= m.Range.Last; n++ {
			switch at := l.settled[n]; {
			case l.waiting[n]:
			case !l.lost[n]:
				l.Fatalf("%d is missing; accounted for otherwise: %v; the account begins at %d", n, l.accounted[n], a.Start)
			case m.Since < at || m.Since > at+(l.e.Now-at)/4+64*step:
				l.Fatalf("now is %d, and %d is missing since %d, want about %d", l.e.Now-testNow, n, m.Since-testNow, at-testNow)
			default:
				listed++
			}
		}
	}
	for n := range l.lost {
		if n <= a.Settled {
			losses++
		}
	}
	if listed+a.Lost != losses {
		l.Fatalf("%d losses are listed and %d counted, of %d; the account begins at %d", listed, a.Lost, losses, a.Start)
	}
	return a.Lost > 0
}

// TestLongStreams: in random streams, with more of everything than a head has room for, whose pages
// are folded early and late and again, what is listed as missing is lost or waits for a retry, and
// since about when it was settled; what is listed and counted together is all that is lost; and
// nothing that was consumed is granted again. 200 streams with QRT_SOAK=1, 1 else.
func TestLongStreams(t *testing.T) {
	const begin = 15 // the first of which more is lost than listed
	seeds, last := uint64(1), uint64(600*64)
	if os.Getenv("QRT_SOAK") == "1" {
		seeds, last = 200, 1500*64
	}
	for seed := uint64(begin); seed < begin+seeds; seed++ {
		r := rand.New(rand.NewPCG(seed, 9)) //nolint:gosec // G404: a schedule, not a secret
		b := newBench(t)
		b.e.Birth, b.e.Group.Mark, b.e.ParkedTTL = -1<<40, -1, 1<<50 // both before the stream was opened
		l := &longStream{
			bench: b, random: r, lost: map[uint64]bool{}, waiting: map[uint64]bool{}, parked: map[uint64]bool{},
			accounted: map[uint64]bool{}, handled: map[uint64]bool{}, carried: map[uint64]int{}, settled: []int64{0}, due: map[uint64]uint64{},
		}
		l.end(1, true, Consume)
		forgot := false
		// How many of a thousand are lost, given back, parked, rejected and void, for a while.
		var share [5]int
		for n := uint64(2); n <= last; n++ {
			b.e.Now += step
			if n%3200 == 2 {
				for i := range share {
					share[i] = [...]int{0, r.IntN(8), r.IntN(120)}[r.IntN(3)]
				}
			}
			k := r.IntN(1000)
			is := func(i int) bool { k -= share[i]; return k < 0 }
			switch {
			case n == last:
				l.end(n, true, Consume)
			case is(0):
				l.lost[n] = true
			case is(1):
				l.end(n, true, Release)
			case is(2):
				l.end(n, true, Park)
			case is(3):
				b.wants("stale", Claim{Outcome: l.request(n, true, false)}, NotFresh)
				l.accounted[n] = true
			case is(4) && len(l.voids) < 8:
				l.voids, l.accounted[n] = append(l.voids, n), true
			default:
				l.end(n, true, Consume)
			}
			if n%64 > 0 {
				continue
			}
			l.due[n/64-1] = n/64 + [...]uint64{0, 0, 0, r.Uint64N(300)}[r.IntN(4)]
			for _, index := range slices.Sorted(maps.Keys(l.due)) {
				if l.due[index] <= n/64 {
					l.settle(index)
					delete(l.due, index)
				}
			}
			l.again(l.waiting, 400)
			l.again(l.parked, 4000)
			if r.IntN(100) == 0 {
				l.reload()
			}
			if n%6400 == 0 {
				forgot = l.check() || forgot
			}
		}
		l.again(l.waiting, 1)
		for _, index := range slices.Sorted(maps.Keys(l.s.pages)) {
			l.settle(index)
		}
		l.check()
		for n := range l.handled {
			if out := l.request(n, false, true); l.handled[n] && out == Done {
				t.Fatalf("seed %d: %d was handled and is granted again", seed, n)
			}
		}
		if seed == begin && !forgot {
			t.Error("the stream has no more losses than it lists")
		}
	}
}
