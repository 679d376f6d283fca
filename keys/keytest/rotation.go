package keytest

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// static says in the log why a test has nothing to do.
func (t *trial) static() bool {
	if t.Replace == nil {
		t.Log("the keys of this provider never change")
	}
	return t.Replace == nil
}

func rotation(t *trial) {
	a, b, c := material(0, 1), material(1, 1), material(2, 1)
	t.open(Content{Current: a.ID, Keys: []Material{a}})
	if t.static() {
		return
	}
	ka := t.get(a)
	t.current(a.ID)
	t.missing(b.ID)

	t.replace(Content{Current: a.ID, Keys: []Material{a, b}}) // distributed
	kb := t.get(b)
	t.current(a.ID)
	t.listed(a.ID, b.ID)

	t.replace(Content{Current: b.ID, Keys: []Material{a, b}}) // made current
	t.current(b.ID)
	if t.get(a) != ka || t.get(b) != kb {
		t.Error("a key that did not change is another *Key")
	}

	t.replace(Content{Current: b.ID, Keys: []Material{b}}) // retired
	t.missing(a.ID)
	t.current(b.ID)
	t.listed(b.ID)
	if t.get(b) != kb {
		t.Error("a key that did not change is another *Key")
	}

	t.replace(Content{Current: c.ID, Keys: []Material{c, b}}) // both steps at once
	t.current(c.ID)
	t.get(c)
	t.get(b)

	t.replace(Content{Current: c.ID, Keys: []Material{a, c, b}}) // retired too early
	t.get(a)
	t.listed(a.ID, b.ID, c.ID)
}

// never asks for the key and fails the test if it has that secret. Refusing is
// fine, and so is the old one.
func (t *trial) never(id keys.ID, secret []byte) {
	t.Helper()
	k, err := t.Provider.GetKey(t.Context(), id)
	if err != nil {
		return
	}
	if okm, err := k.Expand(nil); err == nil && okm == expand(secret, nil) {
		t.Errorf("%s has another secret than before", id)
	}
}

// correctedSecret: until a message opened or was sealed under a key, its secret can be
// corrected while the provider is in use.
func correctedSecret(t *trial) {
	a, b, wrong := material(0, 1), material(1, 1), material(0, 2)
	t.open(Content{Current: b.ID, Keys: []Material{wrong, b}})
	if t.static() {
		return
	}
	t.get(wrong)
	t.get(b).Confirm()                                     // of another key
	t.replace(Content{Current: b.ID, Keys: []Material{b}}) // some stores do not overwrite a key
	t.missing(a.ID)
	t.replace(Content{Current: b.ID, Keys: []Material{a, b}})
	t.get(a).Confirm()
	if err := t.Replace(Content{Current: b.ID, Keys: []Material{wrong, b}}); err != nil {
		t.Logf("Replace: %v", err)
	}
	t.never(a.ID, wrong.Secret)
	t.replace(Content{Current: b.ID, Keys: []Material{a, b}})
	t.get(a)
}

func anotherSecret(t *trial) {
	a, b := material(0, 1), material(1, 1)
	t.open(Content{Current: a.ID, Keys: []Material{a, b}})
	if t.static() {
		return
	}
	k := t.get(a)
	k.Confirm() // a message opened under it
	t.get(b)
	forged := material(0, 2)
	if err := t.Replace(Content{Current: a.ID, Keys: []Material{forged, b}}); err != nil {
		t.Logf("Replace: %v", err)
	}
	t.never(a.ID, forged.Secret)
	if k.Err() == nil {
		t.derives(k, a.Secret)
	}
	t.replace(Content{Current: a.ID, Keys: []Material{a, b}})
	t.get(a)
}

func anotherSecretLater(t *trial) {
	a, b := material(0, 1), material(1, 1)
	t.open(Content{Current: b.ID, Keys: []Material{a, b}})
	if t.static() {
		return
	}
	t.get(a).Confirm() // a message opened under it
	t.get(b)
	t.replace(Content{Current: b.ID, Keys: []Material{b}})
	t.missing(a.ID)
	forged := material(0, 2)
	if err := t.Replace(Content{Current: b.ID, Keys: []Material{forged, b}}); err != nil {
		t.Logf("Replace: %v", err)
	}
	t.never(a.ID, forged.Secret)
	t.get(b)
}

