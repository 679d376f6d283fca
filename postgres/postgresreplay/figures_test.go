package postgresreplay_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// TestTablesAreFlat: under steady traffic the tables hold what they should, and nothing is
// missing. 10^6 messages with QRT_SOAK=1, 10^4 else.
func TestTablesAreFlat(t *testing.T) {
	server := postgres.Shared(t)
	seconds := soak(10, 1000)
	synctest.Test(t, func(t *testing.T) {
		f := fixture(server, "", nil)(t, replay.Bounds{Recent: 2000})
		x := &replaytest.Traffic{Store: f.Open(0)}
		x.Run(t, seconds)
		n, err := x.Store.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d handled: %.1f MiB: %d records, %d recent, %d intervals", x.Handled, float64(n.Bytes)/(1<<20), n.Records, n.Recent, n.Intervals)
		if n.Streams != 20 || n.Recent > 2000+2000 || n.Intervals > 20*1024 {
			t.Errorf("stats %+v, want 20 streams within their bounds", n)
		}
		x.CheckAccounts(t)
	})
}

// TestPooled: behind PgBouncer in transaction mode each call works.
func TestPooled(t *testing.T) {
	server := postgres.Shared(t)
	postgres.SharedPooler(t) // before the bubble: it outlives it
	synctest.Test(t, func(t *testing.T) {
		f := fixture(server, "&pooled=true&max_conns=1", nil)(t, replay.Bounds{Recent: 200})
		s := f.Open(0)
		x := &replaytest.Traffic{Store: s}
		x.Run(t, 2)
		x.CheckAccounts(t)
		r := request(0, time.Now())
		if c, err := s.Begin(t.Context(), group, []replay.Request{r}); err != nil || c[0].Err != nil {
			t.Fatal(c, err)
		}
		if l, err := s.Renew(t.Context(), group, []replay.Lease{{ID: r.ID, Token: r.Token, Lease: lease}}); err != nil || l[0].Err != nil {
			t.Error(l, err)
		}
		if l, err := s.Look(t.Context(), group, []replay.Query{{ID: r.ID, SealedAt: r.SealedAt}}); err != nil || l[0].State != replay.StateClaimed {
			t.Error(l, err)
		}
		note := replay.Note{Sender: r.ID.Sender, Stream: r.ID.Stream, Range: replay.Range{First: 5, Last: 7}, Kind: replay.NoteAccepted}
		if n, err := s.Note(t.Context(), group, []replay.Note{note}); err != nil || n[0].Fresh != 3 {
			t.Error(n, err)
		}
		if err := s.Probe(t.Context(), group); err != nil {
			t.Error(err)
		}
		c, err := pgx.Connect(t.Context(), server.URL("postgres", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		tx, err := c.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pooled := s.(*postgresreplay.Store) //nolint:forcetypeassert // of the fixture
		if err := pooled.ConsumeTx(t.Context(), tx, claimOf(&r)); err != nil {
			t.Error(err)
		}
		if err := errors.Join(tx.Commit(t.Context()), c.Close(t.Context())); err != nil {
			t.Error(err)
		}
		if c, err := s.Begin(t.Context(), group, []replay.Request{r}); err != nil || !errors.Is(c[0].Err, replay.ErrDuplicate) {
			t.Error(c, err)
		}
	})
}

// TestHeldSnapshot: while a transaction elsewhere keeps VACUUM from removing anything, a
// call reads no more than before.
func TestHeldSnapshot(t *testing.T) {
	server := postgres.Shared(t)
	rawURL, schema := newSchema(server)
	s := open(t, rawURL, nil)
	holder := connect(t, server)
	holder.exec(`BEGIN ISOLATION LEVEL REPEATABLE READ`)
	holder.number(`SELECT count(*) FROM pg_class`) // takes the snapshot
	calls := soak(500, 20_000)
	for n := range calls {
		r := request(n, time.Now())
		if c, err := s.Begin(t.Context(), group, []replay.Request{r}); err != nil || c[0].Err != nil {
			t.Fatal(c, err)
		}
		if f, err := s.Finish(t.Context(), group, []replay.Finish{{ID: r.ID, Token: r.Token, Kind: replay.Consumed}}); err != nil || f[0].Err != nil {
			t.Fatal(f, err)
		}
	}
	admin := connect(t, server)
	read := admin.reads(s.StoreStatement(), "bytea", `'group'`, func() {
		// VACUUM looks, and finds nothing that it may remove.
		admin.exec(`VACUUM ANALYZE ` + schema + `.tally`)
	}, `'group'`)
	size := admin.number(`SELECT pg_relation_size('` + schema + `.tally') / 8192`)
	t.Logf("%d calls left %d pages of dead rows; a call reads %d", 2*calls, size, read)
	if read > 30 || size < 5 {
		t.Errorf("a call reads %d pages of %d", read, size)
	}
}

// reads prepares a statement with the settings of a call, runs it once with the arguments
// of before, calls do, and returns how many pages of tables and indexes it reads then.
func (s *session) reads(statement, types, before string, do func(), after string) int64 {
	s.t.Helper()
	for _, name := range []string{"seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort"} {
		s.exec(`SET enable_` + name + ` = off`)
	}
	s.exec(`SET plan_cache_mode = force_generic_plan`)
	s.exec2(`PREPARE planned (` + types + `) AS ` + statement + `; EXECUTE planned (` + before + `)`)
	do()
	var plan []struct {
		Plan struct {
			Hit  int64 `json:"Shared Hit Blocks"`
			Read int64 `json:"Shared Read Blocks"`
		}
	}
	s.try("EXPLAIN", func(c *pgx.Conn) error {
		var text []byte
		err := c.QueryRow(context.Background(), `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE planned (`+after+`)`, pgx.QueryExecModeSimpleProtocol).Scan(&text)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, &plan)
	})
	if len(plan) != 1 {
		s.t.Fatalf("%d plans", len(plan))
	}
	return plan[0].Plan.Hit + plan[0].Plan.Read
}

// TestPlans: a call finds its pages by their whole keys, and a sweep the first of an index, although the plan was made while
// the tables were young or empty.
func TestPlans(t *testing.T) {
	const streams = 1000
	for _, empty := range []bool{false, true} {
		server := postgres.Shared(t)
		rawURL, schema := newSchema(server)
		s := open(t, rawURL, nil)
		if err := s.Probe(t.Context(), group); err != nil { // makes the group
			t.Fatal(err)
		}
		admin := connect(t, server)
		if empty {
			for _, name := range tables { // VACUUM finds that nothing is in them
				admin.exec(`VACUUM FULL ` + schema + `.` + name)
			}
		}
		var r []replay.Request
		var senders, ids, places []string
		for i := range streams {
			q := request(0, time.Now())
			binary.BigEndian.PutUint32(q.ID.Stream[8:], uint32(i)+1) //nolint:gosec // G115: small
			r, senders, places = append(r, q), append(senders, `'sender'`), append(places, "0")
			ids = append(ids, fmt.Sprintf(`'\x%x'`, q.ID.Stream))
		}
		list := func(l []string) string { return "ARRAY[" + strings.Join(l, ",") + "]" }
		read := admin.reads(s.PagesStatement(), "bytea, bytea[], bytea[], bigint[], boolean", `'group', '{}', '{}', '{}', false`, func() {
			if _, err := s.Begin(t.Context(), group, r); err != nil {
				t.Fatal(err)
			}
		}, `'group', `+list(senders)+`::bytea[], `+list(ids)+`::bytea[], `+list(places)+`::bigint[], false`)
		// A descent in each of three small indexes, and a row of each table.
		if read < streams || read > 12*streams {
			t.Errorf("empty before: %v: a call for %d streams reads %d pages", empty, streams, read)
		}
		const early = `8, 4503599627370496, 4503599627370496` // eight with tags, and none else is due
		read = connect(t, server).reads(s.DueStatement(), "bigint, bigint, bigint, bigint, bigint", `1, 0, `+early, func() {
			f := make([]replay.Finish, streams)
			for i := range r {
				f[i] = replay.Finish{ID: r[i].ID, Token: r[i].Token, Kind: replay.Consumed}
			}
			if _, err := s.Finish(t.Context(), group, f); err != nil {
				t.Fatal(err)
			}
		}, `1, 4503599627370495, `+early)
		if read < 8 || read > 12*8 {
			t.Errorf("empty before: %v: a sweep of 8 of %d pages reads %d", empty, streams, read)
		}
	}
}

// BenchmarkStore is what a message costs a receiver, Begin and Finish, in batches of 1 and
// 32, on a server that waits for the disk. Beside the time it reports WAL, transactions
// and flushes of WAL of the server.
func BenchmarkStore(b *testing.B) {
	server, err := postgres.Start(&postgres.Options{Durable: true})
	postgres.Require(b, err)
	defer func() { _ = server.Close() }()
	for _, size := range []int{1, 32} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			rawURL, _ := newSchema(server)
			s := open(b, rawURL, nil)
			admin := connect(b, server)
			wal := `SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn`
			before, flushes := admin.number(wal), admin.number(`SELECT wal_sync FROM pg_stat_wal`)
			ctx, n := context.Background(), uint64(0)
			for b.Loop() {
				var r []replay.Request
				var f []replay.Finish
				now := time.Now()
				for range size {
					n++
					id := replay.Identity{Sender: "sender", Sequence: n}
					binary.BigEndian.PutUint64(id.Stream[:], 1_800_000_000_000<<16)
					q := replay.Request{
						ID: id, Token: replay.NewToken(), SealedAt: now, FreshUntil: now.Add(time.Minute), Now: now,
						RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Minute, Settled: n - 1,
					}
					r, f = append(r, q), append(f, replay.Finish{ID: id, Token: q.Token, Kind: replay.Consumed})
				}
				if c, err := s.Begin(ctx, group, r); err != nil || c[0].Err != nil {
					b.Fatal(c, err)
				}
				if c, err := s.Finish(ctx, group, f); err != nil || c[0].Err != nil {
					b.Fatal(c, err)
				}
			}
			messages := float64(b.N * size)
			b.ReportMetric(float64(b.Elapsed().Microseconds())/messages, "us/message")
			b.ReportMetric(float64(admin.number(wal)-before)/messages, "WAL-B/message")
			_ = s.Close(ctx) // the server counts when a connection ends
			b.ReportMetric(float64(admin.number(`SELECT wal_sync FROM pg_stat_wal`)-flushes)/float64(2*b.N), "flushes/call")
		})
	}
}

