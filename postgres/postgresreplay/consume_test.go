package postgresreplay_test

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver of database/sql

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/postgres"
)

const (
	group = "group"
	lease = time.Minute
)

// request asks for message n of a stream that was opened in 2027.
func request(n int, now time.Time) replay.Request {
	id := replay.Identity{Sender: "sender", Sequence: uint64(n) + 1} //nolint:gosec // G115: small
	binary.BigEndian.PutUint64(id.Stream[:], 1_800_000_000_000<<16)
	r := replay.Request{
		ID: id, Token: replay.NewToken(), Lease: lease, SealedAt: now, Now: now, FreshUntil: now.Add(100 * 24 * time.Hour),
		RetryWindow: time.Hour, MaxMessageAge: time.Minute, MaxClockSkew: time.Second,
	}
	binary.BigEndian.PutUint64(r.Tag[:], id.Sequence)
	return r
}

// claimed is a delivery with a claim.
type claimed struct {
	group string
	f     replay.Finish
}

func (c claimed) Claim() (string, replay.Finish, bool) { return c.group, c.f, c.group != "" }

func claimOf(r *replay.Request) claimed {
	return claimed{group, replay.Finish{ID: r.ID, Token: r.Token, Kind: replay.Consumed}}
}

// transaction is one of either package.
type transaction struct {
	consume  func(*postgresreplay.Store, *replay.Request) error
	effect   func(*replay.Request) error
	commit   func() error
	rollback func() error
}

// beginner begins a transaction at an isolation level.
type beginner func(t testing.TB, url string, level sql.IsolationLevel) transaction

const insertEffect = `INSERT INTO app_%s.effect VALUES (%d)`

// byPgx begins transactions of pgx.
func byPgx(schema string) beginner {
	return func(t testing.TB, url string, level sql.IsolationLevel) transaction {
		t.Helper()
		c, err := pgx.Connect(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		levels := map[sql.IsolationLevel]pgx.TxIsoLevel{
			sql.LevelReadCommitted: pgx.ReadCommitted, sql.LevelRepeatableRead: pgx.RepeatableRead, sql.LevelSerializable: pgx.Serializable,
		}
		tx, err := c.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: levels[level]})
		if err != nil {
			t.Fatal(err)
		}
		return transaction{
			consume: func(s *postgresreplay.Store, r *replay.Request) error {
				return s.ConsumeTx(t.Context(), tx, claimOf(r))
			},
			effect: func(r *replay.Request) error {
				_, err := tx.Exec(t.Context(), fmt.Sprintf(insertEffect, schema, r.ID.Sequence))
				return err
			},
			commit:   func() error { return tx.Commit(t.Context()) },
			rollback: func() error { return tx.Rollback(t.Context()) },
		}
	}
}

// bySQL begins transactions of database/sql.
func bySQL(schema string) beginner {
	return func(t testing.TB, url string, level sql.IsolationLevel) transaction {
		t.Helper()
		db, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
		if err != nil {
			t.Fatal(err)
		}
		return transaction{
			consume: func(s *postgresreplay.Store, r *replay.Request) error {
				return s.ConsumeSQLTx(t.Context(), tx, claimOf(r))
			},
			effect: func(r *replay.Request) error {
				_, err := tx.ExecContext(t.Context(), fmt.Sprintf(insertEffect, schema, r.ID.Sequence))
				return err
			},
			commit: tx.Commit, rollback: tx.Rollback,
		}
	}
}

// bench is a store with a clock that the test moves, and a table of effects beside it.
type bench struct {
	t      *testing.T
	store  *postgresreplay.Store
	admin  *session
	schema string
	url    string
	ahead  atomic.Int64 // of the server's clock, in milliseconds
	begin  beginner
	level  sql.IsolationLevel
}

func newBench(t *testing.T) *bench {
	t.Helper()
	server := postgres.Shared(t)
	rawURL, schema := newSchema(server)
	b := &bench{t: t, schema: schema, url: server.URL("postgres", "postgres"), admin: connect(t, server), begin: byPgx(schema), level: sql.LevelReadCommitted}
	b.reopen(rawURL)
	b.admin.exec(`CREATE SCHEMA app_` + schema)
	b.admin.exec(`CREATE TABLE app_` + schema + `.effect (n bigint)`)
	return b
}

