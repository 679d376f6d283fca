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
		if at := 1 + r.Int64N(500); n < 1000 && r.IntN(3) > 0 || len(h.all) == 0 {
			h.push(at, int(at))
			held = append(held, at)
			continue
		}
		least := slices.Index(held, slices.Min(held))
		if got := h.pop(); got.at != held[least] || int64(got.what) != got.at {
			t.Fatalf("%d (%d) came out, want %d", got.at, got.what, held[least])
		}
		held = slices.Delete(held, least, least+1)
		if left := h.all[:len(h.all)+1][len(h.all)]; left != (due[int]{}) {
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
	for len(h.all) > 0 {
		before := cap(h.all)
		if h.pop(); cap(h.all) != before {
			copies++
		}
		if n := len(h.all); n > 1024 && cap(h.all) > 4*n+4 {
			t.Fatalf("%d take the memory of %d", n, cap(h.all))
		}
		if len(h.all) == 100 {
			small = cap(h.all)
		}
	}
	if copies < 5 || copies > 10 || small > 2048 {
		t.Errorf("%d copies, and 100 take the memory of %d; want about one for each half", copies, small)
	}
}

// What has a place is taken from it, and the others come out in their order.
func TestHeapTakes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1)) //nolint:gosec // G404: an order, not a secret
	type thing struct {
		at    int64
		place int
	}
	h := dueHeap[*thing]{placed: func(x *thing, place int) { x.place = place }}
	var held []*thing
	for range 5000 {
		if len(held) == 0 || r.IntN(2) == 0 {
			x := &thing{at: r.Int64N(500)}
			held = append(held, x)
			h.push(x.at, x)
			continue
		}
		i := r.IntN(len(held))
		if got := h.take(held[i].place); got.what != held[i] || got.at != held[i].at {
			t.Fatalf("%+v was taken, want %+v", got.what, held[i])
		}
		held = slices.Delete(held, i, i+1)
		if at, ok := h.next(); ok && at != slices.MinFunc(held, func(a, b *thing) int { return int(a.at - b.at) }).at {
			t.Fatalf("the earliest is said to be due at %d", at)
		}
	}
	for last := int64(0); len(h.all) > 0; {
		got := h.pop()
		if got.at < last || got.what.at != got.at {
			t.Fatalf("%+v comes after %d", got.what, last)
		}
		last = got.at
	}
}
