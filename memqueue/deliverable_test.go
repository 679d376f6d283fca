package memqueue

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// has reports whether m, which may be in another deliverable, is in d.
func (d *deliverable) has(m *message) bool {
	if i := m.slot - d.gone - 1; m.slot != 0 {
		return i >= 0 && i < len(d.row) && d.row[i] == m
	}
	return m.rank > 0 && m.rank <= len(d.back) && d.back[m.rank-1] == m
}

// TestDeliverable lets messages come, leave from anywhere and come back, and holds what is
// first against a list.
func TestDeliverable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var d deliverable
	var in, out []*message
	seq := uint64(0)
	for step := range 20_000 {
		switch k := random.IntN(8); {
		case k < 3:
			seq++
			m := &message{seq: seq}
			d.push(m)
			in = append(in, m)
		case k < 6 && len(in) > 0:
			i := 0
			if k == 5 {
				i = random.IntN(len(in))
			}
			d.remove(in[i])
			if in[i].slot != 0 || in[i].rank != 0 {
				t.Fatalf("step %d: what was removed has slot %d and rank %d", step, in[i].slot, in[i].rank)
			}
			if random.IntN(2) == 0 {
				out = append(out, in[i])
			}
			in = slices.Delete(in, i, i+1)
		case k == 6 && len(out) > 0:
			i := random.IntN(len(out))
			d.push(out[i])
			in = append(in, out[i])
			out = slices.Delete(out, i, i+1)
		}
		slices.SortFunc(in, func(a, b *message) int { return cmp.Compare(a.seq, b.seq) })
		var want *message
		if len(in) > 0 {
			want = in[0]
		}
		if got := d.first(); got != want || d.len() != len(in) {
			t.Fatalf("step %d: first is %v of %d, want %v of %d", step, got, d.len(), want, len(in))
		}
		for _, m := range in {
			if !d.has(m) {
				t.Fatalf("step %d: message %d is lost", step, m.seq)
			}
		}
		if len(d.row) > 2*d.live+rowSlack {
			t.Fatalf("step %d: a row of %d for %d messages", step, len(d.row), d.live)
		}
	}
}

// TestRowShrinks: messages that leave behind one that stays take no room.
func TestRowShrinks(t *testing.T) {
	var d deliverable
	first := &message{seq: 1}
	d.push(first)
	for seq := range uint64(10_000) {
		m := &message{seq: seq + 2}
		d.push(m)
		d.remove(m)
	}
	if d.first() != first || d.len() != 1 || len(d.row) > 2+rowSlack {
		t.Errorf("a row of %d for %d messages", len(d.row), d.len())
	}
}
