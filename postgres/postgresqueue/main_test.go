package postgresqueue_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/queue-runtime/queue/testbed/postgres"
)

// Tests that need other processes run this binary again in one of these roles. A role
// ends when its input ends.
var roles = map[string]func(in io.Reader, args []string) error{}

const roleVariable = "POSTGRESQUEUE_TEST_ROLE"

func TestMain(m *testing.M) {
	if role, ok := roles[os.Getenv(roleVariable)]; ok {
		if err := role(os.Stdin, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, os.Getenv(roleVariable)+":", err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("12") // tests mostly wait
	}
	code := m.Run()
	postgres.StopShared()
	if durable.server != nil {
		_ = durable.server.Close() // a temporary folder may stay
	}
	os.Exit(code)
}

// soak is how much of a long proof to run: all of it with QRT_SOAK=1 (make soak).
func soak(normally, all int) int {
	if os.Getenv("QRT_SOAK") == "1" {
		return all
	}
	return normally
}
