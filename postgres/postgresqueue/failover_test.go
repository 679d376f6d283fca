package postgresqueue_test

import (
	"context"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// standby starts a primary with a standby, and returns a URL of both.
func standby(t *testing.T) (primary, second *postgres.Server, both string) {
	t.Helper()
	closing := func(s *postgres.Server) {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	primary, err := postgres.Start(&postgres.Options{Durable: true})
	postgres.Require(t, err)
	closing(primary)
	if second, err = primary.Standby("second"); err != nil {
		t.Fatal(err)
	}
	closing(second)
	u, err := url.Parse(second.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := url.Parse(primary.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	u.Host = first.Host + "," + u.Host
	return primary, second, u.String()
}

// caughtUp waits until the standby has all that the primary has.
func caughtUp(t *testing.T, primary, second *postgres.Server) {
	t.Helper()
	at := oneValue[string](t, primary.URL("postgres", "postgres"), `SELECT pg_current_wal_flush_lsn()::text`)
	c, err := pgx.Connect(t.Context(), second.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	deadline := time.Now().Add(time.Minute)
	for there := false; !there; {
		if err := c.QueryRow(t.Context(), `SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false) FROM pg_sleep(0.02)`, at).Scan(&there); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("the standby does not catch up")
		}
	}
}

// TestFailover promotes a standby that was behind: what was sent meanwhile is lost, what
// was completed comes back, and a delivery of that time cannot be settled. Nothing else
// happens, as docs/brokers/postgres.md says.
func TestFailover(t *testing.T) {
	t.Parallel()
	primary, second, both := standby(t)
	ctx := t.Context()
	b := open(t, both, nil)
	q, err := b.Open(ctx, "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	send(t, q, &driver.Message{ID: "completed"}, &driver.Message{ID: "received"}, &driver.Message{ID: "waiting"})
	caughtUp(t, primary, second)
	if err := second.Kill(); err != nil {
		t.Fatal(err)
	}
	if n, err := take(q, 1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	received, err := q.Receive(ctx, 1, time.Second)
	if err != nil || len(received) != 1 {
		t.Fatal(len(received), err)
	}
	send(t, q, &driver.Message{ID: "sent"})
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := second.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := second.Promote(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for { // each connection of before fails once
		err := q.Settle(ctx, []driver.Settlement{{Delivery: received[0], Kind: driver.Complete}})[0]
		if driver.KindOf(err) == driver.LockLost {
			break
		}
		if err == nil || time.Now().After(deadline) {
			t.Fatalf("a delivery of before the failover: %v, want LockLost", err)
		}
	}
	var ids []string
	for len(ids) < 3 {
		got, err := q.Receive(ctx, 10, time.Second)
		if err != nil && driver.KindOf(err) != driver.Unavailable || time.Now().After(deadline) {
			t.Fatalf("%v, and %v until now", err, ids)
		}
		for _, d := range got {
			ids = append(ids, d.ID)
			if d.Count != 1 {
				t.Errorf("%s has the count %d, want 1", d.ID, d.Count)
			}
		}
	}
	if want := []string{"completed", "received", "waiting"}; !slices.Equal(ids, want) {
		t.Errorf("after the failover %v, want %v", ids, want)
	}
	if s, err := q.Stats(ctx); err != nil || s.Ready != 0 || s.InFlight != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSynchronousFailover: with synchronous_standby_names what was confirmed is there, and
// what was completed is gone.
func TestSynchronousFailover(t *testing.T) {
	t.Parallel()
	primary, second, both := standby(t)
	ctx := t.Context()
	c, err := pgx.Connect(ctx, primary.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	for _, s := range []string{`ALTER SYSTEM SET synchronous_standby_names = 'second'`, `SELECT pg_reload_conf()`} {
		if _, err := c.Exec(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	for synchronous := false; !synchronous; {
		err := c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync') FROM pg_sleep(0.02)`).Scan(&synchronous)
		if err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, both, &postgresqueue.Options{Timeout: 30 * time.Second})
	q, err := b.Open(ctx, "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	send(t, q, &driver.Message{ID: "completed"})
	if n, err := take(q, 1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	send(t, q, &driver.Message{ID: "sent"})
	if err := second.Kill(); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if r := q.Send(short, []*driver.Message{{ID: "unconfirmed"}}); r[0].Err == nil {
		t.Error("a send was confirmed without the standby")
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := second.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := second.Promote(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		got, err := q.Receive(ctx, 10, time.Second)
		if len(got) > 0 {
			if len(got) != 1 || got[0].ID != "sent" {
				t.Errorf("%d messages, the first %s; want sent", len(got), got[0].ID)
			}
			return
		}
		if err != nil && driver.KindOf(err) != driver.Unavailable || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
