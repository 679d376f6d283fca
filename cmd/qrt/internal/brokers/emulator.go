package brokers

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/sbattack"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// EmulatorURL stands for an emulator of Service Bus in this process.
const EmulatorURL = "emulator://servicebus"

// openEmulator starts an emulator of Service Bus, with the driver of Service Bus
// in front of it.
func openEmulator() (*Broker, error) {
	server, err := sbemulator.Start(nil)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards used
	used := make(map[string]int)
	settings := &settings{of: make(map[string]sbqueue.QueueOptions)}
	return &Broker{
		Title: "an emulator of Azure Service Bus, over AMQP",
		Connect: func(context.Context) (driver.Broker, error) {
			return &namespace{connection: server.ConnectionString(), settings: settings, brokers: make(map[sbqueue.QueueOptions]*sbqueue.Broker)}, nil
		},
		NewQueue: func(_ context.Context, purpose string, s drivertest.QueueSpec) (string, error) {
			o := sbemulator.QueueOptions{RequiresSession: s.Sessions, LockDuration: time.Minute, MaxDeliveryCount: 1000}
			if s.ShortLock {
				o.LockDuration = 2 * shortLock
			}
			if s.MaxDeliveries > 0 {
				o.MaxDeliveryCount = s.MaxDeliveries
			}
			if s.Dedup {
				o.DuplicateDetectionWindow = 10 * time.Minute
			}
			mu.Lock()
			name := unique(used, purpose, nil)
			mu.Unlock()
			settings.set(name, sbqueue.QueueOptions{Sessions: s.Sessions, Lock: o.LockDuration, MaxDeliveries: o.MaxDeliveryCount, Dedup: s.Dedup})
			return name, server.CreateQueue(name, &o)
		},
		Attacker:     sbattack.New(server),
		Missing:      "not-there",
		InvalidNames: []string{"a b", "a\x00b", "/a", strings.Repeat("n", sbqueue.MaxName+1)},
		Slack:        10 * time.Second,
		Quiet:        600 * time.Millisecond,
		Foreign:      func(stack string) bool { return strings.Contains(stack, "/sbemulator.") },
		close:        server.Close,
	}, nil
}

// settings are how queues were made, which the emulator does not tell.
type settings struct {
	mu sync.Mutex // guards of
	of map[string]sbqueue.QueueOptions
}

func (s *settings) set(name string, o sbqueue.QueueOptions) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[name] = o
}

func (s *settings) get(name string) sbqueue.QueueOptions {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of[name]
}

// namespace is a connection to the emulator that knows how queues were made, also
// those that are made later: it has a Broker for each kind of queue.
type namespace struct {
	connection string
	settings   *settings

	mu      sync.Mutex // guards what follows
	closed  bool
	brokers map[sbqueue.QueueOptions]*sbqueue.Broker
}

// Open opens a queue over the Broker of its kind.
func (n *namespace) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	b, err := n.broker(n.settings.get(name))
	if err != nil {
		return nil, err
	}
	return b.Open(ctx, name, o)
}

func (n *namespace) broker(kind sbqueue.QueueOptions) (*sbqueue.Broker, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, &driver.Error{Kind: driver.Closed}
	}
	if b := n.brokers[kind]; b != nil {
		return b, nil
	}
	b, err := sbqueue.FromConnectionString(n.connection, &sbqueue.Options{Default: kind})
	if err == nil {
		n.brokers[kind] = b
	}
	return b, err
}

// Close closes every Broker.
func (n *namespace) Close(ctx context.Context) error {
	n.mu.Lock()
	n.closed = true
	brokers := n.brokers
	n.brokers = nil
	n.mu.Unlock()
	var errs []error
	for _, b := range brokers {
		errs = append(errs, b.Close(ctx))
	}
	return errors.Join(errs...)
}
