package brokers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

// shortLock is the lock of a QueueSpec.ShortLock: long enough for a few commits
// on a slow disk.
const shortLock = time.Second

// openTemporary makes a SQLite file in a folder of its own.
func openTemporary(ctx context.Context) (*Broker, error) {
	dir, err := os.MkdirTemp("", "qrt-")
	if err != nil {
		return nil, err
	}
	b, err := openSQLite(ctx, "sqlite://"+filepath.ToSlash(filepath.Join(dir, "queue.db")))
	if err != nil {
		_ = os.RemoveAll(dir) // the first error is the one that tells
		return nil, err
	}
	b.Title = "SQLite, in a file of its own"
	inner := b.close
	b.close = func() error { return errors.Join(inner(), os.RemoveAll(dir)) }
	return b, nil
}

func openSQLite(ctx context.Context, rawURL string) (*Broker, error) {
	p, err := connect.OpenBroker(ctx, rawURL)
	if err != nil {
		return nil, err
	}
	broker, ok := p.(*sqlitequeue.Broker)
	if !ok {
		_ = p.Close(ctx) // nothing was done with it
		return nil, errors.New("sqlite: another broker than expected")
	}
	before, err := broker.Queues(ctx)
	if err != nil {
		_ = broker.Close(ctx) // the first error is the one that tells
		return nil, err
	}
	consent := ""
	if len(before) > 0 {
		consent = "this creates queues, fills them and leaves them in " + broker.Path() + ", which has other queues"
	}
	raw, err := sqliteattack.Open(broker.Path())
	if err != nil {
		_ = broker.Close(ctx) // the first error is the one that tells
		return nil, err
	}
	var mu sync.Mutex // guards used
	used := make(map[string]int)
	return &Broker{
		Title:   "SQLite, in " + broker.Path(),
		Consent: consent,
		Connect: func(ctx context.Context) (driver.Broker, error) { return connect.OpenBroker(ctx, rawURL) },
		NewQueue: func(ctx context.Context, purpose string, s drivertest.QueueSpec) (string, error) {
			existing, err := broker.Queues(ctx)
			if err != nil {
				return "", err
			}
			o := &sqlitequeue.QueueOptions{MaxDeliveries: s.MaxDeliveries}
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
			return name, broker.Declare(ctx, name, o)
		},
		Attacker:     raw,
		InvalidNames: []string{"a\x00b", "a\nb", strings.Repeat("n", driver.MaxName+1)},
		close: func() error {
			return errors.Join(raw.Close(), broker.Close(context.WithoutCancel(ctx)))
		},
	}, nil
}
