package replay

// due says when something has to be looked at again. What it names may have to wait
// longer by then.
type due[T any] struct {
	at   int64
	what T
}

// dueHeap orders what is due, the earliest first.
type dueHeap[T any] struct {
	all []due[T]
	// placed, unless nil, is told the place of what moves, for take.
	placed func(what T, place int)
}

// next returns when the earliest is due, and whether there is any.
func (h *dueHeap[T]) next() (at int64, ok bool) {
	if len(h.all) == 0 {
		return 0, false
	}
	return h.all[0].at, true
}

func (h *dueHeap[T]) push(at int64, what T) {
	h.all = append(h.all, due[T]{})
	h.up(len(h.all)-1, due[T]{at, what})
}

// pop removes the earliest; there must be one.
func (h *dueHeap[T]) pop() due[T] { return h.take(0) }

// take removes what is at a place.
func (h *dueHeap[T]) take(place int) due[T] {
	n := len(h.all) - 1
	taken, last := h.all[place], h.all[n]
	h.all[n] = due[T]{}
	h.all = h.all[:n]
	switch {
	case place == n:
	case last.at < taken.at:
		h.up(place, last)
	default:
		h.down(place, last)
	}
	// Give memory back after a burst.
	if cap(h.all) > 1024 && n < cap(h.all)/4 {
		h.all = append(make([]due[T], 0, cap(h.all)/2), h.all...)
	}
	return taken
}

// up puts d at place i, which is free, or above it.
func (h *dueHeap[T]) up(i int, d due[T]) {
	for i > 0 {
		parent := (i - 1) / 2
		if h.all[parent].at <= d.at {
			break
		}
		h.put(i, h.all[parent])
		i = parent
	}
	h.put(i, d)
}

// down puts d at place i, which is free, or below it.
func (h *dueHeap[T]) down(i int, d due[T]) {
	for {
		least := 2*i + 1
		if other := least + 1; other < len(h.all) && h.all[other].at < h.all[least].at {
			least = other
		}
		if least >= len(h.all) || h.all[least].at >= d.at {
			break
		}
		h.put(i, h.all[least])
		i = least
	}
	h.put(i, d)
}

func (h *dueHeap[T]) put(i int, d due[T]) {
	h.all[i] = d
	if h.placed != nil {
		h.placed(d.what, i)
	}
}
