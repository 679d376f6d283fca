package sbqueue

// doubles knows the copies that were sent more than once, because the answer to the first
// attempt was missing: the broker may have two of them. The first that arrives is handled, and
// a second is completed. It knows only what this source has sent: what another process receives
// is told apart by a replay store.
type doubles struct {
	first map[string]int64 // by message ID: the sequence number of the one that came first; 0: none yet
	order []string         // of the IDs, oldest first
}

// maxDoubles bounds what is remembered: a few for each connection that was lost.
const maxDoubles = 4096

// expect says that a copy of this ID may have been stored twice.
func (d *doubles) expect(id string) {
	if _, there := d.first[id]; there {
		return
	}
	if d.first == nil {
		d.first = make(map[string]int64)
	}
	if len(d.order) == maxDoubles {
		delete(d.first, d.order[0])
		d.order = d.order[1:]
	}
	d.first[id] = 0
	d.order = append(d.order, id)
}

// isSecond reports whether a message is a double of one that came before.
func (d *doubles) isSecond(id string, sequence int64) bool {
	first, there := d.first[id]
	if there && first == 0 {
		d.first[id] = sequence
	}
	return there && first != 0 && first != sequence
}
