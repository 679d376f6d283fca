// Package testbed makes brokers for what is run against a broker: the
// demonstration, the benchmark and the conformance suite. A bed is opened by
// URL, makes queues, and gives raw access to what is stored.
//
// Beds are safe for concurrent use. Close removes what the bed made where the
// broker allows that.
package testbed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
)

// Bed is a broker for a run.
type Bed struct {
	// Title is the broker in words for a person.
	Title string

	// Connect opens a connection of its own, as another process would.
	Connect func(context.Context) (driver.Broker, error)

	// NewQueue makes an empty queue that nobody else uses. Where the broker
	// allows that its name begins like purpose. It fails with an error that
	// wraps errors.ErrUnsupported where the broker has no such queues.
	NewQueue func(ctx context.Context, purpose string, s drivertest.QueueSpec) (string, error)

	// Attacker controls the storage. Nil: it is out of reach.
	Attacker drivertest.Attacker

	// Consent says what is done to what is somebody's, such as an account of a
	// cloud: nothing should be made there unless he agrees. Empty: nothing is.
	Consent string

	// What follows is as in drivertest.Instance.
	Missing      string
	InvalidNames []string
	Slack, Quiet time.Duration
	Foreign      func(stack string) bool

	close func() error
}

// Close ends the bed. Connections must be closed before.
func (b *Bed) Close() error {
	if b.close == nil {
		return nil
	}
	return b.close()
}

// Broker returns the bed as the suites of package drivertest see it.
func (b *Bed) Broker() *drivertest.Instance {
	return &drivertest.Instance{
		Connect: b.Connect,
		NewQueue: func(ctx context.Context, s drivertest.QueueSpec) (string, error) {
			return b.NewQueue(ctx, "qrt-conformance", s)
		},
		Attacker:     b.Attacker,
		Missing:      b.Missing,
		InvalidNames: b.InvalidNames,
		Slack:        b.Slack,
		Quiet:        b.Quiet,
		Foreign:      b.Foreign,
	}
}

// Temporary is the URL of a broker that lives as long as its bed.
const Temporary = ""

// Open opens a bed on the broker that rawURL names: mem:, sqlite:, sqs:,
// EmulatorURL or SQSEmulatorURL. Temporary stands for a SQLite file in a folder of its own.
func Open(ctx context.Context, rawURL string) (*Bed, error) {
	switch rawURL {
	case Temporary:
		return openTemporary(ctx)
	case EmulatorURL:
		return openEmulator()
	case SQSEmulatorURL:
		return openFauxqs()
	}
	scheme, _, _ := strings.Cut(rawURL, ":")
	switch strings.ToLower(scheme) {
	case "mem":
		return openMem(ctx, rawURL)
	case "sqlite":
		return openSQLite(ctx, rawURL)
	case "sqs":
		return openSQS(ctx, rawURL)
	case "emulator":
		return nil, fmt.Errorf("there is no such emulator; use %s or %s", EmulatorURL, SQSEmulatorURL)
	}
	return openFixed(ctx, rawURL, "")
}

// OpenOn opens a bed on one queue that is there, is empty, and that nobody else
// uses: each NewQueue is that one.
func OpenOn(ctx context.Context, rawURL, queue string) (*Bed, error) {
	return openFixed(ctx, rawURL, queue)
}

func openFixed(ctx context.Context, rawURL, queue string) (*Bed, error) {
	// Opening it tells what is wrong with the URL, if that is it.
	p, err := connect.OpenBroker(ctx, rawURL)
	if err != nil {
		return nil, err
	}
	if err := p.Close(ctx); err != nil {
		return nil, err
	}
	if queue == "" {
		return nil, fmt.Errorf("queues of this broker cannot be made from here: %w", errors.ErrUnsupported)
	}
	return &Bed{
		Title:    "queue " + queue,
		Connect:  func(ctx context.Context) (driver.Broker, error) { return connect.OpenBroker(ctx, rawURL) },
		NewQueue: func(context.Context, string, drivertest.QueueSpec) (string, error) { return queue, nil },
	}, nil
}
