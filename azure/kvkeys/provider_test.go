package kvkeys

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

// fill makes the vault hold c at once.
func (v *vault) fill(name string, layout Layout, c keytest.Content) {
	v.mu.Lock()
	defer v.mu.Unlock()
	used := make(map[*version]bool)
	for _, m := range c.Keys {
		secret := name
		if layout == Secrets {
			secret, _ = SecretName(name, m.ID) // the suite's IDs all fit
		}
		value := base64.StdEncoding.EncodeToString(m.Secret)
		var x *version
		for _, old := range v.secrets[secret] {
			if old.value == value && old.tags[TagID] == string(m.ID) {
				x = old
			}
		}
		if x == nil {
			x = v.addLocked(secret, &version{value: value})
		}
		used[x] = true
		x.disabled, x.created, x.expires = false, m.Created, m.Expires
		x.tags = map[string]string{Tag: Valid, TagID: string(m.ID)}
		if m.ID == c.Current {
			x.tags[Tag] = Current
		}
		// The latest version is what Secrets is about.
		all := v.secrets[secret]
		i := slices.Index(all, x)
		v.secrets[secret] = append(slices.Delete(all, i, i+1), x)
	}
	for _, all := range v.secrets {
		for _, x := range all {
			x.disabled = !used[x]
		}
	}
}

func suite(t *testing.T, layout Layout, wrap func(*testing.T, keys.Provider) keys.Provider, settle func()) {
	keytest.Run(t, keytest.Options{
		Bubble: true,
		Open: func(t *testing.T, c keytest.Content) keytest.Backing {
			v := newPipedVault(t)
			v.page = 2
			v.fill("pulls", layout, c)
			return keytest.Backing{
				Provider: wrap(t, v.provider(t, "Pulls", layout)),
				Replace: func(c keytest.Content) error {
					v.fill("pulls", layout, c)
					settle()
					return nil
				},
				Break: func(broken bool) {
					if v.fail(fault{}); broken {
						v.fail(fault{status: 503})
					}
					settle()
				},
			}
		},
	})
}

func TestSuite(t *testing.T) {
	for name, layout := range map[string]Layout{"secrets": Secrets, "versions": Versions} {
		t.Run(name, func(t *testing.T) {
			suite(t, layout, func(_ *testing.T, p keys.Provider) keys.Provider { return p }, func() {})
		})
		t.Run(name+", cached", func(t *testing.T) {
			wrap := func(t *testing.T, p keys.Provider) keys.Provider { return cached(t, p, short) }
			suite(t, layout, wrap, func() { time.Sleep(time.Minute) })
		})
	}
}

// short is a cache whose every time is over in a minute.
var short = keys.CachedOptions{TTL: 20 * time.Second, ListTTL: 10 * time.Second, MaxStale: 10 * time.Second}

