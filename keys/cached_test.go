package keys_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/keys"
)

func TestNewCachedRefuses(t *testing.T) {
	if _, err := keys.NewCached(nil, nil); err == nil {
		t.Error("no provider was accepted")
	}
	for _, o := range []keys.CachedOptions{{TTL: -1}, {ListTTL: -1}, {MaxStale: -1}, {Timeout: -1}} {
		if _, err := keys.NewCached(newVault(), &o); err == nil || !strings.Contains(err.Error(), "-1ns") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// Answers in use are fetched ahead of their time, the same secret stays the same
// *Key, and callers wait once.
func TestCachedTTL(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		start := time.Now()
		k := wantKey(t, c, "b")
		for range 239 { // seconds
			time.Sleep(time.Second)
			if wantKey(t, c, "b") != k {
				t.Fatal("another *Key within the TTL")
			}
		}
		wantCalls(t, v, "GetKey", 1)
		if n := v.count("ValidKeyIDs"); n < 4 || n > 6 {
			t.Errorf("the list was asked for %d times in 4 minutes, want once in 48 s", n)
		}
		if took := time.Since(start) - 239*time.Second; took != 100*time.Millisecond {
			t.Errorf("callers waited %v in all, want for two calls", took)
		}
		// The same secret in another *Key, as from a store that keeps none.
		v.set(func() { v.keys["b"] = mustKey(t, "b", 2) })
		time.Sleep(2 * time.Second)
		wantCalls(t, v, "GetKey", 2)
		if wantKey(t, c, "b") != k {
			t.Error("the same secret became another *Key")
		}
		time.Sleep(12 * time.Minute) // not in use, and past its time
		if wantKey(t, c, "b") != k {
			t.Error("the same secret became another *Key")
		}
	})
}

// A receiver of a slow store waits when it starts, and never again: not with a
// message a second, and not with one in 100 seconds, for which each list is too old.
func TestCachedNeverStalls(t *testing.T) {
	for _, every := range []time.Duration{time.Second, 13 * time.Second, 100 * time.Second, 4 * time.Minute} {
		t.Run(every.String(), func(t *testing.T) {
			cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
				v.set(func() { v.takes = 2 * time.Second })
				wantKey(t, c, "a")
				wantKey(t, c, "b")
				stalls := 0
				for start := time.Now(); time.Since(start) < time.Hour; time.Sleep(every) {
					before := time.Now()
					for _, id := range []keys.ID{"a", "b"} {
						if err := c.Check(t.Context(), id); err != nil {
							t.Fatal(err)
						}
						wantKey(t, c, id)
					}
					if time.Since(before) > 0 {
						stalls++
					}
				}
				if stalls > 0 {
					t.Errorf("%d stalls in an hour, want none", stalls)
				}
				if n := v.total(); n > 3600/48+2*3600/240+10 {
					t.Errorf("%d calls in an hour", n)
				}
			})
		})
	}
}

// A receiver that asks for keys and checks none keeps the list in use, too.
func TestKeysInUseKeepTheList(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		v.set(func() { v.takes = 2 * time.Second })
		wantKey(t, c, "b")
		stalls := 0
		for start := time.Now(); time.Since(start) < time.Hour; time.Sleep(time.Second) {
			before := time.Now()
			wantKey(t, c, "b")
			if time.Since(before) > 0 {
				stalls++
			}
		}
		if stalls > 0 {
			t.Errorf("%d stalls in an hour, want none", stalls)
		}
	})
}

// TestCachedFlood is an attacker who sends messages with random key IDs: 100,000
// at once from many receivers, then one a millisecond for 100 seconds.
func TestCachedFlood(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "a")
		before := v.total()
		flood := func(n int, seed uint64, pause time.Duration) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			for range n {
				id := keys.ID(fmt.Sprintf("%x", rnd.Uint64()))
				if k, err := c.GetKey(t.Context(), id); k != nil || !errors.Is(err, keys.ErrNotFound) {
					t.Errorf("GetKey: %v, %v", k, err)
					return
				}
				time.Sleep(pause)
			}
		}
		var all sync.WaitGroup
		for g := range uint64(10) {
			all.Go(func() { flood(10000, g, 0) })
		}
		all.Wait()
		if got := v.total() - before; got != 1 {
			t.Errorf("100,000 unknown IDs at once cost %d calls, want 1", got)
		}
		wantCalls(t, v, "GetKey", 1)

		var m1, m2 runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m1)
		before = v.total()
		flood(100000, 99, time.Millisecond)
		if got := v.total() - before; got < 3 || got > 4 {
			t.Errorf("100 seconds of unknown IDs cost %d calls, want one in 30 seconds", got)
		}
		wantCalls(t, v, "GetKey", 1)
		runtime.GC()
		runtime.ReadMemStats(&m2)
		if grown := int64(m2.HeapAlloc) - int64(m1.HeapAlloc); grown > 1<<20 {
			t.Errorf("100,000 unknown IDs left %d bytes behind", grown)
		}
		wantKey(t, c, "a") // served on through it
	})
}

