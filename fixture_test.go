package queue_test

import (
	"testing"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/internal/fixturetest"
)

const orders = fixturetest.Orders

var (
	newKey    = fixturetest.NewKey
	newRing   = fixturetest.NewRing
	newBroker = fixturetest.NewBroker
	quiet     = fixturetest.Quiet
	soak      = fixturetest.Soak
)

func TestMain(m *testing.M) { fixturetest.Main(m) }

// fixture is a broker, its keys and a client, inside a bubble.
type fixture struct{ *fixturetest.Fixture }

// inBubble runs f with a fixture that change, which may be nil, has changed.
func inBubble(t *testing.T, change func(*fixture, *queue.Options), f func(*fixture)) {
	t.Helper()
	fixturetest.Run(t, func(x *fixturetest.Fixture) *fixture { return &fixture{x} }, change, f)
}
