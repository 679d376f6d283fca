// Package brokers starts or opens the brokers on which qrt's demonstration,
// benchmark and conformance run work: in memory, in a SQLite file, in PostgreSQL, in
// SQS, or an emulator that lives as long as the run.
package brokers

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

// Broker is a broker for a run. It is safe for concurrent use.
type Broker struct {
	// Title describes the broker to a person.
	Title string

	// Connect opens a connection of its own, as if from another process.
	Connect func(context.Context) (driver.Broker, error)

	// NewQueue creates an empty queue for the caller alone. Its name begins with
	// purpose if the broker allows that. The error wraps errors.ErrUnsupported if
	// the broker has no queues of that kind.
	NewQueue func(ctx context.Context, purpose string, s drivertest.QueueSpec) (string, error)

	// Attacker changes the storage. Nil means that it cannot be reached.
	Attacker drivertest.Attacker

	// Consent says what the run does to something that belongs to a person, such
	// as an account in a cloud. Nothing may be created there without consent.
	// Empty means that none is needed.
	Consent string

	// The following fields are those of drivertest.Instance.
	Missing      string
	InvalidNames []string
	Slack, Quiet time.Duration
	Foreign      func(stack string) bool

	close func() error
}

// Close stops the broker, if it was started for this run, and removes what it
// created if the broker allows that. Close all connections first.
func (b *Broker) Close() error {
	if b.close == nil {
		return nil
	}
	return b.close()
}

// Instance returns the broker for cases of drivertest and attacktest.
func (b *Broker) Instance() *drivertest.Instance {
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

// Temporary is the URL of a SQLite file that lives as long as its Broker.
const Temporary = ""

// Open opens the broker at rawURL: mem:, sqlite:, postgres:, sqs:, [EmulatorURL],
// [SQSEmulatorURL] or [Temporary].
func Open(ctx context.Context, rawURL string) (*Broker, error) {
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
	case "postgres", "postgresql":
		return openPostgres(ctx, rawURL)
	case "sqs":
		return openSQS(ctx, rawURL)
	case "emulator":
		return nil, fmt.Errorf("there is no such emulator; use %s or %s", EmulatorURL, SQSEmulatorURL)
	}
	return openFixed(ctx, rawURL, "")
}

// OpenOn opens a broker with one existing, empty queue that nothing else uses.
// NewQueue returns that queue each time.
func OpenOn(ctx context.Context, rawURL, queue string) (*Broker, error) {
	return openFixed(ctx, rawURL, queue)
}

func openFixed(ctx context.Context, rawURL, queue string) (*Broker, error) {
	// Opening the broker reports errors in the URL.
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
	return &Broker{
		Title:    "queue " + queue,
		Connect:  func(ctx context.Context) (driver.Broker, error) { return connect.OpenBroker(ctx, rawURL) },
		NewQueue: func(context.Context, string, drivertest.QueueSpec) (string, error) { return queue, nil },
	}, nil
}
