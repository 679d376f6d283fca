package postgresqueue

import (
	"context"

	"github.com/queue-runtime/queue/postgres/internal/database"
)

// Database names the database among all servers. A replay store that returns the same
// lies within reach of the broker's operators: queue.New refuses it, unless it was opened
// with an option that says that they are trusted.
func (b *Broker) Database() string { return b.database }

// identify reads the name of the database.
func (b *Broker) identify(ctx context.Context) (name string, err error) {
	err = b.request(ctx, func(ctx context.Context, c *conn) error {
		name, err = database.Identify(ctx, c)
		return err
	})
	return name, err
}
