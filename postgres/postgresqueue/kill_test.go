package postgresqueue_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// In these tests workers are processes that are killed, or whose server is. Each sends,
// receives and completes, and writes a line to its standard output before and after:
//
//	send ID        before Send
//	sent ID        Send has confirmed it
//	got ID         Receive has returned it
//	completed ID   Settle has confirmed it
//
// A worker goes on when a call fails, until its input ends.
func init() {
	roles["worker"] = workerRole
}

// killLock is short, so that what a killed worker had comes back soon.
const killLock = 500 * time.Millisecond

func workerRole(in io.Reader, args []string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	rawURL, name := args[0], args[1]
	var b *postgresqueue.Broker
	var q driver.Queue
	for n := 0; ctx.Err() == nil; n++ {
		if q == nil {
			var err error
			if b, err = postgresqueue.Open(ctx, rawURL, nil); err != nil {
				say("failed", err.Error())
				continue // the server starts: connecting fails at once, or waits for it
			}
			if q, err = b.Open(ctx, "kill", nil); err != nil {
				say("failed", err.Error())
				q = nil
				_ = b.Close(context.Background())
				continue
			}
			defer func() { _ = b.Close(context.Background()) }()
		}
		work(ctx, q, fmt.Sprintf("%s.%d", name, n))
	}
	return nil
}

// work sends one message and completes up to two.
func work(ctx context.Context, q driver.Queue, id string) {
	m := &driver.Message{ID: id, Body: make([]byte, 200)}
	if n := len(id) % 3; n > 0 {
		m.SessionID = fmt.Sprint("session-", n)
	}
	say("send", id)
	if r := q.Send(ctx, []*driver.Message{m}); r[0].Err == nil {
		say("sent", id)
	} else {
		say("failed", r[0].Err.Error())
	}
	drain(ctx, q, say)
}

// say tells the test something, in one line.
func say(verb, what string) { fmt.Println(verb, strings.ReplaceAll(what, "\n", " ")) }

// drain receives once and completes what came.
func drain(ctx context.Context, q driver.Queue, tell func(verb, id string)) int {
	got, err := q.Receive(ctx, 2, 20*time.Millisecond)
	if err != nil {
		tell("failed", err.Error())
		return 0
	}
	for _, d := range got {
		tell("got", d.ID)
		if err := q.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]; err != nil {
			tell("failed", err.Error())
		} else {
			tell("completed", d.ID)
		}
	}
	return len(got)
}

// killLedger holds what the workers wrote.
type killLedger struct {
	mu        sync.Mutex // guards what follows
	tried     map[string]bool
	sent      map[string]bool
	got       map[string]bool
	completed map[string]bool
	over      bool // the workers have ended
	faults    []string
	failed    string // why a call failed, the last one
}

func newKillLedger() *killLedger {
	return &killLedger{tried: make(map[string]bool), sent: make(map[string]bool), got: make(map[string]bool), completed: make(map[string]bool)}
}

func (l *killLedger) tell(verb, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch verb {
	case "failed":
		l.failed = id
	case "send":
		l.tried[id] = true
	case "sent":
		l.sent[id] = true
	case "got":
		l.got[id] = true
		if l.over && l.completed[id] {
			l.faults = append(l.faults, "came back after it was completed: "+id)
		}
	case "completed":
		if l.completed[id] {
			l.faults = append(l.faults, "completed twice: "+id)
		}
		l.completed[id] = true
	}
}

func (l *killLedger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.completed)
}

// await returns when n more messages are completed.
func (l *killLedger) await(t *testing.T, n int, workers map[int]*killWorker) {
	t.Helper()
	const longest = 3 * time.Minute // a machine under load takes seconds
	begun := time.Now()
	for want := l.count() + n; l.count() < want; {
		time.Sleep(5 * time.Millisecond) // Real time: the workers are other processes.
		stuck := ""
		for i, w := range workers {
			select {
			case <-w.read:
				stuck = fmt.Sprintf("worker %d has ended by itself", i)
			default:
			}
		}
		if time.Since(begun) > longest {
			stuck = fmt.Sprintf("after %v", longest)
		}
		if stuck != "" {
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Fatalf("%s: %d messages are completed, %d are confirmed, want %d completed; the last call that failed: %s",
				stuck, len(l.completed), len(l.sent), want, l.failed)
		}
	}
}

// killWorker is a running worker.
type killWorker struct {
	command *exec.Cmd
	input   io.Closer
	read    chan struct{} // closed when everything that it wrote is in the ledger
}