// TestCachedOnce: many callers, one call; and none of them can end it for the
// others.
func TestCachedOnce(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		v.set(func() { v.takes = time.Second })
		impatient, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { // the first: it begins the call
			if _, err := c.GetKey(impatient, "a"); !errors.Is(err, context.Canceled) {
				t.Errorf("the impatient: %v", err)
			}
		})
		synctest.Wait()
		got := make([]*keys.Key, 50)
		for i := range got {
			all.Go(func() { got[i] = wantKey(t, c, "a") })
		}
		synctest.Wait()
		cancel()
		all.Wait()
		wantCalls(t, v, "ValidKeyIDs", 1)
		wantCalls(t, v, "GetKey", 1)
		if slices.ContainsFunc(got, func(k *keys.Key) bool { return k == nil || k != got[0] }) {
			t.Error("callers got different keys")
		}
		deadline, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.GetKey(deadline, "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a deadline: %v", err)
		}
	})
}

// TestCachedRotation: a new current key is in use within the TTL, without that
// any sender waits for it, and before it is in the list.
func TestCachedRotation(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantCurrent(t, c, "a")
		wantKey(t, c, "a")
		if ids, err := c.ValidKeyIDs(t.Context()); err != nil || len(ids) != 2 {
			t.Errorf("IDs: %q, %v", ids, err)
		}
		v.set(func() { v.keys["c"] = mustKey(t, "c", 3); v.current = "c" })
		rotated, start := time.Now(), time.Now()
		used := keys.ID("a")
		for time.Since(rotated) < 20*time.Minute {
			before := time.Now()
			id, err := c.CurrentKeyID(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wantKey(t, c, id)
			if waited := time.Since(before); waited > 0 {
				t.Errorf("after %v a sender waited %v", before.Sub(start), waited)
			}
			if id != used {
				t.Logf("rotated after %v", time.Since(rotated))
				if time.Since(rotated) > 5*time.Minute {
					t.Errorf("rotated after %v", time.Since(rotated))
				}
				used = id
			}
			time.Sleep(time.Second)
		}
		if used != "c" {
			t.Error("never rotated")
		}
		if got := v.count("CurrentKeyID"); got < 5 || got > 7 {
			t.Errorf("asked %d times in 20 minutes", got)
		}
	})
}

// A rotated key whose first message comes before the list has it is found at
// once; in a flood of unknown IDs, as soon as the flood limit allows it again.
func TestCachedNewKey(t *testing.T) {
	cachedIn(t, &keys.CachedOptions{ListTTL: time.Hour}, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "a")
		v.set(func() { v.keys["c"] = mustKey(t, "c", 3) })
		wantKey(t, c, "c")
		wantCalls(t, v, "ValidKeyIDs", 2)
		for i := range 1000 {
			if err := c.Check(t.Context(), keys.ID(fmt.Sprint("forged-", i))); !errors.Is(err, keys.ErrNotFound) {
				t.Fatal(err)
			}
		}
		wantCalls(t, v, "ValidKeyIDs", 2)
		v.set(func() { v.keys["d"] = mustKey(t, "d", 4) })
		if err := c.Check(t.Context(), "d"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("in a flood: %v", err)
		}
		for start := time.Now(); c.Check(t.Context(), "d") != nil; time.Sleep(time.Second) {
			if time.Since(start) > 30*time.Second {
				t.Fatalf("the new key is not found after %v", time.Since(start))
			}
		}
		wantCalls(t, v, "ValidKeyIDs", 3)
		time.Sleep(30 * time.Minute)
		before := v.count("ValidKeyIDs")
		for i := range 1000 {
			_ = c.Check(t.Context(), keys.ID(fmt.Sprint("forged-", i)))
		}
		if got := v.count("ValidKeyIDs") - before; got != 1 {
			t.Errorf("after half an hour of rest, 1,000 unknown IDs cost %d calls, want 1", got)
		}
	})
}

