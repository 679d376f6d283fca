package brokers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/memqueue"
)

// queuesPerKind is how many queues of one kind are declared in advance.
const queuesPerKind = 64

// openMem makes a broker in memory. Its queues of other kinds than the usual are
// declared beforehand, since it takes none later.
func openMem(ctx context.Context, rawURL string) (*Broker, error) {
	p, err := connect.OpenBroker(ctx, rawURL) // for what is wrong with the URL
	if err != nil {
		return nil, err
	}
	if err := p.Close(ctx); err != nil {
		return nil, err
	}
	declared := make(map[string]memqueue.QueueOptions)
	kinds := make(map[drivertest.QueueSpec]string)
	for _, short := range []bool{false, true} {
		for deliveries := range 6 {
			for _, dedup := range []bool{false, true} {
				s := drivertest.QueueSpec{ShortLock: short, MaxDeliveries: deliveries, Dedup: dedup}
				kinds[s] = fmt.Sprintf("kind-%d-", len(kinds))
				o := memqueue.QueueOptions{MaxDeliveries: deliveries}
				if deliveries == 0 {
					o.MaxDeliveries = -1
				}
				if short {
					o.Lock = shortLock
				}
				if dedup {
					o.DedupWindow = time.Minute
				}
				for i := range queuesPerKind {
					declared[fmt.Sprint(kinds[s], i)] = o
				}
			}
		}
	}
	b := memqueue.New(&memqueue.Options{Queues: declared, Default: memqueue.QueueOptions{MaxDeliveries: -1}})
	var mu sync.Mutex // guards used
	used := make(map[string]int)
	return &Broker{
		Title:   "a broker in the memory of this process",
		Connect: func(context.Context) (driver.Broker, error) { return b.Connect(), nil },
		NewQueue: func(_ context.Context, purpose string, s drivertest.QueueSpec) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			s.Sessions = false // every queue has them
			if s == (drivertest.QueueSpec{}) {
				return unique(used, purpose, nil), nil
			}
			kind, ok := kinds[s]
			if !ok || used[kind] >= queuesPerKind {
				return "", fmt.Errorf("another queue of this kind: %w", errors.ErrUnsupported)
			}
			used[kind]++
			return fmt.Sprint(kind, used[kind]-1), nil
		},
		Attacker:     b.Attacker(),
		InvalidNames: []string{"a\x00b", "a\nb", strings.Repeat("n", driver.MaxName+1)},
		close:        func() error { return b.Close(context.Background()) },
	}, nil
}

// unique is purpose, with a number behind it if that name is taken. The caller
// holds the lock of used.
func unique(used map[string]int, purpose string, existing []string) string {
	for {
		used[purpose]++
		name := purpose
		if n := used[purpose]; n > 1 {
			name = fmt.Sprintf("%s-%d", purpose, n)
		}
		if !slices.Contains(existing, name) {
			return name
		}
	}
}
