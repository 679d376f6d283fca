package cas_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

// distant is a backend 4 to 8 ms away that serves any number of requests at once.
type distant struct{ m *memory }

// hop is one way, in a bubble.
func hop() { time.Sleep(2*time.Millisecond + rand.N(2*time.Millisecond)) } //nolint:gosec // G404: a network, not a secret

func (d distant) Get(ctx context.Context, key string) (cas.Item, error) {
	hop()
	defer hop()
	return d.m.Get(ctx, key)
}

func (d distant) Create(ctx context.Context, key string, value []byte) (cas.Item, bool, error) {
	hop()
	defer hop()
	return d.m.Create(ctx, key, value)
}

func (d distant) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	hop()
	defer hop()
	return d.m.Swap(ctx, key, version, value)
}

func (d distant) Scan(ctx context.Context, prefix string) iter.Seq2[cas.Item, error] {
	hop()
	return d.m.Scan(ctx, prefix)
}

// transactional is a distant backend that swaps all or none, and then one by one.
type transactional struct{ distant }

func (d transactional) SwapAll(ctx context.Context, changes []cas.Change) ([]cas.Changed, error) {
	out := make([]cas.Changed, len(changes))
	if d.all(changes, out) {
		return out, nil
	}
	var wg sync.WaitGroup
	for i, c := range changes {
		wg.Go(func() {
			if out[i].Current, out[i].Swapped, _ = d.Swap(ctx, c.Key, c.Version, c.Value); !out[i].Swapped {
				out[i].Current, _ = d.Get(ctx, c.Key)
			}
		})
	}
	wg.Wait()
	return out, nil
}

func (d transactional) all(changes []cas.Change, out []cas.Changed) bool {
	hop()
	defer hop()
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	if slices.ContainsFunc(changes, func(c cas.Change) bool { return d.m.items[c.Key].Version != c.Version }) {
		return false
	}
	for i, c := range changes {
		out[i] = cas.Changed{Current: d.m.put(c.Key, c.Value), Swapped: true}
	}
	return true
}

// TestContention: 8 receivers of 4 processes share batches of 32 messages of 20 senders, so
// that all work on the same pages all the time. No call fails, and every process gets on.
func TestContention(t *testing.T) {
	const senders, processes, size = 20, 4, 32
	for name, kind := range map[string]func(*memory) cas.Backend{
		"alone":   func(m *memory) cas.Backend { return distant{m} },
		"batches": func(m *memory) cas.Backend { return transactional{distant{m}} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				var next atomic.Uint64
				var done [processes]atomic.Int64
				var wg sync.WaitGroup
				start := time.Now()
				for p := range processes {
					s := open(t, kind(m), nil)
					for range 2 {
						wg.Go(func() {
							for time.Since(start) < 3*time.Second {
								var r []replay.Request
								first := (next.Add(1) - 1) * size
								for n := range uint64(size) {
									x := request(1, (first+n)/senders+1)
									x.Previous, x.ID.Sender = 0, fmt.Sprint((first+n)%senders)
									binary.BigEndian.PutUint64(x.Tag[:], first+n)
									r = append(r, x)
								}
								if _, err := s.Begin(t.Context(), "group", r); err != nil {
									t.Errorf("process %d: Begin: %v", p, err)
									return
								}
								f := make([]replay.Finish, size)
								for i := range r {
									f[i] = replay.Finish{ID: r[i].ID, Token: r[i].Token, Kind: replay.Consumed}
								}
								if _, err := s.Finish(t.Context(), "group", f); err != nil {
									t.Errorf("process %d: Finish: %v", p, err)
									return
								}
								done[p].Add(size)
							}
						})
					}
				}
				wg.Wait()
				var sum int64
				for p := range done {
					sum += done[p].Load()
				}
				t.Logf("%d messages a second, %.2f requests for each", sum/3, float64(m.calls)/2/float64(sum))
				for p := range done {
					if n := done[p].Load(); n*processes*20 < sum { // a twentieth of its share
						t.Errorf("process %d handled %d of %d messages", p, n, sum)
					}
				}
			})
		})
	}
}
