package cli

import (
	"context"

	"github.com/queue-runtime/queue/cmd/qrt/internal/testbed"
)

// bedURL is where demo, bench and conformance run: on a file of their own,
// unless somebody named a broker.
func (s *settings) bedURL() string {
	if s.provider.given() {
		return s.provider.value
	}
	return testbed.Temporary
}

// bed opens the broker for a command that makes queues, fills them, and removes
// them. In an account of a cloud that wants a yes: it costs money, and whoever
// left QRT_PROVIDER at production did not mean it.
func (a *app) bed(ctx context.Context, yes bool) (*testbed.Bed, error) {
	b, err := testbed.Open(ctx, a.settings.bedURL())
	if err != nil {
		return nil, err
	}
	if b.Account != "" && !yes {
		_ = b.Close() // it has made nothing yet
		return nil, usagef("this makes queues, sends to them and removes them in %s (%s), which costs money: say --yes, or use %s",
			b.Account, a.settings.provider.source, testbed.SQSEmulatorURL)
	}
	return b, nil
}
