package cas_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
	"github.com/queue-runtime/queue/replay/replaytest"
)

func open(t testing.TB, b cas.Backend, o *cas.Options) *cas.Store {
	t.Helper()
	s, err := cas.Open(context.Background(), b, o)
	for range 50 { // a backend may be unreliable
		if err == nil {
			break
		}
		s, err = cas.Open(context.Background(), b, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// fixture returns handles on one backend, which plant may give faults.
func fixture(plant func(*memory), span int, kind func(*memory) cas.Backend) func(t testing.TB, b replay.Bounds) replaytest.Fixture {
	return func(t testing.TB, b replay.Bounds) replaytest.Fixture {
		m := newMemory()
		plant(m)
		return replaytest.Fixture{
			Open: func(shift time.Duration) replay.Store {
				s := open(t, kind(m), &cas.Options{Bounds: b, PageSpan: span})
				s.Shift(shift)
				return s
			},
			Lose:   m.clear,
			Backup: m.backup,
		}
	}
}

func alone(m *memory) cas.Backend   { return m }
func batches(m *memory) cas.Backend { return batching{m} }

func TestStore(t *testing.T) {
	replaytest.Run(t, replaytest.Options{
		New: fixture(func(*memory) {}, 0, alone), Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Schedules: 500,
	})
}

// TestBatcher: the suite on a backend that takes batches, with small pages, so that
// most calls are about several.
func TestBatcher(t *testing.T) {
	replaytest.Run(t, replaytest.Options{
		New: fixture(func(*memory) {}, 64, batches), Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Schedules: 500,
	})
}

// TestUnreliable: a backend that is slow, loses answers and has other writers.
func TestUnreliable(t *testing.T) {
	for _, c := range []struct {
		name       string
		kind       func(*memory) cas.Backend
		span, lost int // a sweep of many small pages gets nowhere if many answers are lost
	}{{"alone", alone, 0, 20}, {"batches", batches, 64, 3}} {
		t.Run(c.name, func(t *testing.T) {
			replaytest.Run(t, replaytest.Options{
				New:      fixture(func(m *memory) { m.lost, m.conflicts, m.delay = c.lost, 50, 2*time.Millisecond }, c.span, c.kind),
				Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Unreliable: true, Schedules: 100,
			})
		})
	}
}

// TestPageSpan: a store refuses pages of another span, and spans that are none.
func TestPageSpan(t *testing.T) {
	m := newMemory()
	open(t, m, &cas.Options{PageSpan: 128})
	open(t, m, &cas.Options{PageSpan: 128})
	if _, err := cas.Open(t.Context(), m, nil); err == nil || !strings.Contains(err.Error(), "pages of 128 sequences, not of 1024") {
		t.Errorf("another span: %v", err)
	}
	for _, span := range []int{-64, 1, 100, 2048} {
		if _, err := cas.Open(t.Context(), newMemory(), &cas.Options{PageSpan: span}); err == nil {
			t.Errorf("a span of %d is taken", span)
		}
	}
}

// TestPreviousReserved: the page of the message before is being made by another
// receiver.
func TestPreviousReserved(t *testing.T) {
	m := newMemory()
	s := open(t, m, &cas.Options{PageSpan: 64})
	first, next := request(1, 65), request(1, 66)
	next.Previous = 64
	first.Previous = 0
	if c, err := s.Begin(t.Context(), "group", []replay.Request{first}); err != nil || c[0].Err != nil {
		t.Fatal(c, err)
	}
	for key := range maps.Clone(m.items) {
		if before, ok := strings.CutSuffix(key, "00000000000001."); ok {
			if _, made, err := m.Create(t.Context(), before+"00000000000000.", []byte{0}); err != nil || !made {
				t.Fatal(made, err)
			}
		}
	}
	if c, err := s.Begin(t.Context(), "group", []replay.Request{next}); err != nil || c[0].Err != nil {
		t.Errorf("%+v, %v, want a claim", c, err)
	}
}

// TestRestored: a backup of two intervals ago has a lower change number.
func TestRestored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		s := open(t, m, nil)
		change := func() uint64 {
			t.Helper()
			c, err := s.Begin(t.Context(), "group", []replay.Request{request(1, 1)})
			if err != nil {
				t.Fatal(err)
			}
			return c[0].Stamp.Change
		}
		restore := m.backup()
		before := change()
		for range 2 {
			time.Sleep(cas.DefaultChangeInterval)
			before = change()
		}
		restore()
		s = open(t, m, nil)
		if after := change(); after >= before {
			t.Errorf("change number %d before a restore, %d after it", before, after)
		}
	})
}

