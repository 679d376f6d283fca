package envelope

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestAppendContext(t *testing.T) {
	tests := []struct {
		name  string
		c     Context
		bound []string
		want  string
	}{
		{"message ID alone", Context{MessageID: "m"}, nil, "\x01\x00\x00\x00\x01m"},
		{
			"all scalars",
			Context{MessageID: "m1", SessionID: "s", ContentType: "t/t", CorrelationID: "c"},
			nil,
			"\x01\x00\x00\x00\x02m1" + "\x02\x00\x00\x00\x01s" + "\x03\x00\x00\x00\x03t/t" + "\x04\x00\x00\x00\x01c",
		},
		{
			"attributes, one of them empty, one not bound",
			Context{MessageID: "m", Attributes: map[string]string{"b": "2", "a": "", "added": "x"}},
			[]string{"a", "b"},
			"\x01\x00\x00\x00\x01m" + "\x40\x00\x00\x00\x17" + "\x00\x00\x00\x02" +
				"\x00\x00\x00\x01a\x00\x00\x00\x00" + "\x00\x00\x00\x01b\x00\x00\x00\x012",
		},
		{"attributes, none bound", Context{MessageID: "m", Attributes: map[string]string{"b": "2"}}, nil, "\x01\x00\x00\x00\x01m"},
	}
	for _, tt := range tests {
		got, err := AppendContext([]byte("before"), &tt.c, tt.bound)
		if err != nil || string(got) != "before"+tt.want {
			t.Errorf("%s: %v\ngot  %x\nwant %x", tt.name, err, got, tt.want)
		}
	}
}

func TestAppendContextErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		c     Context
		bound []string
		text  string
	}{
		"no message ID":  {Context{}, nil, "message ID"},
		"missing":        {Context{MessageID: "m", Attributes: map[string]string{"a": ""}}, []string{"a", "b"}, "bound name 1"},
		"no attributes":  {Context{MessageID: "m"}, []string{"a"}, "bound name 0"},
		"not in order":   {Context{MessageID: "m", Attributes: map[string]string{"a": "", "b": ""}}, []string{"b", "a"}, "bound attributes"},
		"twice":          {Context{MessageID: "m", Attributes: map[string]string{"a": ""}}, []string{"a", "a"}, "bound attributes"},
		"too many names": {Context{MessageID: "m"}, names(65), "bound attributes"},
	} {
		got, err := AppendContext([]byte("before"), &tt.c, tt.bound)
		if !errors.Is(err, ErrInvalidContext) || got != nil {
			t.Errorf("%s: %v, want ErrInvalidContext", name, err)
		} else if !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %q does not say %q", name, err, tt.text)
		}
	}
}

func TestCheckLengths(t *testing.T) {
	const most = math.MaxUint32
	if err := checkLengths(most, most, most, most); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	for i, field := range []string{"message ID", "session ID", "content type", "correlation ID"} {
		n := [4]uint64{most, most, most, most} // of which none is the culprit
		n[i] = most + 1
		err := checkLengths(n[0], n[1], n[2], n[3])
		if !errors.Is(err, ErrInvalidContext) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s over the limit: %v", field, err)
		}
	}
}

// The length of all attributes has four bytes, too.
func TestAttributesSize(t *testing.T) {
	bound, attributes := names(MaxBound), make(map[string]string)
	value := strings.Repeat("v", math.MaxUint32/MaxBound+1)
	size := uint64(4)
	for _, name := range bound {
		attributes[name] = value
		size += 8 + uint64(len(name)+len(value))
	}
	if _, err := attributesSize(attributes, bound); !errors.Is(err, ErrInvalidContext) || !strings.Contains(err.Error(), "attributes: longer than") {
		t.Errorf("%d bytes: %v, want ErrInvalidContext", size, err)
	}
	for _, over := range []uint64{0, 1} {
		attributes[bound[0]] = value[:uint64(len(value))-(size-math.MaxUint32)+over]
		if got, err := attributesSize(attributes, bound); (err == nil) != (over == 0) || over == 0 && got != math.MaxUint32 {
			t.Errorf("%d bytes over the limit: %d, %v", over, got, err)
		}
	}
}

func TestBoundNames(t *testing.T) {
	if got, err := BoundNames(nil); got != nil || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	got, err := BoundNames(map[string]string{"b": "1", "a\x00": "2", "B": "3", "a": "4", "\U00010000": "5", "\ufffd": "6"})
	if want := []string{"B", "a", "a\x00", "b", "\ufffd", "\U00010000"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	attrs := make(map[string]string)
	for i := range MaxBound {
		attrs[fmt.Sprint(i)] = ""
	}
	if got, err := BoundNames(attrs); len(got) != MaxBound || err != nil {
		t.Errorf("%d: %d, %v", MaxBound, len(got), err)
	}
	attrs["one more"] = ""
	for name, attrs := range map[string]map[string]string{
		"65":       attrs,
		"empty":    {"": "x"},
		"too long": {strings.Repeat("n", 256): "x"},
	} {
		if got, err := BoundNames(attrs); !errors.Is(err, ErrInvalidContext) || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// Contexts that differ encode differently, where joining or confusing their
// fields would make them the same.
func TestContextInjective(t *testing.T) {
	seen := make(map[string]string)
	values := []string{"", "a", "b", "ab", "\x00", "\x02\x00\x00\x00\x01a"}
	add := func(c Context) {
		bound := slices.Sorted(maps.Keys(c.Attributes))
		b, err := AppendContext(nil, &c, bound)
		if err != nil {
			t.Fatal(err)
		}
		is := fmt.Sprintf("%q", c)
		if was, ok := seen[string(b)]; ok && was != is {
			t.Fatalf("%s and %s both encode to %x", was, is, b)
		}
		seen[string(b)] = is
	}
	for _, id := range values[1:] {
		for _, session := range values {
			for _, kind := range values {
				for _, correlation := range values {
					add(Context{id, session, kind, correlation, nil})
				}
			}
		}
		for _, x := range values {
			for _, y := range values {
				add(Context{id, x, y, "", map[string]string{"a": "b"}})
				add(Context{id, "", "", "", map[string]string{"a": x, "b": y}})
				add(Context{id, "", "", "", map[string]string{"a": x, "ab": y}})
				add(Context{id, "", "", "", map[string]string{"a" + x: y}})
			}
		}
	}
	if len(seen) < 1000 {
		t.Errorf("only %d contexts", len(seen))
	}
}