// BenchmarkSize is what streams, recent messages and records take in the tables, after VACUUM
// FULL.
func BenchmarkSize(b *testing.B) {
	const streams, recent, records = 20_000, 20_000, 20_000
	server := postgres.Shared(b)
	for b.Loop() {
		rawURL, schema := newSchema(server)
		s := open(b, rawURL, nil)
		admin := connect(b, server)
		size := func() float64 {
			admin.exec2(`VACUUM FULL ` + schema + `.stream`)
			admin.exec2(`VACUUM FULL ` + schema + `.page`)
			return float64(admin.number(`SELECT pg_total_relation_size('` + schema + `.stream') + pg_total_relation_size('` + schema + `.page')`))
		}
		consume := func(n int, kind replay.FinishKind, id func(int) replay.Identity) {
			for at := 0; at < n; at += 1000 {
				var r []replay.Request
				var f []replay.Finish
				for i := at; i < at+1000; i++ {
					q := request(0, time.Now())
					q.ID, q.Settled = id(i), 0
					r, f = append(r, q), append(f, replay.Finish{ID: q.ID, Token: q.Token, Kind: kind})
				}
				if _, err := s.Begin(b.Context(), group, r); err != nil {
					b.Fatal(err)
				}
				if _, err := s.Finish(b.Context(), group, f); err != nil {
					b.Fatal(err)
				}
			}
		}
		empty := size()
		inOrder := func(i int) replay.Identity { return request(i, time.Now()).ID }
		consume(recent, replay.Consumed, inOrder)
		full := size()
		b.ReportMetric((full-empty)/recent, "B/recent")
		consume(records, replay.Parked, func(i int) replay.Identity { return inOrder(recent + i) })
		b.ReportMetric((size()-full)/records, "B/record")
		consume(streams, replay.Consumed, func(i int) replay.Identity {
			id := request(0, time.Now()).ID
			id.Sender = "other"
			binary.BigEndian.PutUint32(id.Stream[8:], uint32(i)+1) //nolint:gosec // G115: small
			return id
		})
		admin.exec(`DELETE FROM ` + schema + `.page`) // as after folding
		b.ReportMetric(size()/streams, "B/stream")
	}
}
