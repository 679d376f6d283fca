package memqueue

import "container/heap"

// ranked is what a ranking holds: it knows its order and its place.
type ranked[E any] interface {
	before(E) bool
	place() *int // 0: in no ranking, otherwise the index plus 1
}

// ranking is a heap whose elements know their place, so that they can leave from the
// middle. It implements heap.Interface; its other methods are for callers.
type ranking[E ranked[E]] []E

func (r ranking[E]) Len() int           { return len(r) }
func (r ranking[E]) Less(i, j int) bool { return r[i].before(r[j]) }

func (r ranking[E]) Swap(i, j int) {
	r[i], r[j] = r[j], r[i]
	*r[i].place(), *r[j].place() = i+1, j+1
}

// Push appends, for package heap.
func (r *ranking[E]) Push(x any) {
	e := x.(E)
	*r = append(*r, e)
	*e.place() = len(*r)
}

// Pop removes the last, for package heap.
func (r *ranking[E]) Pop() any {
	last := len(*r) - 1
	e := (*r)[last]
	var none E
	(*r)[last] = none
	*r = (*r)[:last]
	*e.place() = 0
	return e
}

func (r ranking[E]) first() E    { return r[0] }
func (r *ranking[E]) push(e E)   { heap.Push(r, e) }
func (r *ranking[E]) pop() E     { return heap.Pop(r).(E) }
func (r *ranking[E]) remove(e E) { heap.Remove(r, *e.place()-1) } // e must be in r
func (r *ranking[E]) fix(e E)    { heap.Fix(r, *e.place()-1) }    // after e's rank has changed