// inUse asks from several goroutines while keys are added and removed, and checks that
// each answer is right.
func inUse(t *trial) {
	const generations = 8
	all := make([]Material, generations)
	for i := range all {
		all[i] = material(byte(i), 1)
	}
	t.open(Content{Current: all[0].ID, Keys: all[:1]})
	if t.static() {
		return
	}
	secrets := make(map[keys.ID][]byte)
	for _, m := range all {
		secrets[m.ID] = m.Secret
	}
	pause := runtime.Gosched
	if t.o.Bubble { // there time passes only while all goroutines sleep
		pause = func() { time.Sleep(7 * time.Second) }
	}
	var stop atomic.Bool
	var asked atomic.Int64
	var users sync.WaitGroup
	for range 4 {
		users.Go(func() {
			for ; !stop.Load(); pause() {
				asked.Add(1)
				id, err := t.Provider.CurrentKeyID(t.Context())
				if err != nil {
					t.Errorf("CurrentKeyID: %v", err)
					return
				}
				k, err := t.Provider.GetKey(t.Context(), id)
				if errors.Is(err, keys.ErrNotFound) {
					continue // retired since
				}
				if err != nil {
					t.Errorf("GetKey: %v", err)
					return
				}
				okm, err := k.Expand([]byte("x"))
				if errors.Is(err, keys.ErrDestroyed) {
					continue // retired since
				}
				if err != nil || okm != expand(secrets[id], []byte("x")) {
					t.Errorf("%s derives wrongly: %v", id, err)
					return
				}
				ids, err := t.Provider.ValidKeyIDs(t.Context())
				if err != nil || len(ids) == 0 || slices.ContainsFunc(ids, func(id keys.ID) bool { return secrets[id] == nil }) {
					t.Errorf("ValidKeyIDs: %q, %v", ids, err)
					return
				}
			}
		})
	}
	for i := 1; i < generations; i++ {
		t.replace(Content{Current: all[i-1].ID, Keys: all[max(0, i-2) : i+1]})
		t.replace(Content{Current: all[i].ID, Keys: all[i-1 : i+1]})
		for before := asked.Load(); asked.Load() < before+20 && !t.Failed(); {
			pause()
		}
	}
	stop.Store(true)
	users.Wait()
	t.current(all[generations-1].ID)
}

// broken: a store that fails is not one that has no such key.
func broken(t *trial) {
	a, b := material(0, 1), material(1, 1)
	t.open(Content{Current: a.ID, Keys: []Material{a, b}})
	if t.Break == nil {
		t.Log("the store of this provider cannot fail")
		return
	}
	t.get(a)
	t.current(a.ID)
	t.listed(a.ID, b.ID)
	t.Break(true)
	for _, id := range []keys.ID{b.ID, "key-x"} {
		k, err := t.Provider.GetKey(t.Context(), id)
		switch {
		case err == nil && id == b.ID:
			t.derives(k, b.Secret)
		case errors.Is(err, keys.ErrNotFound) || !errors.Is(err, keys.ErrUnavailable):
			t.Errorf("GetKey(%s): %v, want %v alone", id, err, keys.ErrUnavailable)
		}
		if err != nil && Leak(err.Error(), b.Secret) != "" {
			t.Errorf("the error holds key material: %v", err)
		}
	}
	if k, err := t.Provider.GetKey(t.Context(), a.ID); err == nil {
		t.derives(k, a.Secret)
	} else if !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("GetKey: %v", err)
	}
	if id, err := t.Provider.CurrentKeyID(t.Context()); err == nil && id != a.ID || err != nil && !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("CurrentKeyID: %q, %v", id, err)
	}
	if ids, err := t.Provider.ValidKeyIDs(t.Context()); err == nil && len(ids) != 2 || err != nil && !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("ValidKeyIDs: %q, %v", ids, err)
	}
	t.Break(false)
	t.get(a)
	t.get(b)
	t.current(a.ID)
	t.missing("key-x")
}
