package cas_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

// overtaken is a backend in which something happens just before a head is written.
type overtaken struct {
	*memory
	once sync.Once
	by   func() // nil until it is to happen
}

func (o *overtaken) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	if o.by != nil && strings.HasPrefix(key, ".h.") {
		o.once.Do(o.by)
	}
	return o.memory.Swap(ctx, key, version, value)
}

// TestFoldOvertaken: a page that is used again while it is folded stays apart from the account of
// its stream.
func TestFoldOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &overtaken{memory: newMemory()}
		s, other := open(t, b, nil), open(t, b.memory, nil)
		begin := func(s *cas.Store, n uint64) {
			t.Helper()
			r := request(1, n)
			c, err := s.Begin(t.Context(), "group", []replay.Request{r})
			if err != nil || c[0].Err != nil {
				t.Error(c, err)
			}
			f, err := s.Finish(t.Context(), "group", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: replay.Consumed}})
			if err != nil || f[0].Err != nil {
				t.Error(f, err)
			}
		}
		begin(s, 1)
		time.Sleep(time.Hour)
		happened := false
		b.by = func() { begin(other, 2); happened = true }
		if err := s.Probe(t.Context(), "group"); err != nil { // it starts a sweep
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // it has ended
		b.mu.Lock()
		defer b.mu.Unlock()
		for key, item := range b.items {
			if !strings.HasPrefix(key, ".h.") {
				continue
			}
			h, err := replaystate.DecodeHead(item.Value)
			if err != nil || !happened || h.Apart.Count() != 1024 {
				t.Errorf("happened: %v; apart are %v of head %+v, %v; want a page of 1,024", happened, h.Apart, h, err)
			}
		}
	})
}

// dying is the backend of a process that dies before it writes a page.
type dying struct {
	*memory
	dead bool
}

var errDead = errors.New("the process is dead")

func (d *dying) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	if d.dead && strings.Contains(key, ".p.") {
		return cas.Item{}, false, errDead
	}
	return d.memory.Swap(ctx, key, version, value)
}

// TestDiesAfterHold: a receiver dies between the write of the head, which holds the page apart, and
// that of the page. The message is never tried again. What was handled beside it long ago is not missing.
func TestDiesAfterHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		o := &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 2 * time.Hour}}
		s := open(t, m, o)
		d := &dying{memory: m}
		dies := open(t, d, o)
		v := young(t)
		time.Sleep(2 * time.Second)
		v.handle(s, 1, 49) // 50 is late
		v.handle(s, 51, 100)
		v.sweep(s, 10*time.Minute) // both pages are in the head, and gone
		d.dead = true
		if _, err := dies.Begin(t.Context(), "group", []replay.Request{v.request(50)}); !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		v.sweep(s, 10*time.Minute) // it takes the reserved place away
		// The broker has dead-lettered 50 meanwhile. The stream goes on.
		next := uint64(101)
		for range 6 {
			v.handle(s, next, next+9)
			next += 10
			v.sweep(s, time.Hour)
		}
		a := v.account(s)
		n := a.MissingForgotten
		for _, x := range a.Missing {
			n += x.Range.Last - x.Range.First + 1
		}
		if n != 1 {
			t.Errorf("%d are missing, want only 50: %+v", n, a)
		}
	})
}

// TestForgetsAfterRelease: a receiver has died as above, and the first sweep since then folds another
// page and forgets what was handled beside the message.
func TestForgetsAfterRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		o := &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 2 * time.Hour}}
		s := open(t, m, o)
		d := &dying{memory: m}
		dies := open(t, d, o)
		idle := *o
		idle.SweepInterval = 24 * time.Hour
		quiet := open(t, m, &idle)
		v := young(t)
		time.Sleep(2 * time.Second)
		v.handle(quiet, 1, 49) // 50 is late
		v.handle(quiet, 51, 100)
		v.sweep(s, 0)
		v.sweep(s, 10*time.Minute) // both pages are in the head, and gone
		d.dead = true
		if _, err := dies.Begin(t.Context(), "group", []replay.Request{v.request(50)}); !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		m.mu.Lock()
		for key := range m.items {
			if strings.Contains(key, ".p.") {
				delete(m.items, key) // the place that it had reserved, as a sweep that died would
			}
		}
		m.mu.Unlock()
		time.Sleep(3 * time.Hour)
		v.handle(quiet, 101, 110)
		v.sweep(s, 10*time.Minute)
		a := v.account(s)
		if len(a.Missing) != 1 || a.Missing[0].Range != (replay.Range{First: 50, Last: 50}) || a.MissingForgotten > 0 || a.Start != 50 {
			t.Errorf("%+v, want a start at 50, and only that missing", a)
		}
	})
}

// paused is the backend of a process in which something happens before it reads a head.
type paused struct {
	*memory
	before func()
}

func (p *paused) Get(ctx context.Context, key string) (cas.Item, error) {
	if do := p.before; do != nil && strings.HasPrefix(key, ".h.") {
		p.before = nil
		do()
	}
	return p.memory.Get(ctx, key)
}

