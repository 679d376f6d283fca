package memqueue

import "slices"

// deliverable keeps messages in the order of their seq. Almost all come in that order and
// leave in it: they stand in a row, and cost no comparison however many wait. Those that
// come back are in a heap.
type deliverable struct {
	row    []*message // ascending; nil in the place of one that left from the middle, never the first
	live   int        // messages in row
	gone   int        // places that left row at its front
	newest uint64     // the highest seq that ever stood in row

	back ranking[*message]
}

// rowSlack is how many places of a row may be empty beyond one a message.
const rowSlack = 64

func (d *deliverable) len() int { return d.live + len(d.back) }

// first returns the message with the lowest seq, nil if there is none.
func (d *deliverable) first() *message {
	switch {
	case len(d.back) == 0 && d.live == 0:
		return nil
	case len(d.back) == 0 || d.live > 0 && d.row[0].before(d.back.first()):
		return d.row[0]
	}
	return d.back.first()
}

func (d *deliverable) push(m *message) {
	if m.seq < d.newest {
		d.back.push(m)
		return
	}
	d.newest = m.seq
	d.row = append(d.row, m)
	d.live++
	m.slot = d.gone + len(d.row)
}

// remove takes out m, which is in d.
func (d *deliverable) remove(m *message) {
	if m.slot == 0 {
		d.back.remove(m)
		return
	}
	d.row[m.slot-d.gone-1] = nil
	m.slot = 0
	d.live--
	for len(d.row) > 0 && d.row[0] == nil {
		d.row = d.row[1:]
		d.gone++
	}
	if len(d.row) > 2*d.live+rowSlack {
		d.row = slices.DeleteFunc(d.row, func(m *message) bool { return m == nil })
		d.gone = 0
		for i, m := range d.row {
			m.slot = i + 1
		}
	}
}