// What was just answered is not asked for once more: a list that came after the question about an
// unknown ID, and one that has the key which became the current one.
func TestCachedAsksOnce(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		if err := c.Check(t.Context(), "x"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("an unknown ID: %v", err)
		}
		wantCalls(t, v, "ValidKeyIDs", 1)
	})
	cachedIn(t, &keys.CachedOptions{ListTTL: time.Hour}, func(t *testing.T, v *vault, c *keys.Cached) {
		wantCurrent(t, c, "a")
		wantKey(t, c, "b")
		v.set(func() { v.current = "b" })
		time.Sleep(6 * time.Minute)
		wantCurrent(t, c, "b")
		synctest.Wait()
		wantCalls(t, v, "ValidKeyIDs", 1)
	})
}

// A Cached that is closed while a caller is on its way asks nothing more.
func TestCachedClosedMeanwhile(t *testing.T) {
	var c *keys.Cached
	o := &keys.CachedOptions{OnEvent: func(e keys.CacheEvent) {
		if e.Kind == keys.CacheHit && e.Call == "ValidKeyIDs" {
			must(t, c.Close(context.Background()))
		}
	}}
	cachedIn(t, o, func(t *testing.T, v *vault, made *keys.Cached) {
		c = made
		wantKey(t, c, "a")
		if err := c.Check(t.Context(), "x"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("an ID that is not in the list at hand: %v", err)
		}
		wantCalls(t, v, "ValidKeyIDs", 1)
	})
}

// A key whose times have changed is another *Key, with the same secret.
func TestCachedTimes(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		old := wantKey(t, c, "b")
		k, err := keys.New("b", secret(2), &keys.Options{Expires: time.Now().Add(time.Hour), Queues: []string{"orders"}})
		must(t, err)
		v.set(func() { v.keys["b"] = k })
		time.Sleep(6 * time.Minute)
		if got := wantKey(t, c, "b"); got != k || !got.For("orders") || got.For("ledger") || old.Err() != nil {
			t.Errorf("got %v for %q, the one before has %v; want what the provider answers", got, got.Queues(), old.Err())
		}
	})
}

// TestCachedRotationUnlisted: the current key is asked for though the list at
// hand does not have it, and a new list is got for the others.
func TestCachedRotationUnlisted(t *testing.T) {
	cachedIn(t, &keys.CachedOptions{ListTTL: time.Hour}, func(t *testing.T, v *vault, c *keys.Cached) {
		if _, err := c.ValidKeyIDs(t.Context()); err != nil {
			t.Fatal(err)
		}
		v.set(func() { v.keys["c"] = mustKey(t, "c", 3); v.current = "c" })
		wantCurrent(t, c, "c")
		wantKey(t, c, "c")
		synctest.Wait()
		if ids, err := c.ValidKeyIDs(t.Context()); err != nil || len(ids) != 3 {
			t.Errorf("IDs: %q, %v", ids, err)
		}
		wantCalls(t, v, "ValidKeyIDs", 2)
		// Also when the list lags behind for long.
		var r retirements
		defer c.OnRetired(r.note)()
		v.set(func() { v.hidden = "c" })
		for range 3600 / 50 {
			time.Sleep(50 * time.Second)
			wantCurrent(t, c, "c")
		}
		k := wantKey(t, c, "c")
		if ids, err := c.ValidKeyIDs(t.Context()); err != nil || len(ids) != 2 {
			t.Errorf("IDs: %q, %v", ids, err)
		}
		before := v.count("c")
		if wantKey(t, c, "c") != k || v.count("c") != before {
			t.Error("the current key was dropped")
		}
		if got := r.take(); got != nil {
			t.Errorf("listeners were told of %q while it was current", got)
		}
		// A process that seals no more does not know it as the current key for long.
		for range 3600 / 50 * 3 {
			time.Sleep(50 * time.Second)
			must(t, c.Check(t.Context(), "a"))
		}
		if got := slices.Compact(r.take()); !slices.Equal(got, []keys.ID{"c"}) {
			t.Errorf("listeners were told of %q, want c", got)
		}
	})
}

