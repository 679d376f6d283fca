package keys_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// Behind a cache a Ring and a File change as fast as without it: a key that was
// removed is refused at once, and listeners are called within ListTTL though no
// message asks for the key.
func TestCachedLocal(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (p keys.Provider, remove, rotate func()){
		"ring": func(t *testing.T) (keys.Provider, func(), func()) {
			r, err := keys.NewRing(mustKey(t, "a", 1), mustKey(t, "b", 2))
			must(t, err)
			return r, func() { must(t, r.Remove("b")) }, func() {
				must(t, r.Add(mustKey(t, "c", 3)))
				must(t, r.SetCurrent("c"))
			}
		},
		"file": func(t *testing.T) (keys.Provider, func(), func()) {
			path := filepath.Join(t.TempDir(), "keys.json")
			write := func(change func(*keys.Set)) {
				must(t, keys.UpdateFile(path, func(s *keys.Set) error { change(s); return nil }))
			}
			write(func(s *keys.Set) {
				s.Current, s.Keys = "a", []*keys.Key{mustKey(t, "a", 1), mustKey(t, "b", 2)}
			})
			f, err := keys.OpenFile(path, &keys.FileOptions{CheckEvery: 1})
			must(t, err)
			return f, func() {
					write(func(s *keys.Set) {
						s.Keys = slices.DeleteFunc(s.Keys, func(k *keys.Key) bool { return k.ID() == "b" })
					})
				}, func() {
					write(func(s *keys.Set) { s.Current, s.Keys = "c", append(s.Keys, mustKey(t, "c", 3)) })
				}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, remove, rotate := open(t)
				c, err := keys.NewCached(p, nil)
				must(t, err)
				var r retirements
				c.OnRetired(r.note)
				wantCurrent(t, c, "a")
				wantKey(t, c, "a")
				k := wantKey(t, c, "b")
				must(t, c.Check(t.Context(), "b"))
				time.Sleep(10 * time.Minute) // nothing is asked for
				rotate()
				time.Sleep(time.Nanosecond)
				wantCurrent(t, c, "c")
				wantKey(t, c, "c")
				remove()
				time.Sleep(time.Nanosecond)
				if err := c.Check(t.Context(), "b"); !errors.Is(err, keys.ErrNotFound) {
					t.Errorf("Check of a removed key: %v", err)
				}
				if _, err := c.GetKey(t.Context(), "b"); !errors.Is(err, keys.ErrNotFound) {
					t.Errorf("GetKey of a removed key: %v", err)
				}
				if k.Err() == nil {
					t.Error("the provider did not destroy it")
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := r.take(); !slices.Equal(got, []keys.ID{"b"}) {
					t.Errorf("listeners were told of %q, want b", got)
				}
				ids, err := c.ValidKeyIDs(t.Context())
				if slices.Sort(ids); err != nil || !slices.Equal(ids, []keys.ID{"a", "c"}) {
					t.Errorf("IDs: %q, %v", ids, err)
				}
				must(t, c.Close(t.Context()))
				for _, err := range []error{c.Check(t.Context(), "a"), second(c.GetKey(t.Context(), "a")), second(c.CurrentKeyID(t.Context())), second(c.ValidKeyIDs(t.Context()))} {
					if !errors.Is(err, keys.ErrUnavailable) {
						t.Errorf("closed: %v", err)
					}
				}
			})
		})
	}
}

// Listeners are told of a key that was removed also if another one has its ID by then: what was
// derived from the first is of no more use.
func TestCachedLocalReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := keys.NewRing(mustKey(t, "a", 1), mustKey(t, "b", 2))
		must(t, err)
		c, err := keys.NewCached(ring, nil)
		must(t, err)
		var r retirements
		c.OnRetired(r.note)
		wantKey(t, c, "b")
		must(t, ring.Remove("b"))
		must(t, ring.Add(mustKey(t, "b", 2)))
		time.Sleep(2 * time.Minute)
		if got := r.take(); !slices.Equal(got, []keys.ID{"b"}) {
			t.Errorf("listeners were told of %q, want b", got)
		}
		must(t, c.Close(t.Context()))
	})
}

// A type that embeds a Ring is not taken for one: its methods may ask a store.
func TestCachedEmbeddedRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		p := &flaky{fail: func() error { calls++; return nil }}
		must(t, p.Add(mustKey(t, "a", 1)))
		c, err := keys.NewCached(p, nil)
		must(t, err)
		for range 1000 {
			wantKey(t, c, "a")
			_ = c.Check(t.Context(), "forged")
		}
		if calls > 3 {
			t.Errorf("%d calls for 1,000 questions, want at most 3", calls)
		}
		must(t, c.Close(t.Context()))
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
