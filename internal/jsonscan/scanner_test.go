package jsonscan

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
)

// texts are JSON texts, whole and broken.
var texts = []string{
	`{"a":[1,{"b":"\\\""},null],"c":{}}`, ` [ "x" , -1.5e3 , true ] `, `"\u0061\\"`, `[]`, `{}`, `0`, `[true,false,null,-1,9]`,
	``, `{`, `{"a`, `{"a"`, `{"a":`, `{"a":1`, `{"a" 1}`, `{"a":1 "b":2}`, `[1,`, `[1 2]`, `["\`, `}`, "\x00",
}

// walk takes a value with everything in it, and notes the names of members.
func walk(s *Scanner, names *[]string) error {
	switch s.Next() {
	case '{':
		return s.Object(func(name []byte) error {
			*names = append(*names, string(name))
			return walk(s, names)
		})
	case '[':
		return s.Array(func() error { return walk(s, names) })
	}
	return s.Skip()
}

func TestWalk(t *testing.T) {
	s, names := &Scanner{Data: []byte(texts[0])}, []string(nil)
	if err := walk(s, &names); err != nil || s.Pos != len(s.Data) {
		t.Errorf("ends at byte %d of %d, %v", s.Pos, len(s.Data), err)
	}
	if want := []string{`"a"`, `"b"`, `"c"`}; !slices.Equal(names, want) {
		t.Errorf("names %v, want %v", names, want)
	}
}

// TestErrors wants what is missing, at its place, and whether more text could bring it.
func TestErrors(t *testing.T) {
	for text, want := range map[string]Error{
		``:             {"want a value", 0, true},
		` `:            {"want a value", 1, true},
		`?`:            {"want a value", 0, false},
		`{`:            {"want a string", 1, true},
		`{a:1}`:        {"want a string", 1, false},
		`{"a" 1}`:      {"want a colon", 5, false},
		`{"a"`:         {"want a colon", 4, true},
		`{"a":1 "b":2`: {"want a comma or the end of the object", 7, false},
		`[1 2]`:        {"want a comma or the end of the array", 3, false},
		`[1`:           {"want a comma or the end of the array", 2, true},
		`["\"`:         {"a string does not end", 4, true},
	} {
		var e *Error
		if err := walk(&Scanner{Data: []byte(text)}, new([]string)); !errors.As(err, &e) || *e != want {
			t.Errorf("%s: %+v, want %+v", text, err, want)
		}
	}
	for text, call := range map[string]func(*Scanner) error{
		"want an object": func(s *Scanner) error { return s.Object(nil) },
		"want an array":  func(s *Scanner) error { return s.Array(nil) },
		"want a string":  func(s *Scanner) error { _, err := s.String(); return err },
	} {
		var e *Error
		if err := call(&Scanner{Data: []byte(`1`)}); !errors.As(err, &e) || e.Want != text {
			t.Errorf("%v, want %q", err, text)
		}
	}
	for _, text := range []string{`[`, `{`, `[{}`, `[{"]`} {
		var e *Error
		if err, want := (&Scanner{Data: []byte(text)}).Skip(), (Error{"an object or array does not end", len(text), true}); !errors.As(err, &e) || *e != want {
			t.Errorf("%s: %+v, want %+v", text, err, want)
		}
	}
}

// TestStops: an error of the caller comes back as it is, and the Scanner stays where it
// was then.
func TestStops(t *testing.T) {
	stop := errors.New("stop")
	s := &Scanner{Data: []byte(`{"a":[1,2]}`)}
	err := s.Object(func([]byte) error { return s.Array(func() error { return stop }) })
	if err != stop || s.Pos != len(`{"a":[`) {
		t.Errorf("at byte %d, %v", s.Pos, err)
	}
}

// FuzzSkip: no input panics, and a valid value is taken to its end by Skip and by a walk
// through it.
func FuzzSkip(f *testing.F) {
	for _, text := range texts {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for name, take := range map[string]func(*Scanner) error{
			"Skip": (*Scanner).Skip,
			"walk": func(s *Scanner) error { return walk(s, new([]string)) },
		} {
			s := &Scanner{Data: data}
			err := take(s)
			if s.Pos > len(data) {
				t.Fatalf("%s: at byte %d of %d", name, s.Pos, len(data))
			}
			if !json.Valid(data) {
				continue
			}
			if err != nil || s.Next() != 0 || s.Pos != len(data) {
				t.Fatalf("%s: ends at byte %d of %d, %v", name, s.Pos, len(data), err)
			}
		}
	})
}
