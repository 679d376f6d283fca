package keys

import (
	"context"
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
