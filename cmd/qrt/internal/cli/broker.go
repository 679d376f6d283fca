package cli

import (
	"context"

	"github.com/queue-runtime/queue/cmd/qrt/internal/brokers"
)

// testBrokerURL is where demo, bench and conformance run: the broker that the user
// chose, or a temporary SQLite file.
func (s *settings) testBrokerURL() string {
	if s.broker.given() {
		return s.broker.value
	}
	return brokers.Temporary
}

// testBroker opens the broker for a command that creates queues and fills them. If
// that needs consent (an account in a cloud, a file that has queues), yes must be
// true: a QRT_BROKER that was left at production is not consent.
func (a *app) testBroker(ctx context.Context, yes bool) (*brokers.Broker, error) {
	b, err := brokers.Open(ctx, a.settings.testBrokerURL())
	if err != nil {
		return nil, err
	}
	if b.Consent != "" && !yes {
		_ = b.Close() // it has created nothing yet
		return nil, advise(usagef("%s (%s): say --yes", b.Consent, a.settings.broker.source),
			"or choose another broker: --broker mem://, sqlite:NEW-FILE, %s or %s", brokers.EmulatorURL, brokers.SQSEmulatorURL)
	}
	return b, nil
}
