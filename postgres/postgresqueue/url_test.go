package postgresqueue

import "testing"

// TestURLFlags: what a URL says goes before what the options say.
func TestURLFlags(t *testing.T) {
	for query, want := range map[string]Options{
		"":                               {Pooled: true, MustExist: true},
		"?pooled=false":                  {MustExist: true},
		"?must_exist=false":              {Pooled: true},
		"?pooled=false&must_exist=false": {},
		"?pooled=true&must_exist=true":   {Pooled: true, MustExist: true},
	} {
		o := Options{Pooled: true, MustExist: true}
		if _, err := parseURL("postgres://u@127.0.0.1/db"+query, &o); err != nil || o != want {
			t.Errorf("%q: %+v, %v; want %+v", query, o, err, want)
		}
	}
}
