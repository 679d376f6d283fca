package demo

import (
	"context"

	"github.com/queue-runtime/queue/cmd/qrt/internal/brokers"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// Broker is what the demonstration runs on.
type Broker struct {
	// Connect opens a connection of its own, as another process would.
	Connect func(context.Context) (driver.Broker, error)

	// NewQueue makes an empty queue that has no other users.
	NewQueue func(ctx context.Context, purpose string, s drivertest.QueueSpec) (string, error)

	// Attacker controls the storage, past the driver.
	Attacker drivertest.Attacker
}

// NewBroker returns a broker as the demonstration uses it.
func NewBroker(b *brokers.Broker) Broker {
	return Broker{Connect: b.Connect, NewQueue: b.NewQueue, Attacker: b.Attacker}
}

// queue makes a queue for webhooks, which have sessions.
func (r *run) queue(ctx context.Context, purpose string) (string, error) {
	return r.Broker.NewQueue(ctx, purpose, drivertest.QueueSpec{Sessions: true})
}
