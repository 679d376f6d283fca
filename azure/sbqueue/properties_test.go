package sbqueue_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// management is a management API that answers every question alike.
type management struct {
	status int
	body   string
}

// Do implements policy.Transporter.
func (m management) Do(r *http.Request) (*http.Response, error) {
	h := http.Header{"Content-Type": {"application/atom+xml;type=entry;charset=utf-8"}}
	return &http.Response{StatusCode: m.status, Header: h, Body: io.NopCloser(strings.NewReader(m.body)), Request: r}, nil
}

// entry is a queue as the management API shows it (Service Bus REST API, Get
// Entity).
const entry = `<entry xmlns="http://www.w3.org/2005/Atom"><id>https://x.servicebus.windows.net/orders</id><title type="text">orders</title>
<content type="application/xml"><QueueDescription xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
<LockDuration>PT30S</LockDuration><MaxSizeInMegabytes>1024</MaxSizeInMegabytes><RequiresDuplicateDetection>false</RequiresDuplicateDetection>
<RequiresSession>true</RequiresSession><DefaultMessageTimeToLive>P14D</DefaultMessageTimeToLive>
<DeadLetteringOnMessageExpiration>true</DeadLetteringOnMessageExpiration><MaxDeliveryCount>7</MaxDeliveryCount><Status>Active</Status>
</QueueDescription></content></entry>`

// managed returns a Broker whose management API answers so.
func managed(t *testing.T, m policy.Transporter) *sbqueue.Broker {
	t.Helper()
	const connection = "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0LW9mLW1hbnktYnl0ZXM="
	a, err := admin.NewClientFromConnectionString(connection, &admin.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: m}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := sbqueue.FromConnectionString(connection, &sbqueue.Options{Admin: a})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Log(err) // nothing was connected
		}
	})
	return b
}

func TestProperties(t *testing.T) {
	p, err := managed(t, management{200, entry}).Properties(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	if p.RequiresSession == nil || !*p.RequiresSession || p.DeadLetteringOnMessageExpiration == nil || !*p.DeadLetteringOnMessageExpiration ||
		p.MaxDeliveryCount == nil || *p.MaxDeliveryCount != 7 || p.Status == nil || *p.Status != admin.EntityStatusActive {
		t.Errorf("%+v, want an active queue with sessions, 7 deliveries, and dead-lettering of what expires", p)
	}
	for _, c := range []struct {
		m    management
		want error
	}{
		{management{401, `<Error><Code>401</Code><Detail>Manage,EntityRead claims required for this operation.</Detail></Error>`}, driver.ErrPermission},
		{management{404, `<Error><Code>404</Code><Detail>No such queue</Detail></Error>`}, driver.ErrNotFound},
	} {
		if _, err := managed(t, c.m).Properties(t.Context(), "orders"); !errors.Is(err, c.want) {
			t.Errorf("status %d: %v, want %v", c.m.status, err, c.want)
		}
	}
	if _, err := managed(t, management{200, entry}).Properties(t.Context(), "a b"); !errors.Is(err, driver.ErrInvalidName) {
		t.Errorf("a name that is none: %v", err)
	}
	b, err := sbqueue.FromConnectionString("Endpoint=sb://127.0.0.1;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0LW9mLW1hbnktYnl0ZXM=;UseDevelopmentEmulator=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Properties(t.Context(), "orders"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a management API: %v", err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Log(err) // nothing was connected
	}
}

// TestOpenWithoutRightToManage: services have the right to send or to receive,
// and the management API refuses them. The settings are then those of Options.
func TestOpenWithoutRightToManage(t *testing.T) {
	n := start(t, nil, sbemulator.QueueOptions{})
	for _, c := range []struct {
		m      management
		locked time.Duration
		want   error
	}{
		{management{401, `<Error><Code>401</Code><Detail>Manage,EntityRead claims required for this operation.</Detail></Error>`}, 20 * time.Second, nil},
		{management{200, strings.ReplaceAll(entry, "<RequiresSession>true", "<RequiresSession>false")}, 30 * time.Second, nil},
		{management{404, `<Error><Code>404</Code></Error>`}, 0, driver.ErrNotFound},
	} {
		a, err := admin.NewClientFromConnectionString("Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0LW9mLW1hbnktYnl0ZXM=",
			&admin.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: c.m}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := sbqueue.FromConnectionString(n.ConnectionString(), &sbqueue.Options{Admin: a, Default: sbqueue.QueueOptions{Lock: 20 * time.Second}})
		if err != nil {
			t.Fatal(err)
		}
		q, err := b.Open(t.Context(), "q", nil)
		if !errors.Is(err, c.want) {
			t.Errorf("status %d: %v, want %v", c.m.status, err, c.want)
		}
		if err == nil && q.Capabilities().Lock != c.locked {
			t.Errorf("status %d: a lock of %s, want %s", c.m.status, q.Capabilities().Lock, c.locked)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
