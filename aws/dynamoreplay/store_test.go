package dynamoreplay_test

import (
	"testing"

	"github.com/queue-runtime/queue/replay/cas"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/dynalite"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

func TestStore(t *testing.T) {
	t.Parallel()
	server := serve(t, nil)
	server.Counts() // without those that made the table
	replaytest.Run(t, replaytest.Options{
		New: fixture(server), Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Schedules: 10,
	})
	t.Run("policy", func(t *testing.T) { testPolicy(t, server) })
}

// TestWithoutItem: the suite on a service that leaves the item out of its refusals,
// and loses some of its answers.
func TestWithoutItem(t *testing.T) {
	t.Parallel()
	server := serve(t, &dynalite.Options{Bare: true})
	server.Fail(httpproxy.Faults{Lost: 5})
	replaytest.Run(t, replaytest.Options{
		New: fixture(server), Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Unreliable: true, Schedules: 5,
	})
}