// reopen is a new process: it sweeps with its first call.
func (b *bench) reopen(rawURL string) {
	s, err := postgresreplay.OpenWithClock(b.t.Context(), rawURL, nil, func(server int64) int64 { return server + b.ahead.Load() })
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { closeStore(b.t, s) })
	b.store = s
}

func (b *bench) tx() transaction { return b.begin(b.t, b.url, b.level) }

func (b *bench) request(n int) replay.Request {
	return request(n, time.Now().Add(time.Duration(b.ahead.Load())*time.Millisecond))
}

func (b *bench) claim(want error, r replay.Request) replay.Request {
	b.t.Helper()
	c, err := b.store.Begin(b.t.Context(), group, []replay.Request{r})
	if err != nil {
		b.t.Fatal(err)
	}
	if !errors.Is(c[0].Err, want) {
		b.t.Fatalf("Begin: %v, want %v", c[0].Err, want)
	}
	return r
}

func (b *bench) finish(want error, kind replay.FinishKind, r replay.Request) {
	b.t.Helper()
	f, err := b.store.Finish(b.t.Context(), group, []replay.Finish{{ID: r.ID, Token: r.Token, Kind: kind}})
	if err != nil {
		b.t.Fatal(err)
	}
	if !errors.Is(f[0].Err, want) {
		b.t.Fatalf("Finish: %v, want %v", f[0].Err, want)
	}
}

// advance moves the store's clock on.
func (b *bench) advance(d time.Duration) { b.ahead.Add(d.Milliseconds()) }

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// effects fails the test unless message r has had so many effects, and no completion
// waits to be taken over.
func (b *bench) effects(want int64, r replay.Request) {
	b.t.Helper()
	if got := b.admin.number(`SELECT count(*) FROM app_`+b.schema+`.effect WHERE n = $1`, int64(r.ID.Sequence)); got != want { //nolint:gosec // G115: small
		b.t.Errorf("%d effects, want %d", got, want)
	}
}

// refused fails the test unless a transaction was refused with that error, and cannot
// commit.
func (b *bench) refused(tx transaction, err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("consume: %v, want %v", err, want)
	}
	if err := tx.commit(); err == nil {
		b.t.Error("a transaction that was refused has committed")
	}
}

// eachWay runs a test with both packages and all isolation levels.
func eachWay(t *testing.T, run func(*bench)) {
	t.Helper()
	for name, way := range map[string]func(string) beginner{"pgx": byPgx, "sql": bySQL} {
		for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
			t.Run(name+" "+level.String(), func(t *testing.T) {
				b := newBench(t)
				b.begin, b.level = way(b.schema), level
				run(b)
			})
		}
	}
}

// TestConsume: what is committed is consumed, and what is rolled back is not.
func TestConsume(t *testing.T) {
	eachWay(t, func(b *bench) {
		done := b.claim(nil, b.request(0))
		tx := b.tx()
		b.must(tx.effect(&done))
		b.must(tx.consume(b.store, &done))
		b.must(tx.commit())
		b.finish(nil, replay.Consumed, done)
		b.finish(nil, replay.Consumed, done)
		b.claim(replay.ErrDuplicate, b.request(0))

		back := b.claim(nil, b.request(1))
		tx = b.tx()
		b.must(tx.effect(&back))
		b.must(tx.consume(b.store, &back))
		b.must(tx.rollback())
		b.claim(replay.ErrBusy, b.request(1))
		b.finish(nil, replay.Released, back)
		again := b.claim(nil, b.request(1))
		tx = b.tx()
		b.must(tx.consume(b.store, &again))
		b.must(tx.effect(&again))
		b.must(tx.commit())
		// The process ends here, and the broker delivers once more.
		b.claim(replay.ErrDuplicate, b.request(1))
		b.finish(nil, replay.Consumed, again)
		b.effects(1, done)
		b.effects(1, back)
		if n := b.admin.number(`SELECT count(*) FROM ` + b.schema + `.completion`); n != 0 {
			b.t.Errorf("%d completions were not taken over", n)
		}
		s, err := b.store.Stats(b.t.Context())
		if err != nil || s.Records != 0 || s.Recent != 2 || s.Streams != 1 {
			b.t.Errorf("%+v, %v; want 2 recent messages of one stream", s, err)
		}
	})
}

