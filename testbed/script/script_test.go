package script_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/queue-runtime/queue/testbed/script"
)

// TestMain makes the test binary a command that prints two JSON objects and ends
// with code 3.
func TestMain(m *testing.M) {
	script.Main(m, "three", func() {
		fmt.Printf("{\"n\":1,\"list\":[\"a\"]}\n{\"home\":%q}\n", filepath.Base(os.Getenv("HOME")))
		os.Exit(3)
	})
}

func TestRun(t *testing.T) {
	script.Run(t, "testdata", &script.Options{
		Env: map[string]string{"GREETING": "hello"},
		Commands: map[string]script.Command{"greeting": func(s *script.State, _ bool, args []string) {
			if got := s.Getenv("GREETING"); got != args[0] {
				s.Fatalf("GREETING is %q, want %q", got, args[0])
			}
		}},
	})
}
