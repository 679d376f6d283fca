package testbed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/azure/sbemulator"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// EmulatorURL stands for an emulator of Service Bus in this process.
const EmulatorURL = "emulator://servicebus"

// openEmulator starts an emulator of Service Bus, with the driver of Service Bus
// in front of it.
func openEmulator() (*Bed, error) {
	server, err := sbemulator.Start(nil)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards used
	used := make(map[string]int)
	settings := &settings{of: make(map[string]sbqueue.QueueOptions)}
	return &Bed{
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
		Attacker:     emulated{server},
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

// emulated is somebody who controls the emulator's storage. It knows by itself
// how a message is mapped to AMQP.
type emulated struct{ server *sbemulator.Server }

var _ drivertest.Attacker = emulated{}

// Read returns the messages of a queue that nobody holds and that are due.
func (e emulated) Read(ctx context.Context, queue string) ([]driver.Message, error) {
	stored, err := e.waiting(ctx, queue)
	out := make([]driver.Message, len(stored))
	for i := range stored {
		out[i] = fromAMQP(&stored[i])
	}
	return out, err
}

// How often, and how soon, the attacker looks again: the SDK gives back by itself
// what comes to a receiver that has stopped asking, until it has no credit left. A
// queue is at rest when nothing was in hands for some looks in a row.
const (
	looks     = 80
	restful   = 4
	lookAgain = 20 * time.Millisecond
)

// waiting returns what Read does, once the queue is at rest or those who hold
// something keep it.
func (e emulated) waiting(ctx context.Context, queue string) ([]sbemulator.Message, error) {
	still := 0
	for look := 1; ; look++ {
		all, err := e.server.Messages(queue)
		if err != nil {
			return nil, err
		}
		var out []sbemulator.Message
		still++
		for _, m := range all {
			switch {
			case m.Locked:
				still = 0
			case m.ScheduledFor.IsZero():
				out = append(out, m)
			}
		}
		if still == restful || look == looks {
			return out, nil
		}
		t := time.NewTimer(lookAgain)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

// Rewrite replaces the messages that Read returns.
func (e emulated) Rewrite(ctx context.Context, queue string, f func([]driver.Message) []driver.Message) error {
	stored, err := e.waiting(ctx, queue)
	if err != nil {
		return err
	}
	before := make([]driver.Message, len(stored))
	for i := range stored {
		before[i] = fromAMQP(&stored[i])
		if err := e.server.Remove(queue, stored[i].SequenceNumber); err != nil {
			return err
		}
	}
	after := f(before)
	for i := range after {
		if _, err := e.server.Insert(queue, toAMQP(&after[i])); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// DeadLetters returns the dead letters of a queue, and why each lies there.
func (e emulated) DeadLetters(_ context.Context, queue string) ([]driver.Message, []driver.DeadLetter, error) {
	stored, err := e.server.Messages(queue + "/$DeadLetterQueue")
	if err != nil {
		return nil, nil, err
	}
	out := make([]driver.Message, len(stored))
	why := make([]driver.DeadLetter, len(stored))
	for i := range stored {
		out[i] = fromAMQP(&stored[i])
		properties := stored[i].ApplicationProperties
		why[i] = driver.DeadLetter{Queue: queue, Reason: text(properties["DeadLetterReason"]), Description: text(properties["DeadLetterErrorDescription"])}
		if why[i].Reason == "MaxDeliveryCountExceeded" {
			why[i].Reason = "max_deliveries"
		}
	}
	return out, why, nil
}

func text(v any) string {
	s, ok := v.(string)
	if !ok && v != nil {
		return fmt.Sprint(v)
	}
	return s
}

// brokerProperties are application properties that are not the application's.
var brokerProperties = map[string]bool{
	"traceparent": true, "tracestate": true, "DeadLetterReason": true, "DeadLetterErrorDescription": true,
	"qrt-dead-queue": true, "qrt-dead-at": true, "qrt-count": true,
}

func fromAMQP(m *sbemulator.Message) driver.Message {
	d := driver.Message{ID: m.MessageID, CorrelationID: m.CorrelationID, ContentType: m.ContentType, Body: m.Body}
	if m.SessionID != nil {
		d.SessionID = *m.SessionID
	}
	for name, v := range m.ApplicationProperties {
		switch {
		case name == "qrt-id":
			d.ID = text(v)
		case name == "qrt-content-type":
			d.ContentType = text(v)
		case name == "qrt-sealed":
			d.Sealed = v == true
		case !brokerProperties[name]:
			if d.Attributes == nil {
				d.Attributes = make(map[string]string)
			}
			d.Attributes[name] = text(v)
		}
	}
	return d
}

func toAMQP(m *driver.Message) *sbemulator.Message {
	e := &sbemulator.Message{MessageID: m.ID, CorrelationID: m.CorrelationID, ContentType: m.ContentType, Body: m.Body, ApplicationProperties: map[string]any{}}
	if e.Body == nil {
		e.Body = []byte{}
	}
	if m.SessionID != "" {
		session := m.SessionID
		e.SessionID = &session
	}
	for name, v := range m.Attributes {
		e.ApplicationProperties[name] = v
	}
	if m.Sealed {
		e.ApplicationProperties["qrt-sealed"] = true
	}
	return e
}
