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

// bed opens the broker for a command that makes queues and fills them. Where that
// is somebody's, an account of a cloud or a file that has queues, it wants a yes:
// whoever left QRT_PROVIDER at production did not mean it.
func (a *app) bed(ctx context.Context, yes bool) (*testbed.Bed, error) {
	b, err := testbed.Open(ctx, a.settings.bedURL())
	if err != nil {
		return nil, err
	}
	if b.Consent != "" && !yes {
		_ = b.Close() // it has made nothing yet
		return nil, advise(usagef("%s (%s): say --yes", b.Consent, a.settings.provider.source),
			"or have a broker of its own: --provider mem://, sqlite:NEW-FILE, %s or %s", testbed.EmulatorURL, testbed.SQSEmulatorURL)
	}
	return b, nil
}
