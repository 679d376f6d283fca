package keys

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slow is a provider that takes a second and does not heed its context.
type slow struct{ *Ring }

func (s slow) ValidKeyIDs(ctx context.Context) ([]ID, error) {
	time.Sleep(time.Second)
	return s.Ring.ValidKeyIDs(ctx)
}

// A call that returns during Close arranges nothing more: no timer holds on to a
// Cached that was closed.
func TestClosedCachedSchedulesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := NewRing(testKey(t, "a", 1))
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCached(slow{ring}, nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = c.GetKey(context.Background(), "a") }()
		synctest.Wait()
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.timer != nil || len(c.flights) > 0 {
			t.Errorf("timer %v and %d calls after Close", c.timer, len(c.flights))
		}
	})
}

// quick is a Ring that is not taken for one.
type quick struct{ *Ring }

// A hit allocates nothing.
func TestHitAllocatesNothing(t *testing.T) {
	ring, err := NewRing(testKey(t, "a", 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Provider{ring, quick{ring}} {
		c, err := NewCached(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		ask := func() {
			if err := c.Check(t.Context(), "a"); err != nil {
				t.Error(err)
			}
			if _, err := c.GetKey(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}
		ask()
		if n := testing.AllocsPerRun(100, ask); n > 0 {
			t.Errorf("%T: %v allocations for a hit", p, n)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// hollow is a Ring whose list has IDs that it does not have.
type hollow struct{ *Ring }

func (hollow) ValidKeyIDs(context.Context) ([]ID, error) { return []ID{"a", "b", "c"}, nil }

// What is not there takes memory no longer than its answer is believed, and a key that may not be
// given out any more goes, too.
func TestUnfilledEntriesGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := NewRing(testKey(t, "a", 1))
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCached(hollow{ring}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []ID{"a", "b", "c"} {
			_, err := c.GetKey(t.Context(), id)
			if (id == "a") != (err == nil) {
				t.Errorf("%s: %v", id, err)
			}
		}
		entries := func() int {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.keys)
		}
		if n := entries(); n != 3 {
			t.Errorf("%d entries, want 3", n)
		}
		time.Sleep(2 * time.Minute)
		if n := entries(); n != 1 {
			t.Errorf("%d entries after two minutes, want that of the key", n)
		}
		time.Sleep(48 * time.Hour)
		if n := entries(); n != 0 {
			t.Errorf("%d entries when nothing is at hand", n)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// stubborn is a provider that takes a second to say which key is current, does not heed its
// context, and counts the questions for a key.
type stubborn struct {
	*Ring
	asked *atomic.Int32
}

func (s stubborn) CurrentKeyID(ctx context.Context) (ID, error) {
	time.Sleep(time.Second)
	return s.Ring.CurrentKeyID(ctx)
}

func (s stubborn) GetKey(ctx context.Context, id ID) (*Key, error) {
	s.asked.Add(1)
	return s.Ring.GetKey(ctx, id)
}

// A Cached that is closed while it learns of a new current key does not ask for that key.
func TestClosedCachedPreparesNoKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := NewRing(testKey(t, "a", 1), testKey(t, "b", 2))
		if err != nil {
			t.Fatal(err)
		}
		p := stubborn{ring, new(atomic.Int32)}
		c, err := NewCached(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ring.SetCurrent("a"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.CurrentKeyID(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := ring.SetCurrent("b"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4*time.Minute + time.Second/2) // the question ahead of its time is under way
		begin := time.Now()
		if err := c.Close(t.Context()); err != nil || time.Since(begin) != time.Second/2 {
			t.Errorf("Close: %v after %v, want that it waits for the call", err, time.Since(begin))
		}
		if n := p.asked.Load(); n != 0 {
			t.Errorf("%d questions for a key after Close", n)
		}
	})
}
