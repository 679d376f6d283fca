package keys_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

type exported struct {
	Name string
	Key  *keys.Key
}

type hidden struct {
	name string
	key  *keys.Key
}

type byValue struct {
	Name string
	Key  keys.Key
}

type hiddenByValue struct {
	name string
	key  keys.Key
}

// TestUnprintable prints keys in every way that this module's users have, and
// looks for the secret in any form.
func TestUnprintable(t *testing.T) {
	s := secret(3)
	k, err := keys.New("shown", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Copies are what vet refuses; that they show nothing is the point here.
	value, inner := &byValue{Name: "n"}, &hiddenByValue{name: "n"}
	copyKey(&value.Key, k)
	copyKey(&inner.key, k)
	ring, err := keys.NewRing(k)
	if err != nil {
		t.Fatal(err)
	}
	cached, err := keys.NewCached(ring, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cached.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	values := map[string]any{
		"key":               k,
		"pointer to key":    &k,
		"exported":          exported{"n", k},
		"exported pointer":  &exported{"n", k},
		"hidden":            hidden{"n", k},
		"hidden pointer":    &hidden{"n", k},
		"by value":          value,
		"hidden by value":   inner,
		"dereferenced":      deref(value),
		"dereferenced deep": deref(inner),
		"slice":             []*keys.Key{k},
		"array":             [2]any{k, value},
		"map":               map[string]*keys.Key{"k": k},
		"map key":           map[*keys.Key]int{k: 1},
		"interface":         any(&struct{ A any }{k}),
		"ring":              ring,
		"ring in a struct":  struct{ R *keys.Ring }{ring},
		"cached":            cached,
		"set":               keys.Set{Current: "shown", Keys: []*keys.Key{k}},
		"method":            k.Derive,
		"destroyer":         k.Destroy,
		"error":             fmt.Errorf("wrapped: %v", k),
	}
	verbs := strings.Split("vTtbcdoOqxXUeEfFgGspw", "")
	flags := []string{"", "+", "-", "#", " ", "0", "+#", "8", "20", ".3", "#20"}
	for name, v := range values {
		look := func(how, text string) {
			t.Helper()
			if found := keytest.Leak(text, s); found != "" {
				t.Errorf("%s of %s shows %s: %q", how, name, found, text)
			}
		}
		for _, verb := range verbs {
			for _, flag := range flags {
				look("%"+flag+verb, fmt.Sprintf("%"+flag+verb, v))
			}
		}
		look("Sprint", fmt.Sprint(v)+fmt.Sprintln(v))
		for how, h := range map[string]func(*bytes.Buffer) slog.Handler{
			"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
			"slog JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		} {
			var out bytes.Buffer
			l := slog.New(h(&out))
			l.Info("m", "v", v)
			l.With("v", v).WithGroup("g").Info("m", slog.Group("h", slog.Any("v", v)))
			if out.Len() == 0 {
				t.Errorf("%s wrote nothing", how)
			}
			look(how, out.String())
		}
		if text, err := json.Marshal(v); err == nil {
			look("json", string(text))
		}
		if text, err := json.MarshalIndent(v, "", " "); err == nil {
			look("json", string(text))
		}
		if text, err := xml.Marshal(v); err == nil {
			look("xml", string(text))
		}
		var out bytes.Buffer
		if err := gob.NewEncoder(&out).Encode(v); err != nil {
			look("the error of gob", err.Error())
		}
		look("gob", out.String())
	}
}

// TestKeyPrints says what a key shows instead.
func TestKeyPrints(t *testing.T) {
	k := mustKey(t, "key-1", 1)
	const want = "keys.Key(key-1)"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%10.2f"} {
		if got := fmt.Sprintf(verb, k); got != want {
			t.Errorf("%s: %q, want %q", verb, got, want)
		}
	}
	if k.String() != want || k.GoString() != want || k.LogValue().String() != want {
		t.Errorf("%q, %q, %q; want %q", k.String(), k.GoString(), k.LogValue(), want)
	}
	if got, err := json.Marshal(exported{"n", k}); err != nil || string(got) != `{"Name":"n","Key":"`+want+`"}` {
		t.Errorf("json: %s, %v", got, err)
	}
	if got, err := xml.Marshal(exported{"n", k}); err != nil || !strings.Contains(string(got), "<Key>"+want+"</Key>") {
		t.Errorf("xml: %s, %v", got, err)
	}
	if err := gob.NewEncoder(new(bytes.Buffer)).Encode(exported{"n", k}); err == nil {
		t.Error("gob encoded a key")
	}
	var none *keys.Key
	if got := fmt.Sprintf("%v %+v %s", none, none, none.LogValue()); got != "keys.Key(nil) keys.Key(nil) keys.Key(nil)" {
		t.Errorf("nil: %q", got)
	}
	k.Destroy()
	_, err := k.Derive("", nil)
	if got := fmt.Sprint(err); got != "keys: key destroyed: key-1" || !errors.Is(err, keys.ErrDestroyed) {
		t.Errorf("%q", got)
	}
}

// TestLeak: the search finds what the tests above say is not there.
func TestLeak(t *testing.T) {
	s := secret(3)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "% x", "% #x", "%U", "%c"} {
		for _, v := range []any{s, [32]byte(s), struct{ B []byte }{s}, string(s)} {
			switch _, isString := v.(string); {
			case isString && (verb == "%d" || verb == "%o" || verb == "%b" || verb == "%c" || verb == "%U"):
				continue // fmt refuses it
			case verb == "%q" || verb == "%c" || verb == "%#v" && isString:
				continue // escapes of what is not text; the other verbs cover it
			}
			if text := fmt.Sprintf(verb, v); keytest.Leak(text, s) == "" {
				t.Errorf("%s of %T is not found in %q", verb, v, text)
			}
		}
	}
	for _, v := range []any{s, [32]byte(s), map[string]any{"a": s}} {
		text, err := json.Marshal(v)
		if err != nil || keytest.Leak(string(text), s) == "" {
			t.Errorf("json of %T is not found in %s", v, text)
		}
	}
	if found := keytest.Leak(fmt.Sprintf("%x %v", secret(4), secret(4)), s); found != "" {
		t.Errorf("found %s where it is not", found)
	}
}