func cached(t *testing.T, p keys.Provider, o keys.CachedOptions) *keys.Cached {
	t.Helper()
	c, err := keys.NewCached(p, &o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// state fails the test unless the provider has that current key and exactly these.
func state(t *testing.T, p keys.Provider, current keys.ID, valid ...keys.ID) {
	t.Helper()
	id, err := p.CurrentKeyID(t.Context())
	if err != nil || id != current {
		t.Errorf("current %q, %v, want %q", id, err, current)
	}
	list, err := p.ValidKeyIDs(t.Context())
	slices.Sort(list)
	if err != nil || !slices.Equal(list, valid) {
		t.Errorf("valid %q, %v, want %q", list, err, valid)
	}
	for _, id := range valid {
		if _, err := p.GetKey(t.Context(), id); err != nil {
			t.Errorf("GetKey(%s): %v", id, err)
		}
	}
}

// failure fails the test unless err has that reason and the sentinel, and says
// every text.
func failure(t *testing.T, err error, r Reason, sentinel error, texts ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Reason != r || !errors.Is(err, sentinel) {
		t.Errorf("%v; want %v, %v", err, r, sentinel)
		return
	}
	for _, other := range []error{keys.ErrNotFound, keys.ErrUnavailable, keys.ErrInvalidKey} {
		if other != sentinel && errors.Is(err, other) {
			t.Errorf("%v is %v, too", err, other)
		}
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%v: does not say %q", err, text)
		}
	}
}

// A rotation by tags and attributes, with no restart.
func TestRotationByTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		p := v.provider(t, "k", Secrets)
		a := v.key("k--a", 1, Current)
		v.key("k--no-key", 9, "")
		v.key("other--x", 9, Current)
		v.key("k", 9, Current)
		v.key("k--z9", 9, Current) // no ID is written so
		state(t, p, "a", "a")
		_, err := p.GetKey(t.Context(), "no-key")
		failure(t, err, Unmarked, keys.ErrNotFound, "k--no-key", "qrt-key=valid")

		time.Sleep(time.Second)
		b := v.key("k--b", 2, Valid) // distributed
		state(t, p, "a", "a", "b")
		v.mark(b, Current) // one step: the newer of both is current
		state(t, p, "b", "a", "b")
		v.mark(b, Valid) // and back
		state(t, p, "a", "a", "b")
		v.mark(b, Current)
		v.disable(a, true) // retired
		state(t, p, "b", "b")
		_, err = p.GetKey(t.Context(), "a")
		failure(t, err, Disabled, keys.ErrNotFound, "k--a", "key a", "disabled", "enable it")

		// Prepared: it opens from now on, and seals in an hour.
		time.Sleep(time.Second)
		c := v.add("k--c", keyVersion(3, Current))
		v.set(c, func(x *version) { x.notBefore = time.Now().Add(time.Hour) })
		state(t, p, "b", "b", "c")
		time.Sleep(time.Hour)
		state(t, p, "c", "b", "c")
		v.disable(c, true) // withdrawn in a hurry: the one before is still tagged
		state(t, p, "b", "b")
		v.mark(b, "CURRENT")
		_, err = p.GetKey(t.Context(), "b")
		failure(t, err, Unmarked, keys.ErrNotFound, "another value")
	})
}

// What is said where no key is current.
func TestNoCurrentKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, layout := range []Layout{Secrets, Versions} {
			v := newPipedVault(t)
			p := v.provider(t, "k", layout)
			_, err := p.CurrentKeyID(t.Context())
			failure(t, err, Unmarked, keys.ErrNotFound, "check the name", "qrt-key=current")
			_, err = p.ValidKeyIDs(t.Context())
			failure(t, err, Unmarked, keys.ErrNotFound, "check the name")

			secret := "k"
			if layout == Secrets {
				secret = "k--a"
			}
			x := keyVersion(1, Valid)
			x.tags[TagID] = "a"
			v.add(secret, x)
			_, err = p.CurrentKeyID(t.Context())
			failure(t, err, Unmarked, keys.ErrNotFound, "no key is current")
			v.mark(x, Current)
			v.set(x, func(x *version) { x.notBefore = time.Now().Add(time.Hour) })
			_, err = p.CurrentKeyID(t.Context())
			failure(t, err, NotYetValid, keys.ErrNotFound, "not to be used before", "key a")
			v.disable(x, true)
			_, err = p.CurrentKeyID(t.Context())
			failure(t, err, Disabled, keys.ErrNotFound, "key a is disabled")
			if ids, err := p.ValidKeyIDs(t.Context()); err != nil || len(ids) != 0 {
				t.Errorf("all keys are withdrawn: %q, %v", ids, err)
			}
		}
	})
}

