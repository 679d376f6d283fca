package keys_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// TestCachedFloodBroken is the same with a store that fails: it is asked a few
// times a minute, and no caller is told that there is no such key.
func TestCachedFloodBroken(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		v.set(func() { v.err = errors.New("connection refused") })
		for i := range 100000 {
			_, err := c.GetKey(t.Context(), keys.ID(fmt.Sprint(i)))
			if !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrNotFound) {
				t.Fatalf("GetKey: %v", err)
			}
			time.Sleep(time.Millisecond)
		}
		// 1, 2, 4, 8, 16, 30 and 30 seconds apart.
		if got := v.total(); got < 6 || got > 8 {
			t.Errorf("asked %d times in 100 seconds", got)
		}
	})
}

// TestCachedOutage: the store hangs, then fails, for half an hour. Keys and the
// current ID go on, one caller waits once, and beyond MaxStale it ends.
func TestCachedOutage(t *testing.T) {
	cachedIn(t, &keys.CachedOptions{MaxStale: 30 * time.Minute}, func(t *testing.T, v *vault, c *keys.Cached) {
		a := wantKey(t, c, "a")
		wantCurrent(t, c, "a")
		if _, err := c.ValidKeyIDs(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.set(func() { v.deaf = true })
		start := time.Now()
		var waited time.Duration
		for time.Since(start) < 34*time.Minute {
			before := time.Now()
			if wantKey(t, c, "a") != a {
				t.Fatal("another *Key")
			}
			wantCurrent(t, c, "a")
			if time.Since(start) < 30*time.Minute { // the list is older
				if ids, err := c.ValidKeyIDs(t.Context()); err != nil || len(ids) != 2 {
					t.Fatalf("IDs: %q, %v", ids, err)
				}
			}
			waited += time.Since(before)
			time.Sleep(time.Second)
			if time.Since(start) > 10*time.Minute {
				v.set(func() { v.deaf, v.err = false, errors.New("connection refused") })
			}
		}
		// Each of the three was waited for by Timeout at most, once.
		if waited > 30*time.Second {
			t.Errorf("callers waited %v in all", waited)
		}
		if got := v.total(); got > 3*34*2+10 {
			t.Errorf("asked %d times in the outage", got)
		}
		// Keys are older than 5 + 30 minutes now.
		time.Sleep(2 * time.Minute)
		for name, err := range map[string]error{
			"GetKey":       second(c.GetKey(t.Context(), "a")),
			"CurrentKeyID": second(c.CurrentKeyID(t.Context())),
			"ValidKeyIDs":  second(c.ValidKeyIDs(t.Context())),
		} {
			if !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("%s: %v, want %v", name, err, keys.ErrUnavailable)
			}
		}
		if a.Err() != nil {
			t.Error("a key that was given out was destroyed")
		}
		v.set(func() { v.err = nil })
		time.Sleep(31 * time.Second)
		if wantKey(t, c, "a") != a {
			t.Error("after the outage, another *Key")
		}
		wantCurrent(t, c, "a")
	})
}

func second[T any](_ T, err error) error { return err }

// TestCachedTimeout: the end of the call's own context is not the caller's.
func TestCachedTimeout(t *testing.T) {
	cachedIn(t, &keys.CachedOptions{Timeout: 3 * time.Second}, func(t *testing.T, v *vault, c *keys.Cached) {
		v.set(func() { v.deaf = true })
		start := time.Now()
		_, err := c.GetKey(t.Context(), "a")
		if !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no answer within 3s") {
			t.Errorf("GetKey: %v", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		v.set(func() { v.deaf, v.err = false, context.DeadlineExceeded }) // of something inside the provider
		time.Sleep(time.Minute)
		if _, err := c.GetKey(t.Context(), "a"); !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("GetKey: %v", err)
		}
	})
}

