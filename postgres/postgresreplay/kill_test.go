package postgresreplay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/postgres"
)

func durableServer(t *testing.T) *postgres.Server {
	t.Helper()
	server, err := postgres.Start(&postgres.Options{Durable: true})
	postgres.Require(t, err)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// serverKills kills the server with SIGKILL after so many answers, before the next call, and
// starts it again. Calls without an answer do not count: each kill leaves connections behind
// that fail once, and these failures must not make the next. The bubbles of the suite ask a
// goroutine outside of them to kill.
type serverKills struct {
	every    int64
	answers  atomic.Int64
	due      atomic.Bool
	kills    atomic.Int64
	restart  sync.RWMutex // held while the server is away, so that no call starts then
	requests chan struct{}
	done     chan error
}

func killing(server *postgres.Server, every int64) *serverKills {
	k := &serverKills{every: every, requests: make(chan struct{}), done: make(chan error)}
	go func() {
		for range k.requests {
			err := server.Kill()
			if err == nil {
				err = server.Restart()
			}
			k.done <- err
		}
	}()
	return k
}

func (k *serverKills) wrap(s replay.Store) replay.Store { return interrupted{s, k} }

// interrupt kills the server if it is time, also in the middle of other calls.
func (k *serverKills) interrupt() error {
	if !k.due.CompareAndSwap(true, false) {
		k.restart.RLock()
		defer k.restart.RUnlock()
		return nil
	}
	k.restart.Lock()
	defer k.restart.Unlock()
	k.kills.Add(1)
	k.requests <- struct{}{}
	return <-k.done
}

// answered counts an answer.
func (k *serverKills) answered(err error) {
	if err == nil && k.answers.Add(1)%k.every == 0 {
		k.due.Store(true)
	}
}

// interrupted is a store whose server is killed between calls.
type interrupted struct {
	replay.Store
	k *serverKills
}

func (s interrupted) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	if err := s.k.interrupt(); err != nil {
		return nil, err
	}
	c, err := s.Store.Begin(ctx, group, r)
	s.k.answered(err)
	return c, err
}

func (s interrupted) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	if err := s.k.interrupt(); err != nil {
		return nil, err
	}
	done, err := s.Store.Finish(ctx, group, f)
	s.k.answered(err)
	return done, err
}

// TestServerKilled: the suite passes while the server is killed between calls.
func TestServerKilled(t *testing.T) {
	server := durableServer(t)
	k := killing(server, int64(soak(400, 10)))
	defer close(k.requests)
	replaytest.Run(t, replaytest.Options{New: fixture(server, "", k), Schedules: 1, Unreliable: true})
	t.Logf("%d answers, %d kills", k.answers.Load(), k.kills.Load())
	if k.kills.Load() == 0 {
		t.Error("the server was never killed")
	}
}

// In these tests workers are processes that are killed, or whose server is. They claim
// messages as a broker delivers them that repeats itself, and consume each in the
// transaction that writes its effect.
func init() {
	roles["worker"] = workerRole
}

const (
	killLease    = 100 * time.Millisecond
	killMessages = 5000
)

func workerRole(in io.Reader, args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	storeURL, appURL, schema := args[0], args[1], args[2]
	var s *postgresreplay.Store
	var db *pgx.Conn
	said := ""
	say := func(err error) { // shown if the test fails
		if err != nil && err.Error() != said {
			said = err.Error()
			fmt.Fprintln(os.Stderr, "worker:", said)
		}
	}
	for ctx.Err() == nil {
		var err error
		if s == nil {
			if s, err = postgresreplay.Open(ctx, storeURL, nil); err != nil {
				say(err)
				s = nil
				continue // the server starts: connecting fails at once, or waits for it
			}
			defer func() { _ = s.Close(context.Background()) }() //nolint:gocritic // once, in effect
		}
		if db == nil || db.IsClosed() {
			if db, err = pgx.Connect(ctx, appURL); err != nil {
				say(err)
				db = nil
				continue
			}
		}
		if err := handleBatch(ctx, s, db, schema); errors.Is(err, errTwice) {
			return err
		} else {
			say(err)
		}
	}
	return nil
}

var errTwice = errors.New("consumed twice")

// handleBatch claims messages, and handles those that it gets.
func handleBatch(ctx context.Context, s *postgresreplay.Store, db *pgx.Conn, schema string) error {
	var batch []replay.Request
	for range 4 {
		r := request(rand.IntN(killMessages), time.Now())
		r.Lease = killLease
		batch = append(batch, r)
	}
	c, err := s.Begin(ctx, group, batch)
	if err != nil {
		return err
	}
	for i := range c {
		if c[i].Err != nil {
			continue
		}
		r := &batch[i]
		err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			if err := s.ConsumeTx(ctx, tx, claimOf(r)); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, fmt.Sprintf(insertEffect, schema, r.ID.Sequence))
			if rand.IntN(50) == 0 {
				time.Sleep(2 * killLease) // Real time: a handler that outlasts its lease.
			}
			if err == nil && rand.IntN(10) == 0 {
				return errors.New("the handler fails")
			}
			return err
		})
		kind := replay.Consumed
		if err != nil && !errors.Is(err, replay.ErrHandled) {
			kind = replay.Released
		}
		f, ferr := s.Finish(ctx, group, []replay.Finish{{ID: r.ID, Token: r.Token, Kind: kind}})
		if ferr == nil && err == nil && errors.Is(f[0].Err, replay.ErrClaimLost) {
			return fmt.Errorf("%w: a message whose transaction has committed: %w", errTwice, f[0].Err)
		}
	}
	return nil
}

