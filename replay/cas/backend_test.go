package cas_test

import (
	"context"
	"errors"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/replay/cas"
)

// memory is a Backend in memory, with faults.
type memory struct {
	mu    sync.Mutex
	items map[string]cas.Item
	last  int // version
	calls int

	writes, written int // and their bytes

	// Of a thousand writes, so many are done without an answer, meet a change by
	// another writer, or take up to delay.
	lost, conflicts int
	delay           time.Duration
	random          *rand.Rand
}

func newMemory() *memory {
	return &memory{items: make(map[string]cas.Item), random: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // G404: faults, not secrets
}

var errAnswerLost = errors.New("the backend's answer was lost")

// chance reports whether one of a thousand events happens; the mutex is held.
func (m *memory) chance(n int) bool { return n > 0 && m.random.IntN(1000) < n }

func (m *memory) wait() {
	m.mu.Lock()
	d := time.Duration(0)
	if m.delay > 0 {
		d = time.Duration(m.random.Int64N(int64(m.delay)))
	}
	m.calls++
	m.mu.Unlock()
	if d > 0 {
		<-time.After(d) // in a bubble
	}
}

func (m *memory) put(key string, value []byte) cas.Item {
	m.last++
	m.writes++
	m.written += len(key) + len(value)
	item := cas.Item{Key: key, Version: strconv.Itoa(m.last), Value: slices.Clone(value)}
	m.items[key] = item
	return item
}

func (m *memory) Get(_ context.Context, key string) (cas.Item, error) {
	m.wait()
	defer m.wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.items[key], nil
}

func (m *memory) Create(_ context.Context, key string, value []byte) (cas.Item, bool, error) {
	m.wait()
	defer m.wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if item, ok := m.items[key]; ok {
		return item, false, nil
	}
	item := m.put(key, value)
	if m.chance(m.lost) {
		return cas.Item{}, false, errAnswerLost
	}
	return item, true, nil
}

func (m *memory) Swap(_ context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	m.wait()
	defer m.wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	item, ok := m.items[key]
	if ok && m.chance(m.conflicts) {
		item = m.put(key, item.Value) // another writer wrote the same
	}
	if !ok || item.Version != version {
		return item, false, nil
	}
	if value == nil {
		delete(m.items, key)
		item = cas.Item{}
	} else {
		item = m.put(key, value)
	}
	if m.chance(m.lost) {
		return cas.Item{}, false, errAnswerLost
	}
	return item, true, nil
}

func (m *memory) Scan(_ context.Context, prefix string) iter.Seq2[cas.Item, error] {
	return func(yield func(cas.Item, error) bool) {
		m.wait()
		m.mu.Lock()
		var found []cas.Item
		for key, item := range m.items {
			if strings.HasPrefix(key, prefix) {
				found = append(found, item)
			}
		}
		m.mu.Unlock()
		for _, item := range found {
			if !yield(item, nil) {
				return
			}
		}
	}
}

// backup returns what puts the items of now back.
func (m *memory) backup() (restore func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := maps.Clone(m.items)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.items = items
	}
}

func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.items)
}

// batching is a backend that swaps several items in one request.
type batching struct{ *memory }

func (b batching) SwapAll(_ context.Context, changes []cas.Change) ([]cas.Changed, error) {
	b.wait()
	defer b.wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]cas.Changed, len(changes))
	for i, c := range changes {
		item, ok := b.items[c.Key]
		if ok && b.chance(b.conflicts) {
			item = b.put(c.Key, item.Value) // another writer wrote the same
		}
		if ok && item.Version == c.Version {
			item, out[i].Swapped = b.put(c.Key, c.Value), true
		}
		out[i].Current = item
		if b.chance(b.lost) {
			return nil, errAnswerLost
		}
	}
	return out, nil
}
