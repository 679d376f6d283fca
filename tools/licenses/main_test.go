package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct{ name, components, want string }{
		{"allowed", `{"name":"example.org/a","licenses":[{"license":{"id":"MIT"}}]}`, ""},
		{"own", `{"name":"github.com/queue-runtime/queue/aws"}`, ""},
		{"only looks like our own", `{"name":"github.com/queue-runtime/queuer"}`, "no licence found"},
		{"none", `{"name":"example.org/a","version":"v1.0.0"}`, "example.org/a v1.0.0: no licence found"},
		{"other", `{"name":"example.org/a","licenses":[{"license":{"id":"GPL-3.0-only"}}]}`, `"GPL-3.0-only" is not allowed`},
		{"second of two", `{"name":"example.org/a","licenses":[{"license":{"id":"MIT"}},{"license":{"id":"AGPL-3.0"}}]}`, `"AGPL-3.0" is not allowed`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bill
			if err := json.Unmarshal([]byte(`{"components":[`+c.components+`]}`), &b); err != nil {
				t.Fatal(err)
			}
			_, err := b.check()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
