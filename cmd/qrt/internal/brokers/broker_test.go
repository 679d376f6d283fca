package brokers

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// TestAttackers: what each broker's attacker stores and reads back is the same, in
// all parts, and dead letters are found with their reason.
func TestAttackers(t *testing.T) {
	for _, url := range []string{"mem://", Temporary, EmulatorURL, SQSEmulatorURL, postgresURL} {
		t.Run(url, func(t *testing.T) {
			t.Parallel()
			b := open(t, inPostgres(t, url, "attackers"))
			ctx := t.Context()
			p, err := b.Connect(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close(ctx) //nolint:errcheck // the broker ends with the test
			name, err := b.NewQueue(ctx, "attacked", drivertest.QueueSpec{})
			if err != nil {
				t.Fatal(err)
			}
			q, err := p.Open(ctx, name, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r := q.Send(ctx, []*driver.Message{{ID: "1", CorrelationID: "c", ContentType: "text/plain", Attributes: map[string]string{"a": "1"}, Body: []byte("one")}}); r[0].Err != nil {
				t.Fatal(r[0].Err)
			}
			err = b.Attacker.Rewrite(ctx, name, func(all []driver.Message) []driver.Message {
				if len(all) != 1 || string(all[0].Body) != "one" || all[0].Attributes["a"] != "1" || all[0].CorrelationID != "c" {
					t.Errorf("the attacker reads %+v", all)
				}
				all[0].Body = []byte("two")
				return append(all, driver.Message{ID: "2", ContentType: "x/y", Body: []byte{0, 255}, Sealed: true})
			})
			if err != nil {
				t.Fatal(err)
			}
			all, err := b.Attacker.Read(ctx, name)
			if err != nil || len(all) != 2 || string(all[0].Body) != "two" || all[1].ID != "2" || !all[1].Sealed || string(all[1].Body) != "\x00\xff" {
				t.Fatalf("read back %+v, %v", all, err)
			}
			got, err := q.Receive(ctx, 1, 0)
			if err != nil || len(got) != 1 || string(got[0].Body) != "two" {
				t.Fatalf("received %d, %v", len(got), err)
			}
			if err := q.Settle(ctx, []driver.Settlement{{Delivery: got[0], Kind: driver.MoveToDeadLetter, Reason: "why", Description: "because"}})[0]; err != nil {
				t.Fatal(err)
			}
			dead, why, err := b.Attacker.DeadLetters(ctx, name)
			if err != nil || len(dead) != 1 || dead[0].ID != "1" || why[0].Reason != "why" || why[0].Description != "because" {
				t.Errorf("dead letters %+v, %+v, %v", dead, why, err)
			}
		})
	}
}

// open opens a broker until the test ends. If fauxqs is not installed it skips the
// test, or fails it if QRT_REQUIRE_PEERS is 1.
func open(t *testing.T, url string) *Broker {
	t.Helper()
	b, err := Open(t.Context(), url)
	if errors.Is(err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// TestNewQueue: no two queues are one, and one is as it was asked for.
func TestNewQueue(t *testing.T) {
	for _, url := range []string{"mem://", Temporary, EmulatorURL, SQSEmulatorURL, postgresURL} {
		t.Run(url, func(t *testing.T) { newQueues(t, open(t, inPostgres(t, url, "new_queue"))) })
	}
}

func newQueues(t *testing.T, b *Broker) {
	t.Helper()
	seen := make(map[string]bool)
	p, err := b.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, s := range []drivertest.QueueSpec{{}, {MaxDeliveries: 2}, {ShortLock: true}, {Dedup: true}, {Sessions: true}} {
			name, err := b.NewQueue(t.Context(), "x", s)
			if err != nil || seen[name] {
				t.Fatalf("queue %q a second time, or %v", name, err)
			}
			seen[name] = true
			q, err := p.Open(t.Context(), name, nil)
			if err != nil {
				t.Fatal(err)
			}
			c := q.Capabilities()
			if s.MaxDeliveries > 0 && c.MaxDeliveries != s.MaxDeliveries || s.ShortLock && c.Lock > 5e9 || s.Dedup && c.Dedup == driver.None {
				t.Errorf("asked for %+v, got %+v", s, c)
			}
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTemporary: its folder goes with it.
func TestTemporary(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	b, err := Open(t.Context(), Temporary)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("files %v, %v; want one", list, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	t.Setenv("TMPDIR", filepath.Join(dir, "missing"))
	if _, err := Open(t.Context(), Temporary); err == nil {
		t.Error("no folder for it, and no error")
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(t.Context(), "nosuch://"); !errors.Is(err, connect.ErrUnknownScheme) {
		t.Errorf("%v, want ErrUnknownScheme", err)
	}
	if _, err := Open(t.Context(), "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=n;SharedAccessKey=s3cret;UseDevelopmentEmulator=true"); !errors.Is(err, errors.ErrUnsupported) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("%v, want errors.ErrUnsupported without the key", err)
	}
	for _, url := range []string{"mem://x", "sqlite:///no/such/folder/x.db", "sqs://u:p@x/"} {
		if _, err := Open(t.Context(), url); err == nil {
			t.Errorf("%s opened", url)
		}
	}
}

// postgresURL stands for that of a server that is started on demand.
const postgresURL = "postgres://"

// inPostgres makes it the URL of a schema there.
func inPostgres(t *testing.T, rawURL, schema string) string {
	t.Helper()
	if rawURL != postgresURL {
		return rawURL
	}
	return postgres.Shared(t).URL("postgres", "postgres") + "?schema=" + schema
}

func TestMain(m *testing.M) {
	code := m.Run()
	postgres.StopShared()
	os.Exit(code)
}
