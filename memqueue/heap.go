package memqueue

// ranked is what a heap holds: it knows its order and its place.
type ranked[E any] interface {
	before(E) bool
	place() *int // 0: in no heap, otherwise the index plus 1
}

// heap is a binary heap whose elements can leave from the middle.
type heap[E ranked[E]] []E

func (h heap[E]) first() E { return h[0] }

func (h *heap[E]) push(e E) {
	*h = append(*h, e)
	h.up(len(*h) - 1)
}

func (h *heap[E]) pop() E {
	e := (*h)[0]
	h.remove(e)
	return e
}

// remove takes e out, which must be in h.
func (h *heap[E]) remove(e E) {
	i, last := *e.place()-1, len(*h)-1
	moved := (*h)[last]
	var none E
	(*h)[last] = none
	*h = (*h)[:last]
	*e.place() = 0
	if i == last {
		return
	}
	(*h)[i] = moved
	h.up(h.down(i))
}

// fix restores the order after e's rank has changed.
func (h heap[E]) fix(e E) { h.up(h.down(*e.place() - 1)) }

func (h heap[E]) up(i int) {
	e := h[i]
	for i > 0 {
		parent := (i - 1) / 2
		if !e.before(h[parent]) {
			break
		}
		h[i] = h[parent]
		*h[i].place() = i + 1
		i = parent
	}
	h[i] = e
	*e.place() = i + 1
}

// down returns where the element ends up.
func (h heap[E]) down(i int) int {
	e := h[i]
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if child+1 < len(h) && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(e) {
			break
		}
		h[i] = h[child]
		*h[i].place() = i + 1
		i = child
	}
	h[i] = e
	*e.place() = i + 1
	return i
}
