package stream

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/queue-runtime/queue/envelope"
)

// model is what is true of one stream: the end of each sequence, and what
// confirmed messages said.
type model struct {
	ends     map[uint64]state
	sessions map[string]uint64 // the last confirmed
	carried  map[uint64]int    // by void sequence: confirmed messages whose ranges have it
	settled  uint64            // the largest that a message said
}

// check holds a new number against what is true, and not against how it is found.
func (m *model) check(t *testing.T, n *Number) {
	t.Helper()
	h := envelope.Header{KeyID: "k", Origin: "q", Stream: n.Stream, Sequence: n.Sequence, Settled: n.Settled, Previous: n.Previous}
	said := make(map[uint64]bool)
	for _, r := range n.Voids {
		h.Void = append(h.Void, envelope.Range(r))
		for i := r.First; i <= r.Last; i++ {
			said[i] = true
		}
	}
	if err := h.Validate(); err != nil {
		t.Fatalf("%+v: %v", n, err)
	}
	if n.Settled < m.settled {
		t.Fatalf("settled goes back from %d to %d", m.settled, n.Settled)
	}
	m.settled = n.Settled
	for i := uint64(1); i <= n.Settled; i++ {
		switch m.ends[i] {
		case confirmed:
			if said[i] {
				t.Fatalf("%d is confirmed, and %v says void", i, n.Voids)
			}
		case void:
			if !said[i] && m.carried[i] < voidRepeats {
				t.Fatalf("%d is void and left out after %d messages", i, m.carried[i])
			}
		default:
			t.Fatalf("settled %d, and %d is neither confirmed nor void", n.Settled, i)
		}
	}
	// It stands still for a reason only: a message that has not ended, or eight
	// ranges before a ninth.
	if end := m.ends[n.Settled+1]; n.Settled+1 < n.Sequence && (end == confirmed || end == void && len(n.Voids) < maxVoid) {
		t.Fatalf("settled stands at %d, with %v, although %d has ended", n.Settled, n.Voids, n.Settled+1)
	}
}

// Random sends, ends and calls, against what is true by definition.
func TestModel(t *testing.T) {
	rounds := 60
	if os.Getenv("QRT_SOAK") == "1" {
		rounds = 6000
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		s := New(nil)
		models := make(map[ID]*model)
		var open []Number
		weights := [3]int{1 + r.IntN(20), r.IntN(6), r.IntN(10) / 9} // confirm, void, unknown
		end := func(i int) {
			n := &open[i]
			m := models[n.Stream]
			switch x := r.IntN(weights[0] + weights[1] + weights[2]); {
			case x < weights[0]:
				n.Confirm()
				m.ends[n.Sequence] = confirmed
				m.sessions[n.session] = max(m.sessions[n.session], n.Sequence)
				for _, v := range n.Voids {
					for i := v.First; i <= v.Last; i++ {
						m.carried[i]++
					}
				}
			case x < weights[0]+weights[1]:
				n.Void()
				m.ends[n.Sequence] = void
			default:
				n.Unknown()
				m.ends[n.Sequence] = unknown
			}
			open[i] = open[len(open)-1]
			open = open[:len(open)-1]
		}
		for range 300 {
			call := s.Call(at(0))
			own := make(map[string]uint64)
			for range 1 + r.IntN(4) {
				session := fmt.Sprint(r.IntN(3))
				n := call.Next(Plain, "k", session)
				m := models[n.Stream]
				if m == nil {
					m = &model{ends: make(map[uint64]state), sessions: make(map[string]uint64), carried: make(map[uint64]int)}
					models[n.Stream] = m
					clear(own)
				}
				m.check(t, &n)
				want := m.sessions[session]
				if last, ok := own[session]; ok {
					want = last
				}
				if n.Previous != want {
					t.Fatalf("seed %d: previous %d of %d, want %d", seed, n.Previous, n.Sequence, want)
				}
				own[session] = n.Sequence
				m.ends[n.Sequence] = outstanding
				open = append(open, n)
			}
			for len(open) > 0 && r.IntN(10) > 0 {
				end(r.IntN(len(open)))
			}
		}
	}
}