// TestCachedIdle: a cache that is not asked costs the store nothing.
func TestCachedIdle(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantCurrent(t, c, "a")
		wantKey(t, c, "a")
		time.Sleep(24 * time.Hour)
		if got := v.count("CurrentKeyID"); got > 2 {
			t.Errorf("asked %d times on an idle day", got)
		}
		v.set(func() { v.current = "b" })
		wantCurrent(t, c, "b")
		before := v.count("CurrentKeyID")
		for range 60 {
			time.Sleep(time.Minute)
			wantCurrent(t, c, "b")
		}
		if got := v.count("CurrentKeyID") - before; got < 12 || got > 16 {
			t.Errorf("asked %d times in an hour of use", got)
		}
	})
}

// retirements notes the IDs that left a list.
type retirements struct {
	mu  sync.Mutex // guards ids
	ids []keys.ID
}

func (r *retirements) note(id keys.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ids = append(r.ids, id)
}

// take returns what was noted since, sorted.
func (r *retirements) take() []keys.ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := slices.Sorted(slices.Values(r.ids))
	r.ids = nil
	return ids
}

// A key that left the list is refused within ListTTL although the provider still
// answers for it and its messages go on coming, and listeners are called. It is
// not destroyed: its users have it still.
func TestCachedRetire(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		var r retirements
		stop := c.OnRetired(r.note)
		wantKey(t, c, "a")
		b := wantKey(t, c, "b")
		v.set(func() { v.hidden = "b" }) // GetKey still answers
		start := time.Now()
		for c.Check(t.Context(), "b") == nil && time.Since(start) < 10*time.Minute {
			if _, err := c.GetKey(t.Context(), "b"); err != nil && !errors.Is(err, keys.ErrNotFound) {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("a retired key was valid for %v", took)
		}
		if k, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("GetKey: %v, %v", k, err)
		}
		if got := r.take(); !slices.Equal(got, []keys.ID{"b"}) {
			t.Errorf("listeners were told of %q, want b", got)
		}
		if b.Err() != nil {
			t.Error("it was destroyed")
		}
		// As in a process whose messages are all under the current key.
		v.set(func() { v.hidden = "" })
		time.Sleep(30 * time.Second)
		wantCurrent(t, c, "a")
		wantKey(t, c, "b")
		v.set(func() { delete(v.keys, "b") })
		for range 61 {
			if err := c.Check(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if got := r.take(); !slices.Equal(got, []keys.ID{"b"}) {
			t.Errorf("listeners were told of %q, want b", got)
		}
		// Not in use, keys are let go of when they may not be given out any more.
		time.Sleep(90 * time.Minute)
		if got := r.take(); !slices.Equal(got, []keys.ID{"a"}) {
			t.Errorf("listeners were told of %q, want a", got)
		}
		stop()
		wantKey(t, c, "a")
		v.set(func() { delete(v.keys, "a"); v.current = "" })
		time.Sleep(2 * time.Minute)
		if got := r.take(); got != nil {
			t.Errorf("a listener that was stopped was told of %q", got)
		}
	})
}

// A key that goes during the call that fetches it is not given out: its users
// would keep what they derive from it.
func TestCachedRetireDuringFetch(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "a")
		v.set(func() { v.takes = 5 * time.Second })
		time.Sleep(44 * time.Second) // the next list comes 4 s from now, and brings no b
		v.set(func() { v.hidden = "b"; v.takes = 8 * time.Second })
		go func() {
			time.Sleep(time.Second)
			v.set(func() { v.takes = time.Second })
		}()
		if k, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("GetKey: %v, %v", k, err)
		}
	})
}

// TestCachedDestroyed: what the provider destroyed is asked for at once.
func TestCachedDestroyed(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		b := wantKey(t, c, "b")
		v.set(func() { v.keys["b"] = mustKey(t, "b", 2) })
		b.Destroy()
		if again := wantKey(t, c, "b"); again == b || again.Err() != nil {
			t.Errorf("a destroyed key was given out")
		}
		wantKey(t, c, "b").Destroy()
		before := v.count("b")
		for range 1000 {
			if k, err := c.GetKey(t.Context(), "b"); k != nil || !errors.Is(err, keys.ErrDestroyed) {
				t.Fatalf("GetKey: %v, %v", k, err)
			}
		}
		if got := v.count("b") - before; got != 1 {
			t.Errorf("asked %d times for a destroyed key", got)
		}
	})
}

