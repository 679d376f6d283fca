package sbqueue

import (
	"context"

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
	r, err := b.o.Admin.GetQueue(ctx, name, nil)
	if err != nil {
		return nil, classify(ctx, err)
	}
	if r == nil {
		return nil, driver.Errorf(driver.NotFound, "the namespace has no queue %q", name)
	}
	return &r.QueueProperties, nil
}
