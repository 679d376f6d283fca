package kvkeys

import (
	"regexp"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/keys"
)

func TestSecretName(t *testing.T) {
	for _, c := range []struct {
		name string
		id   keys.ID
		want string
	}{
		{"", "2026-01", "2026-01"},
		{"pulls", "2026-01", "pulls--2026-01"},
		{"pulls", "-", "pulls---"},
		{"", "Prod/2026.1", "zprodz42026z11"},
		{"", "z", "z0"},
		{"", "Z", "zz"},
		{"", "zZ", "z0zz"},
		{"", "._:/", "z1z2z3z4"},
		{"a-b", "AZ", "a-b--zazz"},
		{strings.Repeat("n", 61), keys.ID(strings.Repeat("k", 64)), strings.Repeat("n", 61) + "--" + strings.Repeat("k", 64)},
		{"", keys.ID(strings.Repeat("K", 63)), strings.Repeat("zk", 63)},
	} {
		got, err := SecretName(c.name, c.id)
		if err != nil || got != c.want {
			t.Errorf("%q, %q: %q, %v, want %q", c.name, c.id, got, err, c.want)
		}
		if id := keyOf(c.name, strings.ToUpper(got)); id != c.id {
			t.Errorf("%q, %q: back as %q", c.name, got, id)
		}
	}
	for _, id := range []keys.ID{"", "a b", "ä", keys.ID(strings.Repeat("k", 65)), keys.ID(strings.Repeat("K", 64))} {
		if name, err := SecretName("", id); err == nil {
			t.Errorf("%q is %q", id, name)
		}
	}
	for _, secret := range []string{"", "pulls", "pulls-", "pulls--", "pulls--z", "pulls--z5", "pulls--az", "pull--a", "a", "pulls-a", "pulls--" + strings.Repeat("k", 65)} {
		if id := keyOf("pulls", secret); id != "" {
			t.Errorf("%q is %q", secret, id)
		}
	}
}

var secretForm = regexp.MustCompile(`^[a-z0-9-]{1,127}$`)

// No two keys have one secret, whatever their names and IDs, and a name tells the
// ID that it stands for.
func FuzzSecretName(f *testing.F) {
	f.Add("pulls", "2026-01", "pulls", "2026:01")
	f.Add("", "a", "a", "a")
	f.Add("a", "-b", "a-", "b")
	f.Add("a", "b--c", "a--b", "c")
	f.Add("", "zA", "", "z0a")
	f.Add("p", "K", "P", "k")
	f.Add("", "z1.", "", "z.1")
	f.Fuzz(func(t *testing.T, name, id, name2, id2 string) {
		one, ok := written(t, name, id)
		two, ok2 := written(t, name2, id2)
		if !ok || !ok2 {
			return
		}
		same := strings.EqualFold(name, name2) && id == id2
		// Without a name a vault is for one queue, so that it is not compared.
		if (name == "") == (name2 == "") && strings.EqualFold(one, two) != same {
			t.Errorf("%q, %q and %q, %q: secrets %q and %q", name, id, name2, id2, one, two)
		}
	})
}

// written returns the secret's name of valid arguments.
func written(t *testing.T, name, id string) (secret string, ok bool) {
	name = strings.ToLower(name)
	// Backwards: what is read as an ID is written as it was read.
	if back := keyOf(name, id); back != "" && checkName(name, Secrets) == nil {
		if again, err := SecretName(name, back); err != nil || again != strings.ToLower(id) {
			t.Errorf("%q is read as %q, which is written %q, %v", id, back, again, err)
		}
	}
	if checkName(name, Secrets) != nil {
		return "", false
	}
	secret, err := SecretName(name, keys.ID(id))
	if err != nil {
		return "", false
	}
	if !secretForm.MatchString(secret) {
		t.Errorf("%q, %q: Key Vault does not take %q", name, id, secret)
	}
	if back := keyOf(name, secret); back != keys.ID(id) {
		t.Errorf("%q, %q: %q is read as %q", name, id, secret, back)
	}
	return secret, true
}
