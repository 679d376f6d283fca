package sbqueue

import (
	"context"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/queue-runtime/queue/driver"
)

// Properties asks the management API how a queue was made. It needs the right to
// manage, and is errors.ErrUnsupported without Options.Admin.
func (b *Broker) Properties(ctx context.Context, name string) (*admin.QueueProperties, error) {
	if b.o.Admin == nil {
		return nil, driver.Unsupported("the settings of a queue: this broker has no management API")
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	r, err := administer(ctx, func(ctx context.Context) (*admin.GetQueueResponse, error) {
		return b.o.Admin.GetQueue(ctx, name, nil)
	})
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, driver.Errorf(driver.NotFound, "the namespace has no queue %q", name)
	}
	return &r.QueueProperties, nil
}

const (
	// adminTime is how long the management API may take for a request, the SDK's repetitions
	// included.
	adminTime = 5 * time.Second
	// adminAttempts is how often it is asked if it does not answer: the second time over a
	// new connection.
	adminAttempts = 2
)

// administer makes a request of the management API. Its error is classified.
func administer[T any](ctx context.Context, request func(context.Context) (T, error)) (T, error) {
	var none T
	for range adminAttempts {
		attempt, cancel := context.WithTimeout(ctx, adminTime)
		answer, err := request(attempt)
		silent := err != nil && attempt.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			return answer, nil
		case !silent:
			return none, classify(ctx, err)
		}
	}
	return none, errSilent
}
