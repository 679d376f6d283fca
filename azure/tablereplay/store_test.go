package tablereplay_test

import (
	"testing"

	"github.com/queue-runtime/queue/replay/cas"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

func TestStore(t *testing.T) {
	t.Parallel()
	server := serve(t)
	server.Counts() // without those that made the table
	replaytest.Run(t, replaytest.Options{
		New: fixture(server), Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Schedules: 10,
	})
	t.Run("role", func(t *testing.T) { testRole(t, server) })
}

// TestUnreliable: the suite on a service that loses some of its answers.
func TestUnreliable(t *testing.T) {
	t.Parallel()
	server := serve(t)
	server.Fail(httpproxy.Faults{Lost: 5})
	replaytest.Run(t, replaytest.Options{
		New: fixture(server), Observes: true, ChangesLate: cas.DefaultChangeInterval, Approximate: true, Unreliable: true, Schedules: 5,
	})
}