// TestCachedErrors: a provider's sentinel passes, and ErrNotFound ends what was
// known, outage or not.
func TestCachedErrors(t *testing.T) {
	for _, want := range []error{keys.ErrNotFound, keys.ErrUnavailable, keys.ErrInvalidKey, keys.ErrDestroyed} {
		cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
			v.set(func() { v.err = fmt.Errorf("vault: %w", want) })
			listed := want // a list that is not there says nothing of the keys
			if errors.Is(want, keys.ErrNotFound) {
				listed = keys.ErrUnavailable
			}
			for _, c := range []struct{ err, want error }{
				{second(c.CurrentKeyID(t.Context())), want},
				{second(c.ValidKeyIDs(t.Context())), listed},
				{second(c.GetKey(t.Context(), "a")), listed},
				{c.Check(t.Context(), "b"), listed},
			} {
				for _, sentinel := range []error{keys.ErrNotFound, keys.ErrUnavailable, keys.ErrInvalidKey, keys.ErrDestroyed} {
					if got := errors.Is(c.err, sentinel); got != errors.Is(c.want, sentinel) {
						t.Errorf("%v, want %v", c.err, c.want)
					}
				}
			}
		})
	}
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "a")
		wantCurrent(t, c, "a")
		v.set(func() { delete(v.keys, "a"); v.current = "" })
		time.Sleep(5*time.Minute + time.Second)
		if _, err := c.CurrentKeyID(t.Context()); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("no current key: %v", err)
		}
		if _, err := c.GetKey(t.Context(), "a"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("a retired key: %v", err)
		}
		// Which is believed for a time, but for the look that an unknown ID has.
		before := v.total()
		for range 1000 {
			_, _ = c.CurrentKeyID(t.Context())
			_, _ = c.GetKey(t.Context(), "a")
		}
		if got := v.total() - before; got > 1 {
			t.Errorf("asked %d times for what is not there", got)
		}
		v.set(func() { v.current = "b" })
		time.Sleep(31 * time.Second)
		wantCurrent(t, c, "b")
	})
}

// TestCachedListedMissing: an ID that the store lists and does not have costs one
// call in ListTTL.
func TestCachedListedMissing(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		if _, err := c.ValidKeyIDs(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.set(func() { delete(v.keys, "b") })
		for range 1000 {
			if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrNotFound) {
				t.Fatalf("GetKey: %v", err)
			}
		}
		wantCalls(t, v, "b", 1)
	})
}

// Of the provider's calls one may fail alone. GetKey fails: the answer is
// ErrUnavailable, never ErrNotFound, and known keys go on. ValidKeyIDs fails: the
// same, and the current key opens, because CurrentKeyID lists it.
func TestCachedFailsInPart(t *testing.T) {
	down := errors.New("connection refused")
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "a")
		v.set(func() { v.broken = map[string]error{"GetKey": down} })
		for range 300 {
			if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrNotFound) {
				t.Fatalf("GetKey: %v, want %v", err, keys.ErrUnavailable)
			}
			if err := c.Check(t.Context(), "b"); err != nil {
				t.Fatalf("Check: %v", err)
			}
			if err := c.Check(t.Context(), "x"); !errors.Is(err, keys.ErrNotFound) {
				t.Fatalf("Check of an unlisted ID: %v", err)
			}
			wantKey(t, c, "a")
			time.Sleep(time.Second)
		}
		v.set(func() { v.broken = nil })
		time.Sleep(30 * time.Second)
		wantKey(t, c, "b")
	})
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		v.set(func() { v.broken = map[string]error{"ValidKeyIDs": down} })
		if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrNotFound) {
			t.Errorf("GetKey: %v, want %v", err, keys.ErrUnavailable)
		}
		wantCurrent(t, c, "a")
		wantKey(t, c, "a")
		v.set(func() { v.broken = nil })
		time.Sleep(30 * time.Second)
		wantKey(t, c, "b")
		v.set(func() { v.broken = map[string]error{"ValidKeyIDs": down} })
		before := v.count("ValidKeyIDs")
		for start := time.Now(); time.Since(start) < 50*time.Minute; time.Sleep(time.Second) {
			wantKey(t, c, "b") // from the list at hand
			if err := c.Check(t.Context(), "x"); time.Since(start) > 2*time.Minute && (!errors.Is(err, keys.ErrUnavailable) || errors.Is(err, keys.ErrNotFound)) {
				t.Fatalf("an unlisted ID, by a list past its time: %v, want %v", err, keys.ErrUnavailable)
			}
		}
		if n := v.count("ValidKeyIDs") - before; n < 50 || n > 120 {
			t.Errorf("asked %d times in 50 minutes of outage, want once in 30 s", n)
		}
		time.Sleep(20 * time.Minute) // past MaxStale
		if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("past MaxStale: %v, want %v", err, keys.ErrUnavailable)
		}
	})
}