// A key that was destroyed is asked for again soon if the provider fails meanwhile: that the
// answer would have had time left is no reason to wait.
func TestCachedDestroyedInAnOutage(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "b").Destroy()
		v.set(func() { v.broken = map[string]error{"GetKey": errors.New("connection refused")} })
		if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("GetKey: %v, want %v", err, keys.ErrUnavailable)
		}
		v.set(func() { v.broken, v.keys["b"] = nil, mustKey(t, "b", 2) })
		time.Sleep(2 * time.Second)
		wantKey(t, c, "b")
	})
}

// TestCachedCorrectedSecret: a secret that nothing opened under is corrected within a TTL.
func TestCachedCorrectedSecret(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "b")
		right := mustKey(t, "b", 9)
		v.set(func() { v.keys["b"] = right })
		time.Sleep(6 * time.Minute)
		if k := wantKey(t, c, "b"); k != right {
			t.Error("the key has the old secret, want the corrected one")
		}
	})
}

// TestCachedAnotherSecret: refused while the key is there and when it comes back.
func TestCachedAnotherSecret(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		b := wantKey(t, c, "b")
		b.Confirm()
		v.set(func() { v.keys["b"] = mustKey(t, "b", 9) })
		time.Sleep(6 * time.Minute)
		if wantKey(t, c, "b") != b {
			t.Error("another key, instead of the old one")
		}
		time.Sleep(2 * time.Hour)
		if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrInvalidKey) || !strings.Contains(err.Error(), "another secret for b") {
			t.Errorf("GetKey: %v", err)
		}
		for _, wrong := range []*keys.Key{nil, mustKey(t, "c", 2)} {
			v.set(func() { v.keys["b"] = wrong })
			time.Sleep(time.Minute)
			if k, err := c.GetKey(t.Context(), "b"); k != nil || !errors.Is(err, keys.ErrInvalidKey) {
				t.Errorf("GetKey: %v, %v", k, err)
			}
		}
		v.set(func() { v.current = "not an ID" })
		if _, err := c.CurrentKeyID(t.Context()); !errors.Is(err, keys.ErrInvalidKey) {
			t.Errorf("CurrentKeyID: %v", err)
		}
	})
}

// TestCachedExpiry: when the current key expires, the next one is found at once
// and not when the TTL is over; if there is none, the store is not hammered.
func TestCachedExpiry(t *testing.T) {
	cachedIn(t, &keys.CachedOptions{TTL: time.Hour}, func(t *testing.T, v *vault, c *keys.Cached) {
		expires := time.Now().Add(10 * time.Minute)
		k, err := keys.New("d", secret(4), &keys.Options{Expires: expires})
		if err != nil {
			t.Fatal(err)
		}
		v.set(func() { v.keys["d"] = k; v.current = "d" })
		wantCurrent(t, c, "d")
		wantKey(t, c, "d")
		for time.Now().Before(expires) {
			wantCurrent(t, c, "d")
			time.Sleep(time.Second)
		}
		if got := v.count("CurrentKeyID"); got > 12 {
			t.Errorf("asked %d times in 10 minutes", got)
		}
		v.set(func() { v.current = "a" }) // as the store does at that time
		time.Sleep(31 * time.Second)
		wantCurrent(t, c, "a")

		// An expired key stays the current one.
		v.set(func() { v.current = "d" })
		time.Sleep(time.Hour)
		wantCurrent(t, c, "d")
		before := v.count("CurrentKeyID")
		for range 600 {
			wantCurrent(t, c, "d") // sealing says ErrExpired
			time.Sleep(time.Second)
		}
		if got := v.count("CurrentKeyID") - before; got < 10 || got > 22 {
			t.Errorf("asked %d times in 10 minutes", got)
		}
	})
}

func TestCachedClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVault(mustKey(t, "a", 1))
		c, err := keys.NewCached(v, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantCurrent(t, c, "a")
		v.set(func() { v.deaf = true })
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := c.GetKey(t.Context(), "a"); !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), "closed") {
				t.Errorf("under way: %v", err)
			}
		})
		synctest.Wait()
		start := time.Now()
		for range 2 {
			if err := c.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("Close took %v", took)
		}
		all.Wait()
		for _, err := range []error{second(c.GetKey(t.Context(), "a")), second(c.CurrentKeyID(t.Context())), second(c.ValidKeyIDs(t.Context())), c.Check(t.Context(), "a")} {
			if !errors.Is(err, keys.ErrUnavailable) {
				t.Errorf("closed: %v", err)
			}
		}
		before := v.total()
		time.Sleep(time.Hour)
		if got := v.total() - before; got != 0 {
			t.Errorf("asked %d times after Close", got)
		}
	})
}