// TestFoldStandsStill: one process stands still in its sweep for ten minutes, between reading the pages and
// folding one with a message that waits. Meanwhile the message is handled, and another process folds the page.
// No process dies, no message is lost: none is missing, then or later.
func TestFoldStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		o := &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 2 * time.Hour}}
		p := &paused{memory: m}
		slow, other := open(t, p, o), open(t, m, o)
		v := young(t)
		time.Sleep(2 * time.Second)
		v.sweep(slow, 0) // it knows the group
		v.handle(other, 1, 10)
		eleven := v.request(11)
		v.begin(other, eleven)
		v.finish(other, eleven, replay.Released)
		v.handle(other, 12, 100)
		happened := false
		p.before = func() {
			happened = true
			again := v.request(11)
			again.SealedAt, again.Tag = eleven.SealedAt, eleven.Tag
			v.begin(other, again)
			v.finish(other, again, replay.Consumed)
			v.sweep(other, 10*time.Minute) // the page is in the head, and gone
			if a := v.account(other); len(a.Missing) > 0 || a.Consumed != 100 {
				t.Errorf("before: %+v", a)
			}
		}
		v.sweep(slow, 6*time.Minute)
		time.Sleep(20 * time.Minute) // until the slow sweep has ended
		if !happened {
			t.Fatal("the sweep did not fold the page")
		}
		next := uint64(102) // 101 is rejected as too old, so that the interval before it ends
		stale := v.request(101)
		stale.Now = stale.FreshUntil.Add(time.Hour)
		if c, err := other.Begin(t.Context(), "group", []replay.Request{stale}); err != nil || !errors.Is(c[0].Err, replay.ErrNotFresh) {
			t.Fatal(c, err)
		}
		for range 6 {
			v.handle(other, next, next+9)
			next += 10
			v.sweep(other, time.Hour)
		}
		if a := v.account(other); len(a.Missing) > 0 || a.MissingForgotten > 0 {
			t.Errorf("all were handled or rejected: %+v", a)
		}
	})
}

// headless is the backend of a process that dies once it has written a head.
type headless struct {
	*overtaken
	dead bool
}

func (h *headless) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	if h.dead {
		return cas.Item{}, false, errDead
	}
	item, done, err := h.overtaken.Swap(ctx, key, version, value)
	h.dead = done && strings.HasPrefix(key, ".h.")
	return item, done, err
}

// TestFoldDies: a message comes while its page is folded, and the sweep dies once it has written the
// head. The page stays apart, so that what is consumed of it is not missing once Start has passed it.
func TestFoldDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		o := &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 2 * time.Hour}}
		d := &headless{overtaken: &overtaken{memory: m}}
		dies, other := open(t, d, o), open(t, m, o)
		v := young(t)
		time.Sleep(2 * time.Second)
		v.sweep(dies, 0) // it knows the group
		v.handle(other, 1, 10)
		v.handle(other, 12, 60) // 11 is late
		time.Sleep(6 * time.Minute)
		happened := false
		d.by = func() { v.handle(other, 11, 11); happened = true }
		v.sweep(dies, 0)
		time.Sleep(time.Minute)
		m.mu.Lock()
		defer m.mu.Unlock()
		for key, item := range m.items {
			if !strings.HasPrefix(key, ".h.") {
				continue
			}
			if h, err := replaystate.DecodeHead(item.Value); err != nil || !happened || !h.Apart.Has(11) {
				t.Errorf("happened: %v; apart are %v, %v; want the page that is in use", happened, h.Apart, err)
			}
		}
	})
}

// TestReleaseOvertaken: a head keeps apart a page that was never written, and a receiver makes that page
// just before a sweep puts the head right. The page stays apart.
func TestReleaseOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &overtaken{memory: newMemory()}
		o := &cas.Options{PageSpan: 64}
		d := &dying{memory: b.memory}
		s, dies := open(t, b, o), open(t, d, o)
		other := open(t, b.memory, &cas.Options{PageSpan: 64, SweepInterval: 24 * time.Hour})
		v := young(t)
		time.Sleep(2 * time.Second)
		v.handle(other, 1, 49) // 50 is late
		v.handle(other, 51, 64)
		v.sweep(s, 0)
		v.sweep(s, 10*time.Minute) // the page is in the head, and gone
		d.dead = true
		if _, err := dies.Begin(t.Context(), "group", []replay.Request{v.request(50)}); !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		happened := false
		b.by = func() { v.begin(other, v.request(50)); happened = true }
		v.sweep(s, 10*time.Minute)
		b.mu.Lock()
		defer b.mu.Unlock()
		for key, item := range b.items {
			if !strings.HasPrefix(key, ".h.") {
				continue
			}
			if h, err := replaystate.DecodeHead(item.Value); err != nil || !happened || !h.Apart.Has(50) {
				t.Errorf("happened: %v; apart are %v, %v; want the page that was made", happened, h.Apart, err)
			}
		}
	})
}