func startWorker(t *testing.T, l *killLedger, rawURL, name string) *killWorker {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &killWorker{command: exec.Command(self, rawURL, name), read: make(chan struct{})}
	w.command.Env = append(os.Environ(), roleVariable+"=worker")
	w.command.Stderr = os.Stderr
	if w.input, err = w.command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := w.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.command.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			verb, id, whole := strings.Cut(lines.Text(), " ")
			if whole {
				l.tell(verb, id)
			}
		}
	}()
	return w
}

// end closes the worker's input, or kills it.
func (w *killWorker) end(kill bool) error {
	if kill {
		_ = w.command.Process.Kill()
	}
	_ = w.input.Close()
	<-w.read
	err := w.command.Wait()
	if kill {
		return nil
	}
	return err
}

// killRounds runs workers, and calls disturb so many times while they work.
func killRounds(t *testing.T, server *postgres.Server, rounds int, disturb func(pick func() *killWorker, replace func(*killWorker))) {
	ctx := context.Background()
	rawURL := fmt.Sprintf("%s?schema=kill%d&max_conns=2&timeout=2s", server.URL("postgres", "postgres"), schemas.Add(1))
	b := open(t, rawURL, nil)
	if err := b.Declare(ctx, "kill", &postgresqueue.QueueOptions{Lock: killLock, MaxDeliveries: -1}); err != nil {
		t.Fatal(err)
	}
	l := newKillLedger()
	workers := make(map[int]*killWorker)
	started := 0
	launch := func(i int) {
		workers[i] = startWorker(t, l, rawURL, fmt.Sprintf("w%d", started))
		started++
	}
	for i := range 3 {
		launch(i)
	}
	for range rounds {
		l.await(t, 5, workers)
		time.Sleep(rand.N(5 * time.Millisecond)) // Real time: the kill comes anywhere in their work.
		victim := rand.IntN(len(workers))
		disturb(func() *killWorker { return workers[victim] }, func(*killWorker) { launch(victim) })
	}
	for _, w := range workers {
		if err := w.end(false); err != nil {
			t.Errorf("a worker: %v", err)
		}
	}
	// Each connection of before the last kill fails once.
	q, err := b.Open(ctx, "kill", nil)
	for range 10 {
		if driver.KindOf(err) != driver.Unavailable {
			break
		}
		q, err = b.Open(ctx, "kill", nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.over = true
	// The rest, locks of the dead included.
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		n := drain(ctx, q, l.tell)
		if st, err := q.Stats(ctx); n == 0 && err == nil && st.Ready+st.InFlight+st.Scheduled == 0 {
			break
		}
	}
	l.verdict(t, q, b, server)
}

// verdict: every confirmed message was completed, none twice, and nothing is left.
func (l *killLedger) verdict(t *testing.T, q driver.Queue, b *postgresqueue.Broker, server *postgres.Server) {
	t.Helper()
	for _, f := range l.faults {
		t.Error(f)
	}
	// The answer to a Settle may be lost with its worker or its server: then the
	// message is gone and no line says that it is completed. But one says that it was
	// received.
	missing := 0
	for id := range l.sent {
		switch {
		case l.completed[id]:
		case l.got[id]:
			missing++
		default:
			t.Errorf("message %s was confirmed, and never received", id)
		}
	}
	st, err := q.Stats(context.Background())
	if err != nil || st.Ready+st.InFlight+st.Scheduled+st.DeadLetters != 0 {
		t.Errorf("the queue has %+v, %v, want nothing; the last call that failed: %s", st, err, l.failed)
	}
	c, err := pgx.Connect(context.Background(), server.URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	var messages, contents, sessions int
	err = c.QueryRow(context.Background(), fmt.Sprintf(`SELECT (SELECT count(*) FROM %[1]s.message), (SELECT count(*) FROM %[1]s.content), (SELECT count(*) FROM %[1]s.session)`,
		b.Schema())).Scan(&messages, &contents, &sessions)
	if err != nil || messages+contents+sessions != 0 {
		t.Errorf("%d messages, %d contents and %d sessions are left, %v; want none", messages, contents, sessions, err)
	}
	t.Logf("%d tried, %d confirmed, %d completed, %d gone without an answer", len(l.tried), len(l.sent), len(l.completed), missing)
}

// TestKillClients kills processes with SIGKILL while they send, receive and complete.
func TestKillClients(t *testing.T) {
	server := durableServer(t)
	rounds := soak(4, 100)
	killRounds(t, server, rounds, func(pick func() *killWorker, replace func(*killWorker)) {
		w := pick()
		_ = w.end(true)
		replace(w)
	})
}

// TestKillServer kills the server with SIGKILL while processes work, and starts it
// again.
func TestKillServer(t *testing.T) {
	server, err := postgres.Start(&postgres.Options{Durable: true})
	postgres.Require(t, err)
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	killRounds(t, server, soak(1, 100), func(func() *killWorker, func(*killWorker)) {
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
	})
}
