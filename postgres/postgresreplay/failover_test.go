package postgresreplay_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// pair is a primary and a standby.
type pair struct {
	testing.TB
	primary, standby *postgres.Server
	url              string // of both
}

// newPair starts them. The name of the standby is "second".
func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{TB: t}
	closing := func(s *postgres.Server) {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	var err error
	p.primary, err = postgres.Start(&postgres.Options{Durable: true})
	postgres.Require(t, err)
	closing(p.primary)
	if p.standby, err = p.primary.Standby("second"); err != nil {
		t.Fatal(err)
	}
	closing(p.standby)
	host := func(s *postgres.Server) string {
		u, err := url.Parse(s.URL("postgres", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		return u.Host
	}
	p.url = fmt.Sprintf("postgres://postgres@%s,%s/postgres?timeout=5s", host(p.primary), host(p.standby))
	return p
}

// caughtUp waits until the standby has everything.
func (p *pair) caughtUp() {
	p.Helper()
	primary, standby := connect(p, p.primary), connect(p, p.standby)
	at := primary.number(`SELECT pg_current_wal_flush_lsn() - '0/0'::pg_lsn`)
	deadline := time.Now().Add(time.Minute)
	for standby.number(`SELECT coalesce(pg_last_wal_replay_lsn() - '0/0'::pg_lsn, 0) FROM pg_sleep(0.02)`) < at {
		if time.Now().After(deadline) {
			p.Fatal("the standby does not catch up")
		}
	}
}

func (p *pair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// failover ends the primary and promotes the standby, which does not run.
func (p *pair) failover() {
	p.Helper()
	p.must(p.primary.Kill())
	p.must(p.standby.Restart())
	p.must(p.standby.Promote())
}

// insisting repeats a call while the database is away.
func insisting(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func (p *pair) claim(s replay.Store, r replay.Request) (c replay.Claim) {
	p.Helper()
	insisting(p, func() error {
		all, err := s.Begin(context.Background(), group, []replay.Request{r})
		if err == nil {
			c = all[0]
		}
		return err
	})
	return c
}

func (p *pair) consume(s replay.Store, r replay.Request) {
	p.Helper()
	insisting(p, func() error {
		all, err := s.Finish(context.Background(), group, []replay.Finish{claimOf(&r).f})
		if err == nil {
			err = all[0].Err
		}
		return err
	})
}

func (p *pair) handle(s replay.Store, r replay.Request) {
	p.Helper()
	if c := p.claim(s, r); c.Err != nil {
		p.Fatal(c.Err)
	}
	p.consume(s, r)
}

func (p *pair) id(s replay.Store) [16]byte {
	p.Helper()
	return p.stamp(s).ID
}

func (p *pair) stamp(s replay.Store) (stamp replay.Stamp) {
	p.Helper()
	insisting(p, func() error {
		n, err := s.Stats(context.Background())
		stamp = n.Stamp
		return err
	})
	return stamp
}

// TestFailover promotes a standby that lacks the last calls, and more and less of them for
// different stores. Each store that has lost something it had confirmed answers with
// another ID, and no other.
func TestFailover(t *testing.T) {
	p := newPair(t)
	stores := 0
	open := func() *postgresreplay.Store {
		stores++
		return open(t, fmt.Sprintf("%s&schema=s%d", p.url, stores), nil)
	}
	again := func(n int) *postgresreplay.Store {
		s, err := postgresreplay.Open(context.Background(), fmt.Sprintf("%s&schema=s%d", p.url, n), nil)
		p.must(err)
		t.Cleanup(func() { closeStore(t, s) })
		return s
	}
	now := time.Now()
	first, second, third := request(1, now), request(2, now), request(3, now)

	whole, two, one, busy, reads := open(), open(), open(), open(), open()
	receiver := newReceiver(t, open())
	all := []*postgresreplay.Store{whole, two, one, busy, reads}
	before := make(map[*postgresreplay.Store][16]byte)
	for _, s := range all {
		p.handle(s, first)
		before[s] = p.id(s)
	}
	if c := p.claim(one, second); c.Err != nil {
		t.Fatal(c.Err)
	}
	receiver.handle("first")
	p.caughtUp()
	p.must(p.standby.Kill())

	p.handle(two, second)
	p.consume(one, second)
	p.handle(busy, second)
	p.handle(reads, second)
	receiver.handle("second")
	p.failover()

	if c := p.claim(whole, third); c.Err != nil || c.Stamp.ID != before[whole] {
		t.Errorf("nothing lost: %v, another ID: %v", c.Err, c.Stamp.ID != before[whole])
	}
	if c := p.claim(whole, first); !errors.Is(c.Err, replay.ErrDuplicate) && !errors.Is(c.Err, replay.ErrHandled) {
		t.Errorf("nothing lost: a replay: %v", c.Err)
	}
	if c := p.claim(two, third); c.Stamp.ID == before[two] {
		t.Error("two calls lost: the same ID")
	}
	// As many calls since as before.
	if c := p.claim(one, third); c.Stamp.ID == before[one] {
		t.Error("one call lost: the same ID")
	}
	// Others have called since, so that the change number is higher than before.
	other := again(4)
	for n := range 10 {
		p.handle(other, request(10+n, now))
	}
	c := p.claim(busy, third)
	if c.Stamp.ID == before[busy] {
		t.Error("two calls lost, ten made since: the same ID")
	}
	if c.Stamp.Birth.Before(now) {
		t.Errorf("it was born %s, before the loss", c.Stamp.Birth)
	}
	if id := p.id(other); id != c.Stamp.ID {
		t.Error("another process sees another ID")
	}
	if again := p.claim(busy, request(4, now)); again.Stamp.ID != c.Stamp.ID {
		t.Error("the ID changed once more")
	}
	insisting(t, func() error {
		l, err := reads.Look(context.Background(), group, []replay.Query{{ID: second.ID, SealedAt: second.SealedAt}})
		if err == nil && l[0].Stamp.ID == before[reads] {
			t.Error("a look: the same ID")
		}
		return err
	})
	receiver.stops()
}

// receiver is one of package queue, under Strict, of a queue in memory.
type receiver struct {
	testing.TB
	sender *queue.Sender
	*queue.Receiver
}

func newReceiver(t testing.TB, store replay.Store) *receiver {
	t.Helper()
	key, err := keys.Generate("k", nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	o := queue.Strict(ring, store)
	o.Logger, o.Crypto.MaxMessageAge = slog.New(slog.DiscardHandler), time.Hour
	client, err := queue.New(memqueue.New(nil), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	r := &receiver{TB: t}
	if r.sender, err = client.Sender(t.Context(), "q", nil); err != nil {
		t.Fatal(err)
	}
	if r.Receiver, err = client.Receiver(t.Context(), "q", nil); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *receiver) handle(body string) {
	r.Helper()
	if _, err := r.sender.Send(r.Context(), &queue.Message{Body: []byte(body)}); err != nil {
		r.Fatal(err)
	}
	d, err := r.ReceiveOne(r.Context())
	if err == nil {
		err = d.Complete(r.Context())
	}
	if err != nil {
		r.Fatal(err)
	}
}

// stops fails the test unless the receiver hands out nothing more, because its store has
// lost its memory.
func (r *receiver) stops() {
	r.Helper()
	if _, err := r.sender.Send(r.Context(), &queue.Message{Body: []byte("third")}); err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	for {
		d, err := r.ReceiveOne(ctx)
		switch {
		case d != nil:
			r.Fatal("a message was handed out")
		case errors.Is(err, queue.ErrReplayStoreLost):
			return
		case ctx.Err() != nil:
			r.Fatal("the receiver goes on")
		}
	}
}

// TestSynchronousFailover: with synchronous_standby_names nothing is answered that the
// standby has not got, and a failover loses nothing.
func TestSynchronousFailover(t *testing.T) {
	p := newPair(t)
	admin := connect(t, p.primary)
	admin.exec(`ALTER SYSTEM SET synchronous_standby_names = 'second'`)
	admin.exec(`SELECT pg_reload_conf()`)
	admin.exec(`ALTER ROLE postgres SET synchronous_commit = off`) // the store sets its own
	for admin.number(`SELECT count(*) FROM pg_sleep(0.02), pg_stat_replication WHERE sync_state = 'sync'`) == 0 {
	}
	s := open(t, p.url, nil)
	now := time.Now()
	id := p.claim(s, request(0, now)).Stamp.ID
	handled := 0
	for n := range 20 {
		p.handle(s, request(n+1, now))
		handled++
	}
	p.must(p.standby.Kill())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Begin(ctx, group, []replay.Request{request(100, now)}); err == nil {
		t.Error("a call was answered without the standby")
	}
	p.failover()
	for n := range handled {
		c := p.claim(s, request(n+1, now))
		if !errors.Is(c.Err, replay.ErrDuplicate) && !errors.Is(c.Err, replay.ErrHandled) {
			t.Errorf("message %d: %v", n, c.Err)
		}
		if c.Stamp.ID != id {
			t.Fatal("the store takes it for a loss")
		}
	}
}
