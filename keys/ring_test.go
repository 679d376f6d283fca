package keys_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/keys"
)

func TestRing(t *testing.T) {
	ctx := t.Context()
	a, b := mustKey(t, "a", 1), mustKey(t, "b", 2)
	r, err := keys.NewRing(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := r.CurrentKeyID(ctx); id != "a" || err != nil {
		t.Errorf("current: %q, %v; want the first", id, err)
	}
	if ids := r.IDs(); !slices.Equal(ids, []keys.ID{"a", "b"}) {
		t.Errorf("IDs: %q", ids)
	}
	if err := r.Add(a); err != nil {
		t.Errorf("the same key again: %v", err)
	}
	for name, k := range map[string]*keys.Key{"nil": nil, "the same secret": mustKey(t, "a", 1), "another secret": mustKey(t, "a", 3)} {
		if err := r.Add(k); !errors.Is(err, keys.ErrInvalidKey) {
			t.Errorf("Add of %s: %v", name, err)
		}
	}
	if got, err := r.GetKey(ctx, "a"); got != a || err != nil {
		t.Errorf("GetKey: %v, %v", got, err)
	}
	gone := mustKey(t, "c", 4)
	gone.Destroy()
	if err := r.Add(gone); !errors.Is(err, keys.ErrDestroyed) {
		t.Errorf("Add of a destroyed key: %v", err)
	}
	for _, err := range []error{r.SetCurrent("c"), r.Remove("c")} {
		if !errors.Is(err, keys.ErrNotFound) || !strings.Contains(err.Error(), `"c"`) {
			t.Errorf("an unknown ID: %v", err)
		}
	}
	if id, err := r.CurrentKeyID(ctx); id != "a" || err != nil {
		t.Errorf("current: %q, %v; the refused change changed it", id, err)
	}
}

func TestRingRemove(t *testing.T) {
	ctx := t.Context()
	a, b := mustKey(t, "a", 1), mustKey(t, "b", 2)
	r, err := keys.NewRing(a, b)
	if err != nil {
		t.Fatal(err)
	}
	a.Confirm()
	if err := r.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if a.Err() == nil || b.Err() != nil {
		t.Errorf("removed: %v, kept: %v", a.Err(), b.Err())
	}
	id, err := r.CurrentKeyID(ctx)
	if id != "" || !errors.Is(err, keys.ErrNotFound) || !strings.Contains(err.Error(), "SetCurrent") {
		t.Errorf("current: %q, %v; want an error that says what to do", id, err)
	}
	if err := r.SetCurrent("b"); err != nil {
		t.Fatal(err)
	}
	// The ID stays that of the old secret, which may come back.
	if err := r.Add(mustKey(t, "a", 3)); !errors.Is(err, keys.ErrInvalidKey) || !strings.Contains(err.Error(), "new ID") {
		t.Errorf("another secret for a removed ID: %v", err)
	}
	if err := r.Add(mustKey(t, "a", 1)); err != nil {
		t.Errorf("the same secret again: %v", err)
	}
}

func TestNewRingRefuses(t *testing.T) {
	if r, err := keys.NewRing(mustKey(t, "a", 1), mustKey(t, "a", 2)); r != nil || !errors.Is(err, keys.ErrInvalidKey) {
		t.Errorf("ring %v, %v; want ErrInvalidKey", r, err)
	}
	r, err := keys.NewRing()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.CurrentKeyID(t.Context()); !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("an empty ring: %v", err)
	}
	long := keys.ID(strings.Repeat("k", 10000))
	if err := r.SetCurrent(long); err == nil || len(err.Error()) > 200 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

// TestRingCorrectedSecret: until a message opened or was sealed under a key, another secret
// may take its place; the same secret stays confirmed when it comes back.
func TestRingCorrectedSecret(t *testing.T) {
	r, err := keys.NewRing(mustKey(t, "a", 1))
	if err != nil {
		t.Fatal(err)
	}
	replace := func(fill byte) error {
		if err := r.Remove("a"); err != nil {
			t.Fatal(err)
		}
		return r.Add(mustKey(t, "a", fill))
	}
	if err := replace(2); err != nil {
		t.Fatalf("a secret that nothing opened under is corrected: %v", err)
	}
	k, err := r.GetKey(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	k.Confirm()
	if err := replace(2); err != nil {
		t.Fatalf("the same secret comes back: %v", err)
	}
	if err := replace(3); !errors.Is(err, keys.ErrInvalidKey) {
		t.Errorf("another secret for a confirmed ID: %v, want %v", err, keys.ErrInvalidKey)
	}
}