// TestCachedCloseWaits: when Close returns, no call is under way, even of a
// provider that does not heed its context.
func TestCachedCloseWaits(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		v.set(func() { v.stolid, v.takes = true, 7*time.Second })
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := c.ValidKeyIDs(impatient); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ValidKeyIDs: %v", err)
		}
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

// TestCachedCloseRefreshing closes while the background refresh waits for the
// store, at either of its two calls.
func TestCachedCloseRefreshing(t *testing.T) {
	for _, at := range []time.Duration{240 * time.Second, 245 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			v := newVault(mustKey(t, "a", 1))
			c, err := keys.NewCached(v, nil)
			if err != nil {
				t.Fatal(err)
			}
			v.set(func() { v.takes = 4 * time.Second })
			wantCurrent(t, c, "a")
			time.Sleep(at + time.Second)
			wantCalls(t, v, "CurrentKeyID", 2)
			if err := c.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCachedEvents(t *testing.T) {
	var mu sync.Mutex
	var got []string
	o := &keys.CachedOptions{OnEvent: func(e keys.CacheEvent) {
		mu.Lock()
		defer mu.Unlock()
		line := fmt.Sprint(e.Kind, " ", e.Call, " ", e.ID)
		if e.Took > 0 {
			line += " " + e.Took.String()
		}
		if (e.Err != nil) != (e.Kind == keys.CacheStale || e.Kind == keys.CacheError) {
			line += fmt.Sprint(" ", e.Err)
		}
		got = append(got, line)
	}}
	cachedIn(t, o, func(t *testing.T, v *vault, c *keys.Cached) {
		expect := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, want) {
				t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			got = nil
		}
		wantKey(t, c, "a")
		expect("miss ValidKeyIDs ", "fetch ValidKeyIDs  50ms", "miss GetKey a", "fetch GetKey a 50ms")
		wantKey(t, c, "a")
		expect("hit GetKey a")
		_, _ = c.GetKey(t.Context(), "x")
		expect("hit ValidKeyIDs ", "miss ValidKeyIDs ", "fetch ValidKeyIDs  50ms", "unknown GetKey x")
		v.set(func() { v.err = errors.New("down") })
		_, _ = c.GetKey(t.Context(), "b")
		expect("miss GetKey b", "error GetKey b 50ms")
		time.Sleep(20 * time.Minute) // past the time of the answers, which are not in use any more
		synctest.Wait()
		mu.Lock()
		got = nil
		mu.Unlock()
		wantKey(t, c, "a")
		expect("stale ValidKeyIDs ", "stale GetKey a")
	})
	for k, want := range map[keys.CacheEventKind]string{-1: "invalid", 0: "invalid", keys.CacheHit: "hit", keys.CacheError: "error", 99: "invalid"} {
		if k.String() != want {
			t.Errorf("%d is %q, want %q", k, k, want)
		}
	}
}

// Close heeds its context if the provider does not heed its own, and says what it
// waited for.
func TestCachedCloseContext(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		v.set(func() { v.stolid, v.takes = true, time.Hour })
		go func() { _, _ = c.GetKey(t.Context(), "a") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the provider has not returned") {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("Close took %v", took)
		}
		time.Sleep(2 * time.Hour)
	})
}

// plain is a Ring that is not taken for one.
type plain struct{ keys.Provider }

// BenchmarkCached is what a receiver asks for each message: whether the ID is
// valid, and then for the key.
func BenchmarkCached(b *testing.B) {
	ring, err := keys.NewRing(mustKey(b, "a", 1))
	if err != nil {
		b.Fatal(err)
	}
	for name, p := range map[string]keys.Provider{"remote": plain{ring}, "local": ring} {
		c, err := keys.NewCached(p, nil)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = c.Close(context.Background()) }()
		ask := func() error {
			err := c.Check(context.Background(), "a")
			if err == nil {
				_, err = c.GetKey(context.Background(), "a")
			}
			return err
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+", parallel", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := ask(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
