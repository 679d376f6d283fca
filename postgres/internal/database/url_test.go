package database

import (
	"strings"
	"testing"
	"time"
)

// TestParseURL: what a URL says goes before what is set already, and what could be read in
// two ways is refused.
func TestParseURL(t *testing.T) {
	type values struct {
		schema   string
		timeout  time.Duration
		conns    int
		attempts int
		pooled   bool
	}
	parse := func(query string) (v values, err error) {
		v.pooled = true
		_, err = ParseURL("postgres://u:s3cret@127.0.0.1/db"+query, func(p *Parameters) {
			p.Text("schema", &v.schema)
			p.Duration("timeout", &v.timeout)
			p.Number("max_conns", &v.conns)
			p.Signed("attempts", &v.attempts)
			p.Flag("pooled", &v.pooled)
		})
		return v, err
	}
	for query, want := range map[string]values{
		"":              {pooled: true},
		"?pooled=false": {},
		"?pooled=true":  {pooled: true},
		"?schema=s&timeout=3s&max_conns=2&attempts=-1&pooled=false&sslmode=disable": {schema: "s", timeout: 3 * time.Second, conns: 2, attempts: -1},
	} {
		if got, err := parse(query); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", query, got, err, want)
		}
	}
	for query, want := range map[string]string{
		"?sslmode=":                            "sslmode must be given once and not empty",
		"?sslmode=verify-full&sslmode=disable": "sslmode must be given once and not empty",
		"?target_session_attrs=":               "target_session_attrs must be given once and not empty",
		"?host=a&host=b":                       "host must be given once and not empty",
		"?pooled=":                             "pooled must be given once and not empty",
		"?pooled=1":                            "pooled must be true or false",
		"?max_conns=-1":                        "max_conns must be a number above zero",
		"?attempts=0":                          "attempts must be a number other than 0",
		"?timeout=0s":                          "timeout must be a duration",
		"?s3cret=1":                            "unknown parameter; known: application_name, attempts",
		"#s3cret":                              "write %23",
	} {
		if _, err := parse(query); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, want %q", query, err, want)
		}
	}
	for _, query := range []string{"", "?sslmode=", "?sslmode=disable&sslmode=verify-full"} {
		if _, err := ParseURL("postgres://u@db.example.com/db"+query, func(*Parameters) {}); err == nil {
			t.Errorf("a server elsewhere with %q: no error", query)
		}
	}
}
