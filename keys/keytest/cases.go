package keytest

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// senderKey: a store can hold the key of one sender. It is none of another, and no
// master key.
func senderKey(t *trial) {
	if !t.o.SenderKeys {
		return
	}
	m := material(0, 1)
	master := slices.Clone(m.Secret)
	other := material(1, 1)
	m.Sender = "router/eu-1"
	m.Secret = derived(master, m.Sender)
	t.open(Content{Current: m.ID, Keys: []Material{m, other}})
	k, err := t.Provider.GetKey(t.Context(), m.ID)
	if err != nil {
		t.Fatalf("GetKey(%s): %v", m.ID, err)
	}
	if k.SenderID() != m.Sender {
		t.Errorf("the sender ID of %s is %q, want %q", m.ID, k.SenderID(), m.Sender)
	}
	if okm, err := k.Derive(m.Sender, []byte("info")); err != nil || okm != expand(m.Secret, []byte("info")) {
		t.Errorf("the sender key derives wrongly: %v", err)
	}
	if _, err := k.Derive("", []byte("info")); !errors.Is(err, keys.ErrSenderKey) {
		t.Errorf("the sender key derives for another sender: %v", err)
	}
	if k := t.get(other); k.SenderID() != "" {
		t.Errorf("the master key %s has the sender ID %q", k.ID(), k.SenderID())
	}
	if t.static() {
		return
	}
	// Under its ID, the master key is another secret.
	changed := m
	changed.Sender, changed.Secret = "", m.Secret
	_ = t.Replace(Content{Current: m.ID, Keys: []Material{changed, other}})
	if k, err := t.Provider.GetKey(t.Context(), m.ID); err == nil && k.SenderID() == "" {
		t.Errorf("%s became a master key", m.ID)
	}
}

// queues: a store can hold what a key is for, and change it.
func queues(t *trial) {
	if !t.o.Queues {
		return
	}
	a, b := material(0, 1), material(1, 1)
	a.Queues = []string{"orders", "a \"quoted\" \\ queue", "\u961f\u5217"}
	t.open(Content{Current: a.ID, Keys: []Material{a, b}})
	if k := t.get(a); !slices.Equal(k.Queues(), slices.Sorted(slices.Values(a.Queues))) || !k.For("orders") || k.For("order") {
		t.Errorf("%s is for %q, want %q", a.ID, k.Queues(), a.Queues)
	}
	if k := t.get(b); k.Queues() != nil || !k.For("orders") {
		t.Errorf("%s is for %q, want any", b.ID, k.Queues())
	}
	if t.static() {
		return
	}
	a.Queues = nil
	b.Queues = []string{"orders"}
	t.replace(Content{Current: a.ID, Keys: []Material{a, b}})
	if k := t.get(a); k.Queues() != nil {
		t.Errorf("%s is for %q, want any", a.ID, k.Queues())
	}
	if k := t.get(b); !slices.Equal(k.Queues(), b.Queues) {
		t.Errorf("%s is for %q, want %q", b.ID, k.Queues(), b.Queues)
	}
}

// derived is the secret of a sender key (qre1, Section 3.1): T(1) of HKDF-Expand.
func derived(master []byte, sender string) []byte {
	h := hmac.New(sha256.New, master)
	h.Write([]byte("QRE1/sender/v1\x00" + string([]byte{byte(len(sender))}) + sender + "\x01")) //nolint:gosec // G115: a sender ID has at most 128 bytes
	return h.Sum(nil)
}

// expand is HKDF-Expand (RFC 5869, Section 2.3) to 64 bytes: T(1) || T(2).
func expand(secret, info []byte) (okm [64]byte) {
	var last []byte
	for i := range 2 {
		h := hmac.New(sha256.New, secret)
		h.Write(last)
		h.Write(info)
		h.Write([]byte{byte(i + 1)})
		last = h.Sum(nil)
		copy(okm[32*i:], last)
	}
	return okm
}

// derives fails the test unless the key is the master key with that secret.
func (t *trial) derives(k *keys.Key, secret []byte) {
	t.Helper()
	for _, info := range []string{"", "info", strings.Repeat("\x00", 300)} {
		for _, sender := range []string{"", "router/eu-1"} {
			okm, err := k.Derive(sender, []byte(info))
			if err != nil {
				t.Errorf("Derive: %v", err)
			} else if okm != expand(derived(secret, sender), []byte(info)) {
				t.Errorf("%s derives as if it had another secret", k.ID())
			}
		}
	}
}

// get returns the key of that material, and fails the test unless it is there
// and right.
func (t *trial) get(m Material) *keys.Key {
	t.Helper()
	k, err := t.Provider.GetKey(t.Context(), m.ID)
	if err != nil {
		t.Fatalf("GetKey(%s): %v", m.ID, err)
	}
	if k.ID() != m.ID {
		t.Errorf("GetKey(%s) gave %s", m.ID, k.ID())
	}
	t.derives(k, m.Secret)
	return k
}

// missing fails the test unless the provider is sure that there is no such key.
func (t *trial) missing(id keys.ID) {
	t.Helper()
	k, err := t.Provider.GetKey(t.Context(), id)
	if k != nil || !errors.Is(err, keys.ErrNotFound) || errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("GetKey(%q): %v, %v; want %v alone", id, k, err, keys.ErrNotFound)
	} else if !strings.Contains(err.Error(), string(id)) {
		t.Errorf("the error does not name %s: %v", id, err)
	}
}

func (t *trial) current(want keys.ID) {
	t.Helper()
	if id, err := t.Provider.CurrentKeyID(t.Context()); err != nil || id != want {
		t.Errorf("CurrentKeyID: %q, %v; want %q", id, err, want)
	}
}