// An outage that outlasts MaxStale ends the use of keys, and of what was derived
// from them.
func TestCachedOutageRetires(t *testing.T) {
	cachedIn(t, &keys.CachedOptions{MaxStale: 10 * time.Minute}, func(t *testing.T, v *vault, c *keys.Cached) {
		var r retirements
		c.OnRetired(r.note)
		wantKey(t, c, "b")
		v.set(func() { v.err = errors.New("connection refused") })
		for range 20 * 60 {
			_, _ = c.GetKey(t.Context(), "b")
			time.Sleep(time.Second)
		}
		if got := r.take(); !slices.Contains(got, "b") {
			t.Errorf("listeners were told of %q, want b", got)
		}
	})
}

// A caller with an unknown ID does not wait for a provider that failed before, although the
// list at hand is within its time.
func TestCachedUnknownInAnOutage(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "a")
		v.set(func() { v.broken = map[string]error{"ValidKeyIDs": errors.New("connection refused")} })
		time.Sleep(49 * time.Second) // the list was fetched ahead of its time, in vain
		wantCalls(t, v, "ValidKeyIDs", 2)
		v.set(func() { v.deaf = true })
		time.Sleep(5 * time.Second)
		start := time.Now()
		if err := c.Check(t.Context(), "x"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("an unknown ID: %v, want %v", err, keys.ErrNotFound)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %v, want no wait", took)
		}
	})
}

// That another key is not there says nothing about which one is current.
func TestCachedCurrentOutlivesOthers(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantCurrent(t, c, "a")
		wantKey(t, c, "a")
		v.set(func() {
			delete(v.keys, "b")
			v.broken = map[string]error{"CurrentKeyID": errors.New("connection refused")}
		})
		if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("a key that is gone: %v", err)
		}
		wantCurrent(t, c, "a")
		wantCalls(t, v, "CurrentKeyID", 1)
	})
}

// Listeners are told of a key that was in the list, whether it was asked for or not, and of one
// at hand of which the provider says that it is not there, though the list has it.
func TestCachedTellsOfEachKey(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		var r retirements
		defer c.OnRetired(r.note)()
		wantKey(t, c, "a")
		v.set(func() { v.hidden = "b" })
		time.Sleep(time.Minute)
		must(t, c.Check(t.Context(), "a"))
		if got := r.take(); !slices.Equal(got, []keys.ID{"b"}) {
			t.Errorf("listeners were told of %q, want b", got)
		}
		v.set(func() { v.hidden, v.broken = "", map[string]error{"GetKey": keys.ErrNotFound} })
		time.Sleep(time.Minute)
		if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("a key that is not there: %v", err)
		}
		if got := r.take(); got != nil {
			t.Errorf("listeners were told of %q, which was not given out", got)
		}
		time.Sleep(5 * time.Minute)
		if _, err := c.GetKey(t.Context(), "a"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("a key that is not there any more: %v", err)
		}
		if got := r.take(); !slices.Equal(got, []keys.ID{"a"}) {
			t.Errorf("listeners were told of %q, want a", got)
		}
	})
}