// A second enabled version is refused, also by a provider that has not seen the first:
// no message may be sealed or judged under a value that came later.
func TestSeveralVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		v.page = 1
		first := v.key("k--a", 1, Current)
		v.key("k--b", 9, Valid)
		p := v.provider(t, "k", Secrets)
		k, err := p.GetKey(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		k.Confirm() // a message was sealed under it
		second := v.key("k--a", 2, Current)
		for _, p := range []*Provider{p, v.provider(t, "k", Secrets)} {
			_, err = p.GetKey(t.Context(), "a")
			failure(t, err, Ambiguous, keys.ErrInvalidKey, "k--a", "disable", "new ID")
		}
		v.disable(second, true)
		_, err = p.GetKey(t.Context(), "a")
		failure(t, err, Disabled, keys.ErrNotFound)
		v.disable(first, true)
		v.disable(second, false)
		_, err = p.GetKey(t.Context(), "a")
		failure(t, err, Invalid, keys.ErrInvalidKey, "another secret before")
		v.key("k--a", 1, Current) // the first once more
		v.disable(second, true)
		if again, err := p.GetKey(t.Context(), "a"); err != nil || !again.Equal(k) {
			t.Errorf("the old secret is back: %v", err)
		}

		one := v.key("all", 1, Current)
		two := v.key("all", 2, Valid)
		v.set(one, func(x *version) { x.tags[TagID] = "a" })
		v.set(two, func(x *version) { x.tags[TagID] = "a" })
		v.key("all", 3, Valid) // no ID
		p = v.provider(t, "all", Versions)
		if ids, err := p.ValidKeyIDs(t.Context()); err != nil || !slices.Equal(ids, []keys.ID{"a"}) {
			t.Errorf("%q, %v", ids, err)
		}
		_, err = p.GetKey(t.Context(), "a")
		failure(t, err, Ambiguous, keys.ErrInvalidKey, "several enabled versions")
		v.disable(two, true)
		if k, err := p.GetKey(t.Context(), "a"); err != nil || !k.Expires().IsZero() || k.Created().IsZero() {
			t.Errorf("key %v, %v; want a creation time and no expiry", k, err)
		}
		v.disable(one, true)
		_, err = p.GetKey(t.Context(), "a")
		failure(t, err, Disabled, keys.ErrNotFound)
		_, err = p.GetKey(t.Context(), "b")
		failure(t, err, NotFound, keys.ErrNotFound, "qrt-key-id")
	})
}

// Whatever is not 32 bytes in strict base64 is no key, and no error shows any of it.
func TestMaterial(t *testing.T) {
	const leak = "TOPSECRET"
	good := base64.StdEncoding.EncodeToString(secretOf(0xfb))
	v := newVault(t)
	p := v.provider(t, "", Secrets)
	for name, c := range map[string]struct{ value, want string }{
		"empty":         {"", "0 bytes"},
		"short":         {base64.StdEncoding.EncodeToString([]byte(leak)), "9 bytes"},
		"31 bytes":      {base64.StdEncoding.EncodeToString(secretOf(1)[1:]), "31 bytes"},
		"long":          {base64.StdEncoding.EncodeToString([]byte(strings.Repeat(leak, 9))), "81 bytes"},
		"very long":     {strings.Repeat(leak, 2000), "18000 characters"},
		"zeroes":        {base64.StdEncoding.EncodeToString(make([]byte, 32)), "zeroes"},
		"not base64":    {leak + "!", "not base64"},
		"URL alphabet":  {base64.URLEncoding.EncodeToString(secretOf(0xfb)), "not base64"},
		"no padding":    {strings.TrimRight(good, "="), "not base64"},
		"line break":    {good[:20] + "\n" + good[20:], "not base64"},
		"trailing bits": {good[:42] + "/=", "not base64"},
		"hexadecimal":   {strings.Repeat("0f", 32), "48 bytes"},
		"broken JSON":   {`{"secret":"` + leak, "does not parse"},
		"two kinds":     {`{"secret":"` + good + `","sender":"` + leak + `","sender_secret":"` + good + `"}`, "no key has both"},
		"no sender":     {`{"sender_secret":"` + good + `"}`, "no key has both"},
		"other ID":      {`{"id":"` + leak + `","secret":"` + good + `"}`, "another key ID"},
		"sender ID":     {`{"sender":"","sender_secret":"` + good + `"}`, "sender ID"},
	} {
		v.remove("a")
		x := keyVersion(1, Valid)
		x.value = c.value
		v.add("a", x)
		k, err := p.GetKey(t.Context(), "a")
		if k != nil {
			t.Errorf("%s: is a key", name)
			continue
		}
		failure(t, err, Invalid, keys.ErrInvalidKey, "secret a", c.want)
		if strings.Contains(err.Error(), leak) || len(c.value) > 8 && strings.Contains(err.Error(), c.value[:8]) {
			t.Errorf("%s: the error holds the value: %v", name, err)
		}
	}
	v.remove("a")
	x := keyVersion(1, Valid)
	x.value = " " + good + "\r\n" // as a file has it
	v.add("a", x)
	if _, err := p.GetKey(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	v.remove("b")
	x = keyVersion(2, Valid)
	x.created, x.expires = time.Now(), time.Now().Add(-time.Hour)
	v.add("b", x)
	_, err := p.GetKey(t.Context(), "b")
	failure(t, err, Invalid, keys.ErrInvalidKey, "expires before it was created")
	if _, err := p.parse(place{id: "a"}, azsecrets.Secret{}); err == nil {
		t.Error("no value is a key")
	}
}

// Key Vault takes no such characters as these, and has no case.
func TestNamesInVault(t *testing.T) {
	v := newVault(t)
	for i, id := range []keys.ID{"Prod/2026.01:a_b", "prod/2026.01:a_b", "zZ"} {
		name, err := SecretName("", id)
		if err != nil {
			t.Fatal(err)
		}
		v.key(strings.ToUpper(name), byte(i+1), Current)
	}
	p := v.provider(t, "", Secrets)
	for i, id := range []keys.ID{"Prod/2026.01:a_b", "prod/2026.01:a_b", "zZ"} {
		k, err := p.GetKey(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		want, err := keys.New(id, secretOf(byte(i+1)), nil)
		if err != nil || !k.Equal(want) {
			t.Errorf("%s has the wrong secret: %v", id, err)
		}
	}
	before := v.total()
	_, err := p.GetKey(t.Context(), keys.ID(strings.Repeat("A", 64)))
	failure(t, err, NotFound, keys.ErrNotFound, "shorter ID")
	if v.total() != before {
		t.Error("the vault was asked for a name that it does not take")
	}
}

// A flood of forged key IDs costs one list in its time and one look at a newer one,
// however many there are.
func TestFlood(t *testing.T) {
	for name, layout := range map[string]Layout{"secrets": Secrets, "versions": Versions} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := newPipedVault(t)
				x := v.key("k", 1, Current)
				v.set(x, func(x *version) { x.tags[TagID] = "a" })
				v.key("k--a", 1, Current)
				c := cached(t, v.provider(t, "k", layout), short)
				for i := range 100_000 {
					if _, err := c.GetKey(t.Context(), forged(i)); !errors.Is(err, keys.ErrNotFound) {
						t.Fatal(err)
					}
				}
				if n := v.total(); n != 3 {
					t.Errorf("%d requests, want 3: the challenge, the list, and one look at a newer list", n)
				}
			})
		})
	}
}

