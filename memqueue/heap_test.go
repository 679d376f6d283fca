package memqueue

import (
	"math/rand/v2"
	"slices"
	"testing"
)

type item struct {
	key  int
	rank int
}

func (i *item) before(o *item) bool { return i.key < o.key }
func (i *item) place() *int         { return &i.rank }

// A heap that elements join, leave and change rank in gives them in order.
func TestHeap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var h ranking[*item]
	in := make(map[*item]bool)
	some := func() *item {
		for i := range in {
			return i
		}
		return nil
	}
	for step := range 5000 {
		switch random.IntN(4) {
		case 0, 1:
			i := &item{key: random.IntN(100)}
			h.push(i)
			in[i] = true
		case 2:
			if i := some(); i != nil {
				h.remove(i)
				delete(in, i)
				if i.rank != 0 {
					t.Fatalf("step %d: what was removed has the place %d", step, i.rank)
				}
			}
		case 3:
			if i := some(); i != nil {
				i.key = random.IntN(100)
				h.fix(i)
			}
		}
		if len(h) != len(in) {
			t.Fatalf("step %d: %d elements, want %d", step, len(h), len(in))
		}
		for k, i := range h {
			if i.rank != k+1 || k > 0 && i.before(h[(k-1)/2]) {
				t.Fatalf("step %d: element %d of %d is out of place", step, k, len(h))
			}
		}
	}
	var got []int
	for len(h) > 0 {
		got = append(got, h.pop().key)
	}
	if !slices.IsSorted(got) || len(got) != len(in) {
		t.Errorf("popped %v", got)
	}
}
