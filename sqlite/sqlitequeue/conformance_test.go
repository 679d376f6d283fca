package sqlitequeue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/sqlite/sqliteattack"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// connector opens a connection to a file.
type connector func(ctx context.Context, path string) (driver.Broker, error)

// here opens it in this process.
func here(ctx context.Context, path string) (driver.Broker, error) {
	return sqlitequeue.Open(ctx, path, &sqlitequeue.Options{MustExist: true})
}

// harness describes sqlitequeue to the suites: a file for each case, and
// connections that share nothing but the file. limits are those of every queue,
// lock is a short one.
func harness(tb testing.TB, limits sqlitequeue.QueueOptions, lock time.Duration, connect connector) drivertest.Harness {
	dir := tb.TempDir()
	cases := 0
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Instance {
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
		attacker, err := sqliteattack.Open(path)
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		t.Cleanup(func() {
			if err := attacker.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		made := 0
		return &drivertest.Instance{
			Attacker: attacker,
			Connect:  func(ctx context.Context) (driver.Broker, error) { return connect(ctx, path) },
			NewQueue: func(ctx context.Context, s drivertest.QueueSpec) (string, error) {
				o := limits
				o.SessionOnly = limits.SessionOnly && s.Sessions
				if o.MaxDeliveries = s.MaxDeliveries; o.MaxDeliveries == 0 {
					o.MaxDeliveries = -1
				}
				if s.ShortLock {
					o.Lock = lock
				}
				if s.Dedup {
					o.DedupWindow = time.Minute
				}
				made++
				name := fmt.Sprintf("queue-%d", made)
				return name, b.Declare(ctx, name, &o)
			},
			Missing:      "not-declared",
			InvalidNames: []string{"a\x00b", "a\nb", "not-utf8-\xff", strings.Repeat("n", driver.MaxName+1)},
		}
	}}
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]sqlitequeue.QueueOptions{
		"default":      {MaxBody: 1 << 20},
		"session only": {SessionOnly: true, MaxBody: 64 << 10, Retention: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			h := harness(t, o, time.Second, here)
			if o.SessionOnly {
				// The others would do the same once more.
				h.Only = func(name string) bool { return scale == 1 || strings.HasPrefix(name, "session") }
			}
			drivertest.Conformance(drivertest.NewIn(t, synctest.Test), h)
		})
	}
}

// TestConformanceProcesses has each connection in a process of its own, and time
// is real: several cases run side by side, because they mostly wait. Under the
// race detector those that race against a lock are left to a run without it.
func TestConformanceProcesses(t *testing.T) {
	t.Parallel()
	const shards = 6
	shard := make(map[string]int)
	for i, name := range drivertest.Cases() {
		shard[name] = i % shards
	}
	for name := range shard {
		concurrent := strings.HasPrefix(name, "concurrent") || strings.HasPrefix(name, "receive") || strings.HasPrefix(name, "session")
		switch {
		case name == "goroutines": // of this process, which are not the driver's
			shard[name] = -1
		case scale > 1 && (!concurrent || strings.Contains(name, "lock") || strings.Contains(name, "delay")):
			shard[name] = -1
		}
	}
	var wg sync.WaitGroup
	for i := range shards {
		connect := func(_ context.Context, path string) (driver.Broker, error) { return connectRemote(t, path) }
		// A lock that outlasts a stall of a busy machine.
		h := harness(t, sqlitequeue.QueueOptions{MaxBody: 1 << 20}, 1500*time.Millisecond, connect)
		h.Only = func(name string) bool { return shard[name] == i }
		wg.Go(func() {
			drivertest.Run(t.Context(), func(t drivertest.T) { drivertest.Conformance(t, h) }, func(r drivertest.Report) {
				if r.Failed {
					t.Errorf("%s: %s", r.Name, strings.Join(r.Lines, "\n"))
				}
			})
		})
	}
	wg.Wait()
}