// gated is a backend whose Get of the item of the store waits, after it has read,
// until the gate opens.
type gated struct {
	*memory
	gate chan struct{}
}

func (g *gated) Get(ctx context.Context, key string) (cas.Item, error) {
	item, err := g.memory.Get(ctx, key)
	if g.gate != nil && key == ".m." {
		<-g.gate
	}
	return item, err
}

// TestChangeNeverFalls: a read that others overtook does not set the number back.
func TestChangeNeverFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gated{memory: newMemory()}
		s := open(t, g, nil)
		change := func() uint64 {
			t.Helper()
			c, err := s.Begin(t.Context(), "group", []replay.Request{request(1, 1)})
			if err != nil {
				t.Fatal(err)
			}
			return c[0].Stamp.Change
		}
		first := change()
		g.gate = make(chan struct{})
		ended := make(chan error)
		go func() {
			_, err := s.Stats(t.Context())
			ended <- err
		}()
		synctest.Wait() // it has read the number, and not taken it in
		time.Sleep(cas.DefaultChangeInterval)
		raised := change()
		close(g.gate)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if after := change(); raised <= first || after < raised {
			t.Errorf("change numbers %d, %d, %d: want the second higher than the first and the third not below it", first, raised, after)
		}
	})
}

// TestGroupIsRead: a process reads the state of a group before it relies on it, and does not
// try to make what is there.
func TestGroupIsRead(t *testing.T) {
	for name, kind := range map[string]func(*memory) cas.Backend{"alone": alone, "batches": batches} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				for n := range uint64(2) {
					s := open(t, kind(m), nil)
					if err := s.Probe(t.Context(), "group"); err != nil {
						t.Fatal(err)
					}
					begin := time.Now()
					r := request(1, n+1)
					if c, err := s.Begin(t.Context(), "group", []replay.Request{r}); err != nil || c[0].Err != nil {
						t.Fatal(c, err)
					}
					if waited := time.Since(begin); waited > 0 {
						t.Errorf("process %d waited %s for a write that nothing was in the way of", n, waited)
					}
				}
			})
		})
	}
}

// TestLossThatOthersFilled: the items are gone, and another process has made the page anew
// before this one works on it. What is granted then comes with the new ID, although this
// process found a page and not its absence.
func TestLossThatOthersFilled(t *testing.T) {
	for _, batched := range []bool{false, true} {
		t.Run(fmt.Sprint("batched=", batched), func(t *testing.T) {
			m := newMemory()
			var backend cas.Backend = m
			if batched {
				backend = batches(m)
			}
			here, other := open(t, backend, nil), open(t, backend, nil)
			begin := func(s *cas.Store, numbers ...uint64) []replay.Claim {
				t.Helper()
				var list []replay.Request
				for _, n := range numbers {
					list = append(list, request(1, n))
				}
				c, err := s.Begin(t.Context(), "group", list)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			before := begin(here, 1)[0]
			if before.Err != nil {
				t.Fatal(before.Err)
			}
			m.mu.Lock()
			clear(m.items)
			m.mu.Unlock()
			begin(other, 2)
			if c := begin(here, 1)[0]; c.Err == nil && c.Stamp.ID == before.Stamp.ID {
				t.Error("granted again with the ID of the memory that is gone")
			}
		})
	}
}

// emptied loses its items before the first page is read.
type emptied struct {
	*memory
	once sync.Once
}

func (e *emptied) Get(ctx context.Context, key string) (cas.Item, error) {
	if strings.Contains(key, ".p.") {
		e.once.Do(func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			clear(e.items)
		})
	}
	return e.memory.Get(ctx, key)
}

// TestLossDuringALook: a look at pages that are gone says of which memory that is.
func TestLossDuringALook(t *testing.T) {
	m := newMemory()
	r := request(1, 1)
	c, err := open(t, m, nil).Begin(t.Context(), "group", []replay.Request{r})
	if err != nil || c[0].Err != nil {
		t.Fatal(c, err)
	}
	looks, err := open(t, &emptied{memory: m}, nil).Look(t.Context(), "group", []replay.Query{{ID: r.ID, SealedAt: r.SealedAt}})
	if err != nil {
		t.Fatal(err)
	}
	if l := looks[0]; l.State == replay.StateClaimed || l.Stamp.ID == c[0].Stamp.ID {
		t.Errorf("%+v, want what the new memory says, with its ID", l)
	}
}
