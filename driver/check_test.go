package driver_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"q", "orders/eu-1.fifo", "Grüße", strings.Repeat("x", driver.MaxName)} {
		if err := driver.CheckName(name); err != nil {
			t.Errorf("CheckName(%q): %v, want nil", name, err)
		}
	}
	for name, want := range map[string]string{
		"":                                    "is empty",
		strings.Repeat("x", driver.MaxName+1): "256 bytes",
		"a\xff":                               "UTF-8",
		"a\nb":                                "control character",
		"a\x00":                               "control character",
		"\u0085":                              "control character",
	} {
		if err := driver.CheckName(name); !errors.Is(err, driver.ErrInvalidName) || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckName(%q): %v, want InvalidName: ...%s", name, err, want)
		}
	}
}

func TestMessageCheck(t *testing.T) {
	good := driver.Message{ID: "m", Attributes: map[string]string{strings.Repeat("n", driver.MaxAttributeName): ""}}
	if err := good.Check(); err != nil {
		t.Errorf("a good message: %v", err)
	}
	for what, m := range map[string]*driver.Message{
		"nil":              nil,
		"no ID":            {},
		"long ID":          {ID: strings.Repeat("x", driver.MaxID+1)},
		"ID not UTF-8":     {ID: "\xff"},
		"negative TTL":     {ID: "m", TTL: -time.Second},
		"empty attribute":  {ID: "m", Attributes: map[string]string{"": "v"}},
		"long attribute":   {ID: "m", Attributes: map[string]string{strings.Repeat("n", driver.MaxAttributeName+1): "v"}},
		"second attribute": {ID: "m", Attributes: map[string]string{"a": "v", "": "v"}},
	} {
		if err := m.Check(); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("%s: %v, want Invalid", what, err)
		}
	}
}

// TestMessageClone: a copy is equal, and what is changed in it is not changed in the
// original.
func TestMessageClone(t *testing.T) {
	m := driver.Message{ID: "m", Body: []byte("b"), Attributes: map[string]string{"a": "1"}, Trace: map[string]string{"t": "2"}, Sealed: true}
	c := m.Clone()
	if !reflect.DeepEqual(c, m) {
		t.Fatalf("the copy is %+v, want %+v", c, m)
	}
	c.Body[0], c.Attributes["a"], c.Trace["t"] = 'x', "x", "x"
	if string(m.Body) != "b" || m.Attributes["a"] != "1" || m.Trace["t"] != "2" {
		t.Errorf("a change of the copy changed the original: %+v", m)
	}
	if n := m.Bytes(); n != 6 {
		t.Errorf("Bytes is %d, want 6", n)
	}
}

func TestCheckSettings(t *testing.T) {
	if err := driver.CheckSettings([]driver.Setting{{Name: "A"}, {Name: "B", Value: 1}}); err != nil {
		t.Errorf("no negative setting: %v", err)
	}
	err := driver.CheckSettings([]driver.Setting{{Name: "A", Value: 1}, {Name: "B", Value: -1}})
	if err == nil || err.Error() != "B is negative" {
		t.Errorf("a negative setting: %v, want %q", err, "B is negative")
	}
}
