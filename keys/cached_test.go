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

// vault is a secret store that counts what it is asked, takes its time, and
// fails when told to.
type vault struct {
	mu      sync.Mutex // guards what follows
	keys    map[keys.ID]*keys.Key
	current keys.ID
	takes   time.Duration
	deaf    bool // heeds no answer but the end of the context
	stolid  bool // does not heed the context either
	err     error
	hidden  keys.ID        // not in the list, though it is there
	calls   map[string]int // by method, and GetKey by ID, too
}

func newVault(ks ...*keys.Key) *vault {
	v := &vault{keys: make(map[keys.ID]*keys.Key), calls: make(map[string]int), takes: 50 * time.Millisecond}
	for _, k := range ks {
		v.keys[k.ID()] = k
	}
	if len(ks) > 0 {
		v.current = ks[0].ID()
	}
	return v
}

// set changes the vault.
func (v *vault) set(f func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f()
}

func (v *vault) count(call string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls[call]
}

func (v *vault) total() int {
	return v.count("GetKey") + v.count("CurrentKeyID") + v.count("ValidKeyIDs")
}

func (v *vault) ask(ctx context.Context, calls ...string) error {
	v.mu.Lock()
	for _, c := range calls {
		v.calls[c]++
	}
	takes, deaf, stolid := v.takes, v.deaf, v.stolid
	v.mu.Unlock()
	if stolid {
		time.Sleep(takes)
	}
	if deaf {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

func (v *vault) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := v.ask(ctx, "GetKey", string(id)); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if k, ok := v.keys[id]; ok {
		return k, nil
	}
	return nil, fmt.Errorf("vault: %w: %s", keys.ErrNotFound, id)
}

func (v *vault) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if err := v.ask(ctx, "CurrentKeyID"); err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.current == "" {
		return "", fmt.Errorf("vault: %w: no current key", keys.ErrNotFound)
	}
	return v.current, nil
}

func (v *vault) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	if err := v.ask(ctx, "ValidKeyIDs"); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var ids []keys.ID
	for id := range v.keys {
		if id != v.hidden {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// cachedIn runs f in a bubble with a vault of the keys a (current) and b and a
// cache in front of it, and checks that Close leaves nothing running: else the
// bubble would not end.
func cachedIn(t *testing.T, o *keys.CachedOptions, f func(t *testing.T, v *vault, c *keys.Cached)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v := newVault(mustKey(t, "a", 1), mustKey(t, "b", 2))
		c, err := keys.NewCached(v, o)
		if err != nil {
			t.Fatal(err)
		}
		f(t, v, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func wantKey(t *testing.T, p keys.Provider, id keys.ID) *keys.Key {
	t.Helper()
	k, err := p.GetKey(t.Context(), id)
	if err != nil {
		t.Fatalf("GetKey(%s): %v", id, err)
	}
	return k
}

func wantCurrent(t *testing.T, p keys.Provider, want keys.ID) {
	t.Helper()
	if id, err := p.CurrentKeyID(t.Context()); err != nil || id != want {
		t.Errorf("CurrentKeyID: %q, %v; want %q", id, err, want)
	}
}

func wantCalls(t *testing.T, v *vault, call string, want int) {
	t.Helper()
	if got := v.count(call); got != want {
		t.Errorf("the provider was asked %d times for %s, want %d", got, call, want)
	}
}

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

func TestCachedTTL(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		start := time.Now()
		k := wantKey(t, c, "b")
		for range 299 { // seconds, and the list took one call
			time.Sleep(time.Second)
			if wantKey(t, c, "b") != k {
				t.Fatal("another *Key within the TTL")
			}
		}
		wantCalls(t, v, "GetKey", 1)
		wantCalls(t, v, "ValidKeyIDs", 1)
		if took := time.Since(start) - 299*time.Second; took != 100*time.Millisecond {
			t.Errorf("callers waited %v in all, want for two calls", took)
		}
		time.Sleep(2 * time.Second)
		if wantKey(t, c, "b") != k {
			t.Error("the same key became another *Key")
		}
		wantCalls(t, v, "GetKey", 2)
		// The same secret in another *Key, as from a store that keeps none.
		v.set(func() { v.keys["b"] = mustKey(t, "b", 2) })
		time.Sleep(6 * time.Minute)
		if wantKey(t, c, "b") != k {
			t.Error("the same secret became another *Key")
		}
		wantCalls(t, v, "GetKey", 3)
	})
}

// TestCachedFlood is an attacker who sends messages with random key IDs: 100,000
// at once from many receivers, then one a millisecond for 100 seconds.
func TestCachedFlood(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		wantKey(t, c, "a")
		time.Sleep(time.Minute) // so that the list is old
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
			t.Errorf("100,000 unknown IDs cost %d calls, want 1", got)
		}
		wantCalls(t, v, "GetKey", 1)

		var m1, m2 runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m1)
		before = v.total()
		flood(100000, 99, time.Millisecond)
		if got := v.total() - before; got < 2 || got > 4 {
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

// TestCachedFloodBroken is the same with a store that fails: it is asked a few
// times a minute, and nobody is told that there is no such key.
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
		wantCalls(t, v, "ValidKeyIDs", 1)
		if ids, err := c.ValidKeyIDs(t.Context()); err != nil || len(ids) != 3 {
			t.Errorf("IDs: %q, %v", ids, err)
		}
		wantCalls(t, v, "ValidKeyIDs", 2)
		// Also when the list lags behind for long.
		v.set(func() { v.hidden = "c" })
		time.Sleep(time.Hour)
		wantCurrent(t, c, "c")
		k := wantKey(t, c, "c")
		if ids, err := c.ValidKeyIDs(t.Context()); err != nil || len(ids) != 2 {
			t.Errorf("IDs: %q, %v", ids, err)
		}
		before := v.count("c")
		if wantKey(t, c, "c") != k || v.count("c") != before {
			t.Error("the current key was dropped")
		}
	})
}

