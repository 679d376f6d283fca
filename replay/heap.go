package replay

// due says when something has to be looked at again. What it names may be gone
// by then, or have to wait longer.
type due[T any] struct {
	at   int64
	what T
}

// dueHeap orders what is due, the earliest first.
type dueHeap[T any] []due[T]

func (h *dueHeap[T]) push(at int64, what T) {
	*h = append(*h, due[T]{at, what})
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if s[parent].at <= s[i].at {
			break
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

// pop removes the earliest; there must be one.
func (h *dueHeap[T]) pop() due[T] {
	s := *h
	top, n := s[0], len(s)-1
	s[0] = s[n]
	s[n] = due[T]{}
	s = s[:n]
	for i := 0; ; {
		least := i
		for _, child := range [...]int{2*i + 1, 2*i + 2} {
			if child < n && s[child].at < s[least].at {
				least = child
			}
		}
		if least == i {
			break
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
	// Give memory back after a burst.
	if cap(s) > 1024 && len(s) < cap(s)/4 {
		s = append(make(dueHeap[T], 0, cap(s)/2), s...)
	}
	*h = s
	return top
}
