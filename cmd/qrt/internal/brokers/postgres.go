package brokers

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgresattack"
)

func openPostgres(ctx context.Context, rawURL string) (*Broker, error) {
	p, err := connect.OpenBroker(ctx, rawURL)
	if err != nil {
		return nil, err
	}
	owner, ok := p.(*postgresqueue.Broker)
	if !ok {
		_ = p.Close(ctx) // nothing was done with it
		return nil, errors.New("postgres: another broker than expected")
	}
	before, err := owner.Queues(ctx)
	if err != nil {
		_ = owner.Close(ctx) // the first error is the one that tells
		return nil, err
	}
	consent := ""
	if len(before) > 0 {
		consent = "this makes queues, fills them and leaves them in the schema " + owner.Schema() + ", where there are others"
	}
	attacker, err := postgresattack.Open(ctx, databaseURL(rawURL), owner.Schema())
	if err != nil {
		_ = owner.Close(ctx) // the first error is the one that tells
		return nil, err
	}
	var mu sync.Mutex // guards used
	used := make(map[string]int)
	return &Broker{
		Title:   "PostgreSQL, schema " + owner.Schema(),
		Consent: consent,
		Connect: func(ctx context.Context) (driver.Broker, error) { return connect.OpenBroker(ctx, rawURL) },
		NewQueue: func(ctx context.Context, purpose string, s drivertest.QueueSpec) (string, error) {
			existing, err := owner.Queues(ctx)
			if err != nil {
				return "", err
			}
			o := &postgresqueue.QueueOptions{MaxDeliveries: s.MaxDeliveries}
			if s.MaxDeliveries == 0 {
				o.MaxDeliveries = -1
			}
			if s.ShortLock {
				o.Lock = shortLock
			}
			if s.Dedup {
				o.DedupWindow = time.Minute
			}
			mu.Lock()
			name := unique(used, purpose, existing)
			mu.Unlock()
			return name, owner.Declare(ctx, name, o)
		},
		Attacker:     attacker,
		InvalidNames: []string{"a\x00b", "a\nb", strings.Repeat("n", driver.MaxName+1)},
		close: func() error {
			return errors.Join(attacker.Close(), owner.Close(context.WithoutCancel(ctx)))
		},
	}, nil
}

// databaseURL is a broker's URL without the parameters that are no database's. The
// broker has opened it, so it parses.
func databaseURL(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	values := url.Values{}
	for name, v := range u.Query() {
		if strings.HasPrefix(name, "ssl") || name == "host" || name == "port" || name == "passfile" || name == "target_session_attrs" {
			values[name] = v
		}
	}
	u.RawQuery = values.Encode()
	return u.String()
}