// TestCachedIdle: who does not send costs the store nothing.
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
			for _, err := range []error{second(c.GetKey(t.Context(), "a")), second(c.CurrentKeyID(t.Context())), second(c.ValidKeyIDs(t.Context()))} {
				if !errors.Is(err, want) || !errors.Is(want, keys.ErrUnavailable) && errors.Is(err, keys.ErrUnavailable) {
					t.Errorf("%v, want %v", err, want)
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
		// Which is believed for ListTTL.
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

// TestCachedRetire: a key that the list no longer has is dropped with it, and not
// destroyed: somebody may be using it.
func TestCachedRetire(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		b := wantKey(t, c, "b")
		v.set(func() { delete(v.keys, "b") })
		time.Sleep(31 * time.Second)
		wantKey(t, c, "b") // within its TTL, and the list was not asked for
		if _, err := c.ValidKeyIDs(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("GetKey: %v", err)
		}
		if b.Err() != nil {
			t.Error("it was destroyed")
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

// TestCachedAnotherSecret: refused while the key is there and when it comes back.
func TestCachedAnotherSecret(t *testing.T) {
	cachedIn(t, nil, func(t *testing.T, v *vault, c *keys.Cached) {
		b := wantKey(t, c, "b")
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

		// Nobody rotates.
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
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("Close took %v", took)
		}
		all.Wait()
		for _, err := range []error{second(c.GetKey(t.Context(), "a")), second(c.CurrentKeyID(t.Context())), second(c.ValidKeyIDs(t.Context()))} {
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
		if err := c.Close(); err != nil {
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
			if err := c.Close(); err != nil {
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
		expect("hit ValidKeyIDs ", "unknown GetKey x")
		v.set(func() { v.err = errors.New("down") })
		time.Sleep(5 * time.Minute)
		wantKey(t, c, "a")
		expect("miss GetKey a", "error GetKey a 50ms", "stale GetKey a")
		wantKey(t, c, "a")
		expect("stale GetKey a")
	})
	for k, want := range map[keys.CacheEventKind]string{-1: "invalid", 0: "invalid", keys.CacheHit: "hit", keys.CacheError: "error", 99: "invalid"} {
		if k.String() != want {
			t.Errorf("%d is %q, want %q", k, k, want)
		}
	}
}

func BenchmarkCachedGetKey(b *testing.B) {
	ring, err := keys.NewRing(mustKey(b, "a", 1))
	if err != nil {
		b.Fatal(err)
	}
	c, err := keys.NewCached(ring, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.GetKey(context.Background(), "a"); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