// TestConsumeTakenOver: the owner of an earlier claim has no effect.
func TestConsumeTakenOver(t *testing.T) {
	eachWay(t, func(b *bench) {
		slow := b.claim(nil, b.request(0))
		tx := b.tx()
		b.must(tx.effect(&slow)) // takes the snapshot, too
		b.advance(2 * lease)
		next := b.claim(nil, b.request(0))
		b.refused(tx, tx.consume(b.store, &slow), replay.ErrClaimLost)

		tx, late := b.tx(), b.tx()
		b.must(late.effect(&slow))
		b.must(tx.consume(b.store, &next))
		b.must(tx.effect(&next))
		b.must(tx.commit())
		b.finish(nil, replay.Consumed, next)
		b.refused(late, late.consume(b.store, &slow), replay.ErrHandled)
		b.effects(1, slow)
	})
}

// TestConsumeAfterLease: a claim whose lease is over counts until another takes it over.
func TestConsumeAfterLease(t *testing.T) {
	b := newBench(t)
	r := b.claim(nil, b.request(0))
	b.advance(10 * lease)
	tx := b.tx()
	b.must(tx.consume(b.store, &r))
	b.must(tx.effect(&r))
	b.must(tx.commit())
	b.claim(replay.ErrDuplicate, b.request(0))
	b.effects(1, r)
}

// TestConsumeTogether: two transactions consume one message at the same time, because
// the lease of the first is over. The second waits; one of them commits.
func TestConsumeTogether(t *testing.T) {
	for _, commits := range []bool{true, false} {
		t.Run(fmt.Sprint("the first commits: ", commits), func(t *testing.T) {
			eachWayOf(t, func(b *bench) {
				first := b.claim(nil, b.request(0))
				one := b.tx()
				b.must(one.consume(b.store, &first))
				b.must(one.effect(&first))
				b.advance(2 * lease)
				second := b.claim(nil, b.request(0))
				two := b.tx()
				b.must(two.effect(&second))
				answer := make(chan error)
				go func() { answer <- two.consume(b.store, &second) }()
				for b.admin.number(`SELECT count(*) FROM pg_locks WHERE NOT granted`) == 0 {
					time.Sleep(time.Millisecond) // Real time: until the server has the second wait.
				}
				if commits {
					b.must(one.commit())
					b.refused(two, <-answer, replay.ErrHandled)
					b.finish(nil, replay.Consumed, first)
					b.finish(replay.ErrHandled, replay.Consumed, second)
				} else {
					b.must(one.rollback())
					b.must(<-answer)
					b.must(two.commit())
					b.finish(replay.ErrHandled, replay.Consumed, first)
					b.finish(nil, replay.Consumed, second)
				}
				b.claim(replay.ErrDuplicate, b.request(0))
				b.effects(1, first)
			})
		})
	}
}

// eachWayOf is eachWay with one level.
func eachWayOf(t *testing.T, run func(*bench)) {
	t.Helper()
	for name, way := range map[string]func(string) beginner{"pgx": byPgx, "sql": bySQL} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.begin = way(b.schema)
			run(b)
		})
	}
}

