package sqlitequeue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// connector opens a connection to a file.
type connector func(ctx context.Context, path string) (driver.Provider, error)

// here opens it in this process.
func here(ctx context.Context, path string) (driver.Provider, error) {
	return sqlitequeue.Open(ctx, path, &sqlitequeue.Options{MustExist: true})
}

// harness describes sqlitequeue to the suites: a file for each case, and
// connections that share nothing but the file. limits are those of every queue.
func harness(tb testing.TB, limits sqlitequeue.QueueOptions, connect connector) drivertest.Harness {
	dir := tb.TempDir()
	cases := 0
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Broker {
		cases++
		path := filepath.Join(dir, fmt.Sprintf("%d.db", cases))
		b, err := sqlitequeue.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		t.Cleanup(func() {
			if err := b.Close(context.Background()); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		made := 0
		return &drivertest.Broker{
			Connect: func(ctx context.Context) (driver.Provider, error) { return connect(ctx, path) },
			NewQueue: func(ctx context.Context, s drivertest.QueueSpec) (string, error) {
				o := limits
				o.SessionOnly = limits.SessionOnly && s.Sessions
				if o.MaxDeliveries = s.MaxDeliveries; o.MaxDeliveries == 0 {
					o.MaxDeliveries = -1
				}
				if s.ShortLock {
					o.Lock = time.Second
				}
				if s.Dedup {
					o.DedupWindow = time.Minute
				}
				made++
				name := fmt.Sprintf("queue-%d", made)
				return name, b.Declare(ctx, name, &o)
			},
			Missing:      "not-declared",
			InvalidNames: []string{"a\x00b", "a\nb", "not-utf8-\xff", strings.Repeat("n", sqlitequeue.MaxName+1)},
		}
	}}
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]sqlitequeue.QueueOptions{
		"default":      {MaxBody: 1 << 20},
		"session only": {SessionOnly: true, MaxBody: 64 << 10, Retention: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.Conformance(drivertest.NewIn(t, synctest.Test), harness(t, o, here))
		})
	}
}

// TestConformanceProcesses has each connection in a process of its own, and time
// is real.
func TestConformanceProcesses(t *testing.T) {
	connect := func(_ context.Context, path string) (driver.Provider, error) { return connectRemote(t, path) }
	drivertest.Conformance(drivertest.New(t), harness(t, sqlitequeue.QueueOptions{MaxBody: 1 << 20}, connect))
}