func (t *trial) listed(want ...keys.ID) {
	t.Helper()
	ids, err := t.Provider.ValidKeyIDs(t.Context())
	slices.Sort(ids)
	if err != nil || !slices.Equal(ids, want) {
		t.Errorf("ValidKeyIDs: %q, %v; want %q", ids, err, want)
	}
}

func answers(t *trial) {
	a, b := material(0, 1), material(1, 1)
	b.Created, b.Expires = time.Time{}, time.Date(2999, 1, 2, 3, 4, 5, 0, time.UTC)
	t.open(Content{Current: b.ID, Keys: []Material{a, b}})
	for _, m := range []Material{a, b} {
		k := t.get(m)
		if err := k.Err(); err != nil {
			t.Errorf("Err: %v", err)
		}
		if !t.o.NoTimes && (!k.Expires().Equal(m.Expires) || !m.Created.IsZero() && !k.Created().Equal(m.Created)) {
			t.Errorf("%s: created %v, expires %v; want %v, %v", m.ID, k.Created(), k.Expires(), m.Created, m.Expires)
		}
	}
	t.current(b.ID)
}

func same(t *trial) {
	a, b := material(0, 1), material(1, 1)
	t.open(Content{Current: a.ID, Keys: []Material{a, b}})
	var mu sync.Mutex
	got := make(map[*keys.Key]int)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			k, err := t.Provider.GetKey(t.Context(), a.ID)
			if err != nil {
				t.Errorf("GetKey: %v", err)
				return
			}
			t.derives(k, a.Secret)
			mu.Lock()
			defer mu.Unlock()
			got[k]++
		})
	}
	all.Wait()
	got[t.get(a)]++
	if len(got) != 1 {
		t.Errorf("one ID has %d keys: what is derived from them cannot be cached", len(got))
	}
}

func unknown(t *trial) {
	a := material(0, 1)
	t.open(Content{Current: a.ID, Keys: []Material{a}})
	t.missing("key-x")
	t.missing("key")
	t.missing("key-aa")
	t.missing("KEY-A")
	// No message with such an ID gets this far; still it must not do harm.
	for _, id := range []keys.ID{"", ".", "..", "/", "../key-a", "key-a/", "*", "key-a\x00", "\xff", keys.ID(strings.Repeat("k", 65)), keys.ID(strings.Repeat("k", 1<<16))} {
		k, err := t.Provider.GetKey(t.Context(), id)
		if k != nil || !errors.Is(err, keys.ErrNotFound) && !errors.Is(err, keys.ErrInvalidKey) {
			t.Errorf("GetKey(%.70q): %v, %v", id, k, err)
		} else if len(err.Error()) > 1000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
	}
	t.get(a)
}

func list(t *trial) {
	a, b, c := material(0, 1), material(1, 1), material(2, 1)
	t.open(Content{Current: b.ID, Keys: []Material{c, a, b}})
	t.listed(a.ID, b.ID, c.ID)
	ids, err := t.Provider.ValidKeyIDs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range ids {
		ids[i] = "mine"
	}
	_ = append(ids, "mine")
	t.listed(a.ID, b.ID, c.ID)
}

func noCurrent(t *trial) {
	if t.o.AlwaysCurrent {
		t.Log("the store cannot be without a current key")
		return
	}
	a := material(0, 1)
	t.open(Content{Keys: []Material{a}})
	if id, err := t.Provider.CurrentKeyID(t.Context()); err == nil || id != "" || !errors.Is(err, keys.ErrNotFound) {
		t.Errorf("CurrentKeyID: %q, %v; want %v", id, err, keys.ErrNotFound)
	}
	t.get(a) // it opens
}

// expired keys go on opening, so they are given out; sealing judges.
func expired(t *trial) {
	if t.o.NoTimes {
		t.Log("the provider knows no times")
		return
	}
	a := material(0, 1)
	a.Created = time.Date(1998, 1, 1, 0, 0, 0, 0, time.UTC)
	a.Expires = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	t.open(Content{Current: a.ID, Keys: []Material{a}})
	if !t.get(a).Expired(time.Now()) {
		t.Error("the key is not expired")
	}
	t.current(a.ID)
	t.listed(a.ID)
}

// cancelled callers get their own error or an answer, and spoil nothing.
func cancelled(t *trial) {
	a := material(0, 1)
	t.open(Content{Current: a.ID, Keys: []Material{a}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	k, err := t.Provider.GetKey(ctx, a.ID)
	if err == nil {
		t.derives(k, a.Secret)
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("GetKey: %v", err)
	}
	if id, err := t.Provider.CurrentKeyID(ctx); err == nil && id != a.ID || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("CurrentKeyID: %q, %v", id, err)
	}
	if ids, err := t.Provider.ValidKeyIDs(ctx); err == nil && len(ids) != 1 || err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("ValidKeyIDs: %q, %v", ids, err)
	}
	t.get(a)
	t.current(a.ID)
	t.listed(a.ID)
}

func unprintable(t *trial) {
	a := material(0, 1)
	t.open(Content{Current: a.ID, Keys: []Material{a}})
	k := t.get(a)
	_, err := t.Provider.GetKey(t.Context(), "key-x")
	for _, v := range []any{t.Provider, k, err, struct{ P any }{t.Provider}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			if found := Leak(fmt.Sprintf(verb, v), a.Secret); found != "" {
				t.Errorf("%s of %T shows %s", verb, v, found)
			}
		}
		if text, err := json.Marshal(v); err == nil {
			if found := Leak(string(text), a.Secret); found != "" {
				t.Errorf("JSON of %T shows %s", v, found)
			}
		}
	}
}