// TestConsumeEndures: once it has committed, nothing that the store did meanwhile undoes
// it: the claim was given back, parked, taken over or forgotten, or its stream was.
func TestConsumeEndures(t *testing.T) {
	for name, meanwhile := range map[string]func(b *bench, r replay.Request){
		"released":   func(b *bench, r replay.Request) { b.finish(nil, replay.Released, r) },
		"parked":     func(b *bench, r replay.Request) { b.finish(nil, replay.Parked, r) },
		"consumed":   func(b *bench, r replay.Request) { b.finish(nil, replay.Consumed, r) },
		"taken over": func(b *bench, r replay.Request) { b.advance(2 * lease); b.claim(nil, b.request(0)) },
		"forgotten": func(b *bench, r replay.Request) {
			for range 4 {
				b.advance(time.Hour)
				b.reopen(b.url + "?schema=" + b.schema)
				b.finish(nil, replay.Consumed, b.claim(nil, b.request(1000+int(b.ahead.Load()))))
			}
		},
		"dropped": func(b *bench, r replay.Request) {
			for range 40 {
				b.advance(24 * time.Hour)
				b.reopen(b.url + "?schema=" + b.schema)
				other := b.request(0)
				other.ID.Sender = "clock"
				other.ID.Sequence = uint64(b.ahead.Load()) //nolint:gosec // G115: above zero
				b.finish(nil, replay.Consumed, b.claim(nil, other))
			}
			if n := b.admin.number(`SELECT count(*) FROM ` + b.schema + `.stream s JOIN ` + b.schema + `.sender n ON n.id = s.sender WHERE n.name = 'sender'`); n != 0 {
				b.t.Error("the stream is held, so that this tests nothing")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			r := b.claim(nil, b.request(0))
			tx := b.tx()
			b.must(tx.consume(b.store, &r))
			b.must(tx.effect(&r))
			meanwhile(b, r)
			b.must(tx.commit())
			l, err := b.store.Look(t.Context(), group, []replay.Query{{ID: r.ID, SealedAt: r.SealedAt}})
			if err != nil || l[0].State != replay.StateConsumed {
				t.Errorf("Look: %+v, %v; want consumed", l, err)
			}
			for s, err := range b.store.Streams(t.Context(), group) {
				if err != nil || s.Sender == "sender" && s.Consumed == 0 {
					t.Errorf("Streams: %+v, %v", s, err)
				}
			}
			b.claim(replay.ErrDuplicate, b.request(0))
			b.finish(nil, replay.Consumed, r)
			b.effects(1, r)
		})
	}
}

// TestConsumeRefused: what is no claim of this store in this database is refused.
func TestConsumeRefused(t *testing.T) {
	b, other := newBench(t), newBench(t)
	never := b.request(0)
	tx := b.tx()
	b.must(tx.effect(&never))
	b.refused(tx, tx.consume(b.store, &never), driver.ErrInvalid) // no message was ever claimed
	claimedThere := other.claim(nil, other.request(0))
	b.claim(nil, b.request(1))
	tx = b.tx()
	b.refused(tx, tx.consume(b.store, &claimedThere), replay.ErrClaimLost)

	// A database with a store of the same name.
	b.admin.exec(`CREATE DATABASE consume_refused`)
	url := postgres.Shared(t).URL("postgres", "consume_refused")
	twin := open(t, url+"?schema="+b.schema, nil)
	mine := b.claim(nil, b.request(2))
	if _, err := twin.Begin(t.Context(), group, []replay.Request{mine}); err != nil {
		t.Fatal(err)
	}
	wrong := b.begin(t, url, sql.LevelReadCommitted)
	b.refused(wrong, wrong.consume(b.store, &mine), driver.ErrInvalid)
	if twin.Database() == b.store.Database() || b.store.Database() != other.store.Database() {
		t.Errorf("databases %q, %q and %q: the first two are one", b.store.Database(), other.store.Database(), twin.Database())
	}

	c, err := pgx.Connect(t.Context(), b.url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	none, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.ConsumeTx(t.Context(), none, claimed{}); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("a delivery without a claim: %v", err)
	}
	if err := none.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.store.ConsumeTx(t.Context(), none, claimOf(&mine)); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("a transaction that has ended: %v", err)
	}
	twice := b.tx()
	b.must(twice.consume(b.store, &mine))
	b.refused(twice, twice.consume(b.store, &mine), replay.ErrHandled)
}
