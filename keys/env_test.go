package keys

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
)

var envSecret = base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789ABCDEF"))

func TestParseEnv(t *testing.T) {
	entry := func(id string) string { return id + "=" + envSecret }
	for name, c := range map[string]struct {
		environ []string
		ids     []ID
		current ID
		is      error
		says    string
	}{
		"list":              {environ: []string{"P=" + entry("a") + "," + entry("b")}, ids: []ID{"a", "b"}},
		"white space":       {environ: []string{"P=\n " + entry("a") + " \t,, \r\n" + entry("b") + ","}, ids: []ID{"a", "b"}},
		"one each":          {environ: []string{"P_KEY_1=" + entry("a"), "P_KEY_X=" + entry("b")}, ids: []ID{"a", "b"}},
		"both":              {environ: []string{"P_KEY_1=" + entry("a"), "P=" + entry("b"), "P_CURRENT= b\n"}, ids: []ID{"a", "b"}, current: "b"},
		"others":            {environ: []string{"PP=x", "P_KEYS=x", "P_KEY=x", "Q_KEY_1=x", "X", "=", "P=" + entry("a")}, ids: []ID{"a"}},
		"empty list":        {environ: []string{"P=", "P_KEY_1=" + entry("a")}, ids: []ID{"a"}},
		"nothing":           {is: ErrNotFound, says: "set P to"},
		"only current":      {environ: []string{"P_CURRENT=a"}, is: ErrNotFound, says: "set P to"},
		"no equals":         {environ: []string{"P=abc"}, is: ErrInvalidKey, says: "P: entry 1"},
		"bad ID":            {environ: []string{"P=" + entry("a") + "," + entry("b!")}, is: ErrInvalidKey, says: "P: entry 2: keys: invalid key: byte 1 of the ID"},
		"no ID":             {environ: []string{"P==" + envSecret}, is: ErrInvalidKey, says: "P: entry 1: keys: invalid key: an ID of 0 bytes"},
		"not base64":        {environ: []string{"P=a=?"}, is: ErrInvalidKey, says: "base64"},
		"not padded":        {environ: []string{"P=a=" + strings.TrimRight(envSecret, "=")}, is: ErrInvalidKey, says: "base64"},
		"not canonical":     {environ: []string{"P=a=" + envSecret[:42] + "V="}, is: ErrInvalidKey, says: "base64"},
		"31 bytes":          {environ: []string{"P=a=" + base64.StdEncoding.EncodeToString(make([]byte, 31))}, is: ErrInvalidKey, says: "31 bytes"},
		"sender key":        {environ: []string{"P=" + entry("a@router/eu-1") + "," + entry("b")}, ids: []ID{"a", "b"}},
		"empty sender":      {environ: []string{"P=" + entry("a@")}, is: ErrInvalidKey, says: "sender ID"},
		"two senders":       {environ: []string{"P=" + entry("a@b@c")}, is: ErrInvalidKey, says: "sender ID"},
		"both kinds":        {environ: []string{"P=" + entry("a") + "," + entry("a@s")}, is: ErrInvalidKey, says: "there already"},
		"twice":             {environ: []string{"P=" + entry("a") + "," + entry("a")}, is: ErrInvalidKey, says: "there already"},
		"twice apart":       {environ: []string{"P=" + entry("a"), "P_KEY_1=" + entry("a")}, is: ErrInvalidKey, says: "there already"},
		"two in one":        {environ: []string{"P_KEY_1=" + entry("a") + " " + entry("b")}, is: ErrInvalidKey, says: "P_KEY_1: want one"},
		"empty one":         {environ: []string{"P_KEY_1="}, is: ErrInvalidKey, says: "P_KEY_1: want one"},
		"current elsewhere": {environ: []string{"P=" + entry("a"), "P_CURRENT=b"}, is: ErrInvalidKey, says: "P_CURRENT"},
	} {
		e, err := parseEnv("P", c.environ)
		if c.is != nil {
			if e != nil || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v, %v; want %v that says %q", name, e, err, c.is, c.says)
			} else if strings.Contains(err.Error(), envSecret[:12]) {
				t.Errorf("%s: the error shows the secret: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if ids := e.ring.IDs(); !slices.Equal(ids, c.ids) {
			t.Errorf("%s: IDs %q, want %q", name, ids, c.ids)
		}
		if id, err := e.CurrentKeyID(t.Context()); id != c.current || (c.current == "") != errors.Is(err, ErrNotFound) {
			t.Errorf("%s: current %q, %v; want %q", name, id, err, c.current)
		}
	}
	if _, err := NewEnv(""); err == nil || !strings.Contains(err.Error(), "no prefix") {
		t.Errorf("no prefix: %v", err)
	}
}

// FuzzEnv: whatever stands in the variables, there is an error or a provider
// that is consistent, and no error repeats what was there.
func FuzzEnv(f *testing.F) {
	f.Add("a="+envSecret, "b="+envSecret, "a")
	f.Add("a="+envSecret+",\n b="+envSecret, "", "c")
	f.Add("a", "==", " ")
	f.Fuzz(func(t *testing.T, list, one, current string) {
		e, err := parseEnv("P", []string{"P=" + list, "P_KEY_1=" + one, "P_CURRENT=" + current})
		if err != nil {
			if len(one) > 20 && strings.Contains(err.Error(), one[len(one)-20:]) {
				t.Errorf("the error repeats the entry: %v", err)
			}
			return
		}
		ids := e.ring.IDs()
		if len(ids) == 0 {
			t.Fatal("no keys and no error")
		}
		for _, id := range ids {
			if err := id.Validate(); err != nil {
				t.Error(err)
			}
		}
		if id, err := e.CurrentKeyID(t.Context()); err == nil && !slices.Contains(ids, id) {
			t.Errorf("current %q is not among %q", id, ids)
		}
	})
}

// TestEnvPrefix: keys that stand where their variable's name belongs are refused,
// and not shown.
func TestEnvPrefix(t *testing.T) {
	for _, prefix := range []string{"a=" + envSecret, envSecret, "QRT KEYS", "schlüssel"} {
		_, err := NewEnv(prefix)
		if err == nil || strings.Contains(err.Error(), prefix) || !strings.Contains(err.Error(), "the name of a variable") {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}

// An entry that is not id=base64 is refused, and not repeated: it may be a secret.
func TestEnvEntryWithoutSign(t *testing.T) {
	for _, name := range []string{"QRT_TEST", "QRT_TEST_KEY_1"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "c2VjcmV0")
			e, err := NewEnv("QRT_TEST")
			if e != nil || !errors.Is(err, ErrInvalidKey) || !strings.Contains(err.Error(), "no =") || strings.Contains(err.Error(), "c2VjcmV0") {
				t.Errorf("NewEnv = %v, %v; want %v", e, err, ErrInvalidKey)
			}
		})
	}
}
