package connect

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
)

// serviceBusForm is how a Service Bus URL looks.
const serviceBusForm = "sb://NAMESPACE/, or sb:///?connection=NAME if the environment variable NAME has the connection string"

// serviceBusDomain is the domain of the public cloud's namespaces.
const serviceBusDomain = ".servicebus.windows.net"

// openServiceBus opens sb://NAMESPACE/ with the credentials of package
// azidentity's default chain, or sb:///?connection=NAME.
func openServiceBus(rawURL string) (driver.Broker, error) {
	u, err := parse("broker", rawURL, serviceBusForm)
	if err != nil {
		return nil, err
	}
	if u.User != nil || u.Opaque != "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("connect: broker: more than a namespace in the URL; use %s", serviceBusForm)
	}
	p := parameters{what: "broker", values: u.Query()}
	variable := p.text("connection")
	o := serviceBusOptions(&p)
	if err := p.finish(); err != nil {
		return nil, err
	}
	if (u.Host == "") == (variable == "") {
		return nil, fmt.Errorf("connect: broker: a namespace or a connection, one of the two; use %s", serviceBusForm)
	}
	if variable != "" && !variableName.MatchString(variable) {
		return nil, fmt.Errorf("connect: broker: parameter connection is not the name of an environment variable; use %s", serviceBusForm)
	}
	if variable != "" {
		connection := os.Getenv(variable)
		if connection == "" {
			return nil, fmt.Errorf("connect: broker: the environment variable %q, which the URL names, is empty", variable)
		}
		return openConnection(connection, o)
	}
	return openNamespace(u, o)
}

func openNamespace(u *url.URL, o *sbqueue.Options) (driver.Broker, error) {
	namespace := u.Host
	if !strings.Contains(namespace, ".") {
		namespace += serviceBusDomain
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, driver.Errorf(driver.Permission, "Azure credentials: %w", err)
	}
	if o.Admin, err = admin.NewClient(namespace, credential, nil); err != nil {
		return nil, fmt.Errorf("connect: broker: namespace %q: %w", namespace, err)
	}
	b, err := sbqueue.FromNamespace(namespace, credential, o)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// openConnection opens a connection string. No error repeats it.
func openConnection(connection string, o *sbqueue.Options) (driver.Broker, error) {
	if !strings.Contains(connection, "UseDevelopmentEmulator=true") { // which has no management API
		var err error
		if o.Admin, err = admin.NewClientFromConnectionString(connection, nil); err != nil {
			return nil, errors.New("connect: broker: the connection string is not valid: it has the form Endpoint=sb://NAMESPACE/;SharedAccessKeyName=NAME;SharedAccessKey=KEY")
		}
	}
	b, err := sbqueue.FromConnectionString(connection, o)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// serviceBusOptions are the settings of queues if the management API cannot be
// asked, as with the emulator.
func serviceBusOptions(p *parameters) *sbqueue.Options {
	return &sbqueue.Options{Default: sbqueue.QueueOptions{
		Sessions:      p.choice("sessions", "false", "true") == 1,
		Lock:          p.duration("lock"),
		MaxDeliveries: p.number("max_deliveries"),
		Retention:     p.duration("retention"),
		Dedup:         p.choice("dedup", "false", "true") == 1,
		Partitioned:   p.choice("partitioned", "false", "true") == 1,
		MaxBytes:      p.number("max_bytes"),
	}}
}