func forged(i int) keys.ID {
	return keys.ID("forged-" + strconv.Itoa(i))
}

func TestOptions(t *testing.T) {
	v := newVault(t)
	for name, open := range map[string]func() (*Provider, error){
		"no credential":   func() (*Provider, error) { return New(vaultURL, nil, "k", nil) },
		"unknown layout":  func() (*Provider, error) { return New(vaultURL, identity{}, "k", &Options{Layout: 2}) },
		"no name":         func() (*Provider, error) { return New(vaultURL, identity{}, "", v.options(Versions)) },
		"bad name":        func() (*Provider, error) { return New(vaultURL, identity{}, "a/b", nil) },
		"separator":       func() (*Provider, error) { return New(vaultURL, identity{}, "a--b", nil) },
		"dash at the end": func() (*Provider, error) { return New(vaultURL, identity{}, "a-", nil) },
		"long name":       func() (*Provider, error) { return New(vaultURL, identity{}, strings.Repeat("a", 62), nil) },
		"http":            func() (*Provider, error) { return New("http://x.vault.azure.net", identity{}, "k", nil) },
		"path":            func() (*Provider, error) { return New("https://x.vault.azure.net/secrets", identity{}, "k", nil) },
		"no URL":          func() (*Provider, error) { return New("\x00", identity{}, "k", nil) },
	} {
		if p, err := open(); err == nil || p != nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if _, err := New(vaultURL, identity{}, strings.Repeat("a", 61), nil); err != nil {
		t.Error(err)
	}
	if _, err := New(vaultURL, identity{}, strings.Repeat("a", 127), v.options(Versions)); err != nil {
		t.Error(err)
	}
}
