package sbemulator

import "container/heap"

// readyHeap holds records that can be delivered, the lowest number first. What
// was locked, moved or removed by other ways is skipped when it comes up.
type readyHeap struct{ h recordHeap }

func (r *readyHeap) push(x *record) { heap.Push(&r.h, x) }

// peek returns the first deliverable record, nil when there is none.
func (r *readyHeap) peek() *record {
	for len(r.h) > 0 {
		if x := r.h[0]; x.q != nil && x.state == Active && x.lock == nil {
			return x
		}
		r.pop()
	}
	return nil
}

// pop removes the first record of the heap.
func (r *readyHeap) pop() { heap.Pop(&r.h).(*record).ready = false }

type recordHeap []*record

func (h recordHeap) Len() int           { return len(h) }
func (h recordHeap) Less(i, j int) bool { return h[i].seq < h[j].seq }
func (h recordHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *recordHeap) Push(x any)        { *h = append(*h, x.(*record)) }

func (h *recordHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return x
}
