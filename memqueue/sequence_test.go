package memqueue

import (
	"math/rand/v2"
	"testing"
)

// A sequence keeps order and finds what follows, whatever was removed.
func TestSequence(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var s sequence
	var model []*message // in order
	var seq uint64
	for step := range 20000 {
		if random.IntN(100) < 90-80*((step/2000)%2) {
			seq += uint64(1 + random.IntN(3))
			m := &message{seq: seq}
			s.add(m)
			model = append(model, m)
		} else if len(model) > 0 {
			i := random.IntN(len(model))
			if random.IntN(2) == 0 {
				i = 0 // queues are mostly emptied from the front
			}
			s.remove(model[i])
			model = append(model[:i], model[i+1:]...)
		}
		if s.live != len(model) {
			t.Fatalf("step %d: %d messages, want %d", step, s.live, len(model))
		}
		if len(s.slots) > 2*s.live+gapSlack {
			t.Fatalf("step %d: %d slots for %d messages", step, len(s.slots), s.live)
		}
		var want *message
		from := uint64(random.IntN(int(seq) + 2))
		for _, m := range model {
			if m.seq >= from {
				want = m
				break
			}
		}
		if got, _ := s.from(s.search(from)); got != want {
			t.Fatalf("step %d: from %d: got %v, want %v", step, from, got, want)
		}
		want = nil
		if len(model) > 0 {
			want = model[0]
		}
		if got := s.first(); got != want {
			t.Fatalf("step %d: first: got %v, want %v", step, got, want)
		}
	}
	all := s.all()
	if len(all) != len(model) {
		t.Fatalf("%d messages, want %d", len(all), len(model))
	}
	for i := range all {
		if all[i] != model[i] {
			t.Fatalf("message %d is out of order", i)
		}
	}
}
