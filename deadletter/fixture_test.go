package deadletter_test

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/internal/fixturetest"
)

const orders = fixturetest.Orders

var (
	newKey  = fixturetest.NewKey
	newRing = fixturetest.NewRing
	quiet   = fixturetest.Quiet
)

func TestMain(m *testing.M) { fixturetest.Main(m) }

// fixture is a broker, its keys and a client, inside a bubble.
type fixture struct{ *fixturetest.Fixture }

// inBubble runs f with a fixture that change, which may be nil, has changed.
func inBubble(t *testing.T, change func(*fixture, *queue.Options), f func(*fixture)) {
	t.Helper()
	fixturetest.Run(t, func(x *fixturetest.Fixture) *fixture { return &fixture{x} }, change, f)
}

// patient accepts messages of two hours.
func patient(_ *fixture, o *queue.Options) { o.Crypto.MaxMessageAge = 2 * time.Hour }
