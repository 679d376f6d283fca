package replay

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// What is due comes out in its order, whatever was added meanwhile.
func TestHeapOrders(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // G404: an order, not a secret
	var h dueHeap[int]
	var held []int64
	for n := range 2000 {
		if at := 1 + r.Int64N(500); n < 1000 && r.IntN(3) > 0 || len(h) == 0 {
			h.push(at, int(at))
			held = append(held, at)
			continue
		}
		least := slices.Index(held, slices.Min(held))
		if got := h.pop(); got.at != held[least] || int64(got.what) != got.at {
			t.Fatalf("%d (%d) came out, want %d", got.at, got.what, held[least])
		}
		held = slices.Delete(held, least, least+1)
		if left := h[:len(h)+1][len(h)]; left != (due[int]{}) {
			t.Fatalf("%d is held on to after it came out", left.what)
		}
	}
}

// After a burst the memory is given back, and in few steps: each copies all that is left.
func TestHeapGivesMemoryBack(t *testing.T) {
	const burst = 100_000
	var h dueHeap[struct{}]
	for at := range int64(burst) {
		h.push(at, struct{}{})
	}
	copies, small := 0, 0
	for len(h) > 0 {
		before := cap(h)
		if h.pop(); cap(h) != before {
			copies++
		}
		if n := len(h); n > 1024 && cap(h) > 4*n+4 {
			t.Fatalf("%d take the memory of %d", n, cap(h))
		}
		if len(h) == 100 {
			small = cap(h)
		}
	}
	if copies < 5 || copies > 10 || small > 2048 {
		t.Errorf("%d copies, and 100 take the memory of %d; want about one for each half", copies, small)
	}
}
