package replaystate

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// TestAccountsAddUp: in random streams with more losses, dead letters, rejected messages and
// retries than a head has room for, what an account lists is lost or waits for a retry, and what
// it lists and counts together is all that is lost. 200 streams with QRT_SOAK=1, 2 else.
func TestAccountsAddUp(t *testing.T) {
	forgot, seeds := false, uint64(2)
	if os.Getenv("QRT_SOAK") == "1" {
		seeds = 200
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // G404: a schedule, not a secret
		b := newBench(t)
		b.e.Birth, b.e.Group.Mark = -1<<40, -1 // both before the stream was opened
		request := func(n uint64, fresh bool) Outcome {
			return b.request(n, func(q *Request) {
				q.Settled, q.SealedAt, q.FreshUntil = n-1, testNow+int64(n), 1<<60 //nolint:gosec // G115: small
				if !fresh {
					q.FreshUntil = 0
				}
			}).Outcome
		}
		lost, waiting := map[uint64]bool{}, map[uint64]bool{}
		settle := func(index uint64) {
			if p := b.s.pages[index]; p != nil && b.s.head.Settle(p, b.e.Now, 0, 0, true) {
				delete(b.s.pages, index)
			}
		}
		consume := func(n uint64) {
			if out := request(n, true); out != Done {
				t.Fatalf("seed %d: %d begins with %d", seed, n, out)
			}
			b.finish(n, Consume, Done)
			delete(waiting, n)
		}
		check := func(when string) {
			a := Count(b.e, Key{}, b.s.head, slices.Collect(maps.Values(b.s.pages)))
			listed, settled := uint64(0), uint64(0)
			for _, m := range a.Missing {
				for n := m.Range.First; n <= m.Range.Last; n++ {
					switch {
					case lost[n]:
						settled++
					case !waiting[n]:
						t.Fatalf("seed %d, %s: %d is missing", seed, when, n)
					default:
						listed++
					}
				}
			}
			missing := uint64(0)
			for n := range lost {
				if n <= a.Settled {
					missing++
				}
			}
			if settled+a.Lost != missing || listed > uint64(len(waiting)) {
				t.Fatalf("seed %d, %s: %d losses are listed and %d counted, of %d; start %d", seed, when, settled, a.Lost, missing, a.Start)
			}
			forgot = forgot || a.Lost > 0
		}
		// How many of a thousand are lost, given back, parked and rejected, for a while.
		var share [4]int
		const last = 1500 * 64
		for n := uint64(1); n <= last; n++ {
			if n%6400 == 1 {
				for i := range share {
					share[i] = [...]int{0, r.IntN(8), r.IntN(120)}[r.IntN(3)]
				}
			}
			switch k := r.IntN(1000); {
			case k < share[0] && n < last:
				lost[n] = true
			case k < share[0]+share[1]:
				consumeAs(b, n, request(n, true), Release)
				waiting[n] = true
			case k < share[0]+share[1]+share[2]:
				consumeAs(b, n, request(n, true), Park)
			case k < share[0]+share[1]+share[2]+share[3] && b.s.head != nil:
				b.wants("stale", Claim{Outcome: request(n, false)}, NotFresh)
			default:
				consume(n)
			}
			if n%64 == 0 {
				settle(n/64 - 1)
				for n := range waiting {
					if r.IntN(400) == 0 {
						consume(n)
						settle(IndexOf(n, 64))
					}
				}
			}
			if n%10_000 == 0 {
				check("under way")
			}
		}
		for n := range waiting {
			consume(n)
		}
		for index := range b.s.pages {
			settle(index)
		}
		check("at the end")
		if len(b.s.head.Apart) > 0 {
			t.Errorf("seed %d: %v are apart", seed, b.s.head.Apart)
		}
	}
	if !forgot {
		t.Error("no stream had more losses than it lists")
	}
}

// consumeAs ends the claim of n as kind.
func consumeAs(b *bench, n uint64, out Outcome, kind Kind) {
	b.wants("", Claim{Outcome: out}, Done)
	b.finish(n, kind, Done)
}
