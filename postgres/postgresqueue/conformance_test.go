package postgresqueue_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue/attacktest"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
	"github.com/queue-runtime/queue/testbed/postgresattack"
)

// Locks outlast the stalls of a machine under load: the short one a few new
// connections, the other a thousand settlements.
const (
	shortLock = 4 * time.Second
	longLock  = 5 * time.Minute
)

var schemas atomic.Int64

// newSchema returns the URL of a schema that does not exist yet on the shared server.
func newSchema(t postgres.TB, query string) (rawURL, schema string) {
	t.Helper()
	schema = fmt.Sprintf("s%d", schemas.Add(1))
	server := postgres.Shared(t).URL("postgres", "postgres")
	if strings.Contains(query, "pooled=true") {
		server = postgres.SharedPooler(t).URL("postgres")
	}
	return server + "?schema=" + schema + query, schema
}

// open opens a broker that the test closes.
func open(t testing.TB, rawURL string, o *postgresqueue.Options) *postgresqueue.Broker {
	t.Helper()
	b, err := postgresqueue.Open(t.Context(), rawURL, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

// harness describes postgresqueue to the suites: a schema for all cases, a queue for
// each, and connections that share nothing. limits are those of every queue.
func harness(t testing.TB, query string, limits postgresqueue.QueueOptions) drivertest.Harness {
	rawURL, schema := newSchema(t, query)
	b := open(t, rawURL, nil)
	attacker, err := postgresattack.Open(t.Context(), postgres.Shared(t).URL("postgres", "postgres"), schema)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = attacker.Close() }) // closes connections only
	var made atomic.Int64
	instance := &drivertest.Instance{
		Attacker: attacker,
		Connect: func(ctx context.Context) (driver.Broker, error) {
			return postgresqueue.Open(ctx, rawURL, &postgresqueue.Options{MustExist: true})
		},
		NewQueue: func(ctx context.Context, s drivertest.QueueSpec) (string, error) {
			o := limits
			o.SessionOnly = limits.SessionOnly && s.Sessions
			if o.MaxDeliveries = s.MaxDeliveries; o.MaxDeliveries == 0 {
				o.MaxDeliveries = -1
			}
			if o.Lock = longLock; s.ShortLock {
				o.Lock = shortLock
			}
			if s.Dedup {
				o.DedupWindow = time.Minute
			}
			name := fmt.Sprintf("queue-%d", made.Add(1))
			return name, b.Declare(ctx, name, &o)
		},
		Missing:      "not-declared",
		InvalidNames: []string{"a\x00b", "a\nb", "not-utf8-\xff", strings.Repeat("n", driver.MaxName+1)},
	}
	return drivertest.Harness{Start: func(drivertest.T) *drivertest.Instance { return instance }}
}

// goroutines is the case that counts those of the whole process.
const goroutines = "goroutines"

// parallel runs cases as subtests, several at a time: they mostly wait.
func parallel(t *testing.T, cases []drivertest.Case) {
	t.Helper()
	for _, c := range cases {
		if c.Name != goroutines {
			t.Run(c.Name, func(t *testing.T) { t.Parallel(); c.Run(t) })
		}
	}
}

// variants are ways to use the package.
var variants = []struct {
	name, query string
	limits      postgresqueue.QueueOptions
	prefix      string // of the cases that differ
}{
	{"default", "", postgresqueue.QueueOptions{MaxBody: 1 << 20}, ""},
	{"session only", "", postgresqueue.QueueOptions{SessionOnly: true, MaxBody: 64 << 10, Retention: time.Hour}, "session"},
	{"pooled", "&pooled=true&poll=50ms", postgresqueue.QueueOptions{MaxBody: 1 << 20}, ""},
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			cases := drivertest.Cases(harness(t, v.query, v.limits))
			parallel(t, slices.DeleteFunc(cases, func(c drivertest.Case) bool { return !strings.HasPrefix(c.Name, v.prefix) }))
		})
	}
}

// TestGoroutines runs while no other test does.
func TestGoroutines(t *testing.T) {
	for _, v := range variants {
		if !strings.HasPrefix(goroutines, v.prefix) {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			cases := drivertest.Cases(harness(t, v.query, v.limits))
			cases[slices.IndexFunc(cases, func(c drivertest.Case) bool { return c.Name == goroutines })].Run(t)
		})
	}
}

// TestAttacks performs the threat model's attacks by SQL on the tables.
func TestAttacks(t *testing.T) {
	t.Parallel()
	parallel(t, attacktest.Cases(harness(t, "", postgresqueue.QueueOptions{MaxBody: 1 << 20}), 20))
}

var _ drivertest.Attacker = (*postgresattack.Attacker)(nil)
