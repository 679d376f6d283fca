package sbqueue

import (
	"context"
	"crypto/rand"
	"net"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// OverConnections is FromConnectionString over connections that dial makes.
func OverConnections(connection string, o *Options, dial func(context.Context) (net.Conn, error)) (*Broker, error) {
	return newBroker(rand.Text(), o, func(c *azservicebus.ClientOptions) (*azservicebus.Client, error) {
		c.NewWebSocketConn = func(ctx context.Context, _ azservicebus.NewWebSocketConnArgs) (net.Conn, error) { return dial(ctx) }
		return azservicebus.NewClientFromConnectionString(connection, c)
	})
}
