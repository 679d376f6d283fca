package sqlitequeue_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
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

// inBubbles runs cases as subtests, each in a bubble of its own.
func inBubbles(t *testing.T, cases []drivertest.Case) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { c.Run(t) }) })
	}
}

func TestConformance(t *testing.T) {
	for name, o := range map[string]sqlitequeue.QueueOptions{
		"default":      {MaxBody: 1 << 20},
		"session only": {SessionOnly: true, MaxBody: 64 << 10, Retention: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			cases := drivertest.Cases(harness(t, o, time.Second, here))
			if o.SessionOnly && scale > 1 {
				// The others would do the same once more.
				cases = slices.DeleteFunc(cases, func(c drivertest.Case) bool { return !strings.HasPrefix(c.Name, "session") })
			}
			inBubbles(t, cases)
		})
	}
}

// TestConformanceProcesses opens each connection in a process of its own, so time
// is real. Ten cases run at a time, because they mostly wait.
func TestConformanceProcesses(t *testing.T) {
	t.Parallel()
	connect := func(_ context.Context, path string) (driver.Broker, error) { return connectRemote(t, path) }
	var mu sync.Mutex // guards the harness, which counts its files
	// A few calls between processes fit into the lock on a machine that is busy thirty times over.
	h := harness(t, sqlitequeue.QueueOptions{MaxBody: 1 << 20}, 5*time.Second, connect)
	start := h.Start
	h.Start = func(t drivertest.T) *drivertest.Instance {
		mu.Lock()
		defer mu.Unlock()
		return start(t)
	}
	work := make(chan drivertest.Case)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for c := range work {
				if r := drivertest.Run(t.Context(), c); r.Failed {
					t.Errorf("%s: %s", r.Name, strings.Join(r.Lines, "\n"))
				}
			}
		})
	}
	for _, c := range drivertest.Cases(h) {
		if acrossProcesses(c.Name) {
			work <- c
		}
	}
	close(work)
	wg.Wait()
}

// acrossProcesses reports whether a case runs in TestConformanceProcesses. With
// the race detector, which is slow, only cases about concurrency run, and none
// that races against the end of a lock.
func acrossProcesses(name string) bool {
	concurrent := strings.HasPrefix(name, "concurrent") || strings.HasPrefix(name, "receive") || strings.HasPrefix(name, "session")
	switch {
	case name == "goroutines": // those of this process, which are not the driver's
		return false
	case scale > 1:
		return concurrent && !strings.Contains(name, "lock") && !strings.Contains(name, "delay")
	}
	return true
}