// worker is a running worker.
type worker struct {
	command *exec.Cmd
	input   io.Closer
}

func startWorker(t *testing.T, args ...string) worker {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := worker{command: exec.Command(self, args...)}
	w.command.Env = append(os.Environ(), roleVariable+"=worker")
	w.command.Stderr = os.Stderr
	if w.input, err = w.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.command.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// killRounds runs three workers and calls disturb so often while they work. Then each
// message has had its effect once if it is consumed, and none otherwise.
func killRounds(t *testing.T, server *postgres.Server, rounds int, disturb func(w *worker, start func() worker)) {
	rawURL, schema := newSchema(server)
	s := open(t, rawURL, nil)
	admin := connect(t, server)
	admin.exec(`CREATE SCHEMA app_` + schema)
	admin.exec(`CREATE TABLE app_` + schema + `.effect (n bigint)`)
	effects := `SELECT count(*) FROM app_` + schema + `.effect`
	start := func() worker {
		return startWorker(t, rawURL+"&timeout=2s", server.URL("postgres", "postgres")+"?connect_timeout=2", schema)
	}
	workers := []worker{start(), start(), start()}
	for range rounds {
		const longest = 3 * time.Minute // a machine under load takes seconds
		begun, before := time.Now(), admin.number(effects)
		for done := before; done < min(before+5, killMessages*9/10); done = admin.number(effects) {
			if time.Since(begun) > longest {
				t.Fatalf("%d effects, and %d were there %v ago; what the workers say is above", done, before, longest)
			}
			time.Sleep(5 * time.Millisecond) // Real time: the workers are other processes.
		}
		time.Sleep(rand.N(20 * time.Millisecond)) // Real time: the kill comes anywhere in their work.
		disturb(&workers[rand.IntN(len(workers))], start)
	}
	var wg sync.WaitGroup
	for _, w := range workers {
		_ = w.input.Close()
		wg.Go(func() {
			if err := w.command.Wait(); err != nil {
				t.Errorf("a worker: %v", err)
			}
		})
	}
	wg.Wait()
	had := make(map[uint64]int)
	admin.try("effects", func(c *pgx.Conn) error {
		clear(had)
		r, err := c.Query(context.Background(), `SELECT n FROM app_`+schema+`.effect`)
		if err != nil {
			return err
		}
		var n uint64
		_, err = pgx.ForEachRow(r, []any{&n}, func() error { had[n]++; return nil })
		return err
	})
	var q []replay.Query
	for n := range killMessages {
		r := request(n, time.Now())
		q = append(q, replay.Query{ID: r.ID, SealedAt: r.SealedAt})
	}
	var looks []replay.Look
	err := errors.New("no answer")
	for try := 0; err != nil && try < 10; try++ { // each connection of before the last kill fails once
		looks, err = firstLooks(s, q)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range looks {
		n := had[q[i].ID.Sequence]
		if consumed := looks[i].State == replay.StateConsumed; n > 1 || consumed != (n == 1) {
			t.Errorf("message %d is %v and has had %d effects", q[i].ID.Sequence, looks[i].State, n)
		}
	}
	t.Logf("%d of %d messages have had their effect, %d rounds", len(had), killMessages, rounds)
}

// firstLooks looks at more messages than one call takes.
func firstLooks(s replay.Store, q []replay.Query) (all []replay.Look, err error) {
	for len(q) > 0 {
		n := min(len(q), replay.MaxBatch)
		l, err := s.Look(context.Background(), group, q[:n])
		if err != nil {
			return nil, err
		}
		all, q = append(all, l...), q[n:]
	}
	return all, nil
}

// TestConsumeKilled kills processes with SIGKILL while they consume in transactions.
func TestConsumeKilled(t *testing.T) {
	killRounds(t, postgres.Shared(t), soak(6, 100), func(w *worker, start func() worker) {
		_ = w.command.Process.Kill()
		_ = w.command.Wait() // it was killed
		_ = w.input.Close()
		*w = start()
	})
}

// TestConsumeServerKilled kills the server with SIGKILL while processes consume in
// transactions.
func TestConsumeServerKilled(t *testing.T) {
	server := durableServer(t)
	killRounds(t, server, soak(2, 100), func(*worker, func() worker) {
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
	})
}
