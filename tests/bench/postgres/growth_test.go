package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// BenchmarkGrowth compares what one message costs in a small queue and in a large one, on
// one server that does not wait for the disk, so that the disk hides no difference. The
// queues take turns, so that what else the machine does meets both. Each iteration is a
// round; the medians are microseconds for a message, and ratio is large by small.
func BenchmarkGrowth(b *testing.B) {
	for _, g := range grown {
		b.Run(g.name, func(b *testing.B) { growth(b, g) })
	}
}

// TestGrowth: what the benchmark stores can be handled.
func TestGrowth(t *testing.T) {
	server, c := startGrowth(t)
	for i, g := range grown {
		q := sized(t, server, c, fmt.Sprint("size", i), 10, g.fill)
		if _, err := turn(t.Context(), q, g.do); err != nil {
			t.Errorf("%s: %v", g.name, err)
		}
	}
}

// grown are the ways in which a queue grows.
var grown = []grow{
	{"waiting", [2]int{1000, 1_000_000}, fillQueue, claimAndComplete},
	{"sessions", [2]int{10, 100_000}, fillSessions, serveSession},
	{"of-sessions", [2]int{10, 100_000}, fillSessions, claimAndComplete},
}

type grow struct {
	name  string
	sizes [2]int
	fill  filler
	do    step
}

// inRound is how many messages a queue handles in its turn.
const inRound = 300

type (
	filler func(tb testing.TB, c *pgx.Conn, schema string, n int)
	// step takes one message and completes it. It returns the session of the message.
	step func(ctx context.Context, q driver.Queue) (session string, err error)
)

// startGrowth starts a server that does not wait for the disk.
func startGrowth(tb testing.TB) (*postgres.Server, *pgx.Conn) {
	tb.Helper()
	server, err := postgres.Start(nil)
	postgres.Require(tb, err)
	tb.Cleanup(func() { _ = server.Close() })
	c, err := pgx.Connect(tb.Context(), server.URL("postgres", "postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close(context.WithoutCancel(tb.Context())) })
	return server, c
}

// sized opens a queue in a schema of its own and stores n messages, or sessions, in it.
func sized(tb testing.TB, server *postgres.Server, c *pgx.Conn, schema string, n int, fill filler) driver.Queue {
	tb.Helper()
	broker, err := postgresqueue.Open(tb.Context(), server.URL("postgres", "postgres")+"?max_conns=2&schema="+schema, nil)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = broker.Close(context.WithoutCancel(tb.Context())) })
	q, err := broker.Open(tb.Context(), "q", nil)
	if err != nil {
		tb.Fatal(err)
	}
	fill(tb, c, schema, n)
	return q
}

func growth(b *testing.B, g grow) {
	server, c := startGrowth(b)
	ctx := b.Context()
	var queues [2]driver.Queue
	for i, n := range g.sizes {
		queues[i] = sized(b, server, c, fmt.Sprint("size", i), n, g.fill)
	}
	var costs [2][]time.Duration
	for round := 0; b.Loop(); round++ {
		for k := range queues {
			i := (k + round) % len(queues)
			cost, err := turn(ctx, queues[i], g.do)
			if err != nil {
				b.Fatal(err)
			}
			costs[i] = append(costs[i], cost)
		}
	}
	var medians [2]float64
	for i, list := range costs {
		slices.Sort(list)
		medians[i] = float64(list[len(list)/2].Nanoseconds()) / 1e3
		b.ReportMetric(medians[i], fmt.Sprintf("us/%d", g.sizes[i]))
	}
	b.ReportMetric(medians[1]/medians[0], "ratio")
	b.ReportMetric(0, "ns/op")
}

// turn handles inRound messages and returns the median cost of one. It sends another for
// each, so that a queue keeps its size.
func turn(ctx context.Context, q driver.Queue, do step) (time.Duration, error) {
	costs := make([]time.Duration, inRound)
	for i := range costs {
		begin := time.Now()
		session, err := do(ctx, q)
		if err != nil {
			return 0, err
		}
		costs[i] = time.Since(begin)
		if err := q.Send(ctx, []*driver.Message{{ID: "more", SessionID: session, Body: []byte(body)}})[0].Err; err != nil {
			return 0, err
		}
	}
	slices.Sort(costs)
	return costs[inRound/2], nil
}

// claimAndComplete takes one message of the queue and completes it.
func claimAndComplete(ctx context.Context, q driver.Queue) (string, error) {
	return complete(ctx, q)
}

func complete(ctx context.Context, s driver.Source) (string, error) {
	got, err := s.Receive(ctx, 1, 0)
	if err != nil {
		return "", err
	}
	if len(got) != 1 {
		return "", fmt.Errorf("%d messages, want 1", len(got))
	}
	return got[0].SessionID, s.Settle(ctx, []driver.Settlement{{Delivery: got[0], Kind: driver.Complete}})[0]
}

// serveSession accepts the next session, completes one message of it and closes it.
func serveSession(ctx context.Context, q driver.Queue) (string, error) {
	s, err := q.AcceptSession(ctx, "", 0)
	if err != nil {
		return "", err
	}
	session, err := complete(ctx, s)
	if err != nil {
		return "", err
	}
	return session, s.Close(ctx)
}

// fillQueue stores n messages by SQL.
func fillQueue(tb testing.TB, c *pgx.Conn, schema string, n int) {
	store(tb, c, schema, n, `0, NULL, NULL`)
}

// fillSessions stores two messages for each of n sessions.
func fillSessions(tb testing.TB, c *pgx.Conn, schema string, n int) {
	store(tb, c, schema, 2*n, fmt.Sprintf(`CASE WHEN p <= %[1]d THEN 0 ELSE 4 END, 's' || p %% %[1]d, CASE WHEN p <= %[1]d THEN p END`, n))
	if _, err := c.Exec(tb.Context(), fmt.Sprintf(`INSERT INTO %[1]s.session (queue, id, touched) SELECT q.id, 's' || p, now()
		FROM %[1]s.queue q, generate_series(0, %[2]d - 1) p`, schema, n)); err != nil {
		tb.Fatal(err)
	}
}

// store stores n messages of the schema's only queue by SQL, with places 1 to n. shape gives state, session and turn
// of that with place p.
func store(tb testing.TB, c *pgx.Conn, schema string, n int, shape string) {
	tb.Helper()
	for _, statement := range []string{
		`INSERT INTO %[1]s.content SELECT p, 'id-' || p, '', '', '', '', false, NULL, 0, 'id-' || p, repeat('x', 1024)::bytea
			FROM generate_series(1, %[2]d) p`,
		`INSERT INTO %[1]s.message (queue, seq, content, due, expires, enqueued, deliveries, max_deliveries, size, state, session, turn)
			SELECT q.id, p, p, now() + interval '14 days', now() + interval '14 days', now(), 0, 0, 1024, %[3]s
			FROM %[1]s.queue q, generate_series(1, %[2]d) p`,
		`INSERT INTO %[1]s.tally SELECT id, %[2]d, 0, 0 FROM %[1]s.queue`,
		`SELECT setval('%[1]s.place', %[2]d), setval('%[1]s.turn', %[2]d)`,
	} {
		if _, err := c.Exec(tb.Context(), fmt.Sprintf(statement+` -- %[1]s %[2]d %[3]s`, schema, n, shape)); err != nil {
			tb.Fatal(err)
		}
	}
}
