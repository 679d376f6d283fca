package book_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/examples/ledger/book"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// becomeVariable makes the test binary the program.
const becomeVariable = "LEDGER_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(becomeVariable) != "" {
		ctx, _ := service.Signals() //nolint:govet // the process ends with it
		service.Exit("ledger", book.Run(ctx, nil, os.Stderr))
		os.Exit(0)
	}
	code := m.Run()
	postgres.StopShared()
	os.Exit(code)
}

const paymentsQueue = "payments"

// size is how much of the proof to run: all of it with QRT_SOAK=1 (make soak).
func size() (payments, rounds int) {
	if os.Getenv("QRT_SOAK") == "1" {
		return 5000, 50
	}
	return 200, 5
}

// Ledgers are killed at random while payments come from a queue in PostgreSQL.
func TestKilledPostgres(t *testing.T) {
	server := postgres.Shared(t)
	execute(t, server, "postgres", `CREATE DATABASE broker_of_postgres`)
	killed(t, server, server.URL("postgres", "broker_of_postgres")+"?lock=1s&max_deliveries=1000000")
}

// The same from SQS, by fauxqs.
func TestKilledSQS(t *testing.T) {
	server := postgres.Shared(t)
	sqs, err := fauxqs.Start(nil)
	if errors.Is(err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sqs.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": os.DevNull} {
		t.Setenv(name, value)
	}
	createQueue(t, sqs.URL(), paymentsQueue+"-dead", nil)
	createQueue(t, sqs.URL(), paymentsQueue, map[string]string{"VisibilityTimeout": "2"})
	killed(t, server, "sqs://us-east-1/?dead_letter_suffix=-dead&poll=1s&endpoint="+sqs.URL())
}

// createQueue makes a queue by SQS's JSON protocol (API Reference, CreateQueue),
// unsigned: fauxqs does not look.
func createQueue(t *testing.T, endpoint, name string, attributes map[string]string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"QueueName": name, "Attributes": attributes})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+"/", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("X-Amz-Target", "AmazonSQS.CreateQueue")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("CreateQueue %s: %s %s, %v", name, answer.Status, text, err)
	}
}

// execute runs a statement in a database of the server.
func execute(t *testing.T, server *postgres.Server, database, statement string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), server.URL("postgres", database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	if _, err := c.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// number returns what a query counts, 0 while its table is not there.
func number(t *testing.T, c *pgx.Conn, query string) (n int) {
	t.Helper()
	err := c.QueryRow(context.Background(), query).Scan(&n)
	var missing interface{ SQLState() string }
	if errors.As(err, &missing) && missing.SQLState() == "42P01" {
		return 0
	}
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// sendPayments sends payments of 1 to n cents.
func sendPayments(t *testing.T, broker, keyURL string, n int) {
	t.Helper()
	set, err := connect.Open(t.Context(), connect.Config{Broker: broker, Keys: keyURL})
	if err != nil {
		t.Fatal(err)
	}
	o := queue.StrictSender(set.Keys)
	o.Logger = slog.New(slog.DiscardHandler)
	client, err := queue.New(set.Broker, o)
	if err != nil {
		t.Fatal(err)
	}
	sender, err := client.Sender(t.Context(), paymentsQueue, nil)
	if err != nil {
		t.Fatal(err)
	}
	for first := 1; first <= n; first += 10 {
		var batch []*queue.Message
		for i := first; i < first+10 && i <= n; i++ {
			body, err := json.Marshal(book.Payment{ID: fmt.Sprint(i), Account: fmt.Sprint("account-", i%7), Cents: int64(i)})
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, &queue.Message{Body: body})
		}
		if _, err := sender.SendBatch(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(client.Close(t.Context()), set.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// killed sends payments and kills two ledgers at random until all are posted. Then the
// database has each payment once, and the queue has none.
func killed(t *testing.T, server *postgres.Server, broker string) {
	payments, rounds := size()
	database := fmt.Sprintf("ledger_%d", rand.Uint32())
	execute(t, server, "postgres", `CREATE DATABASE `+database)
	key, err := keys.Generate("payments-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	err = keys.UpdateFile(path, func(s *keys.Set) error {
		s.Current, s.Keys = key.ID(), []*keys.Key{key}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	keyURL := "file://" + filepath.ToSlash(path)
	sendPayments(t, broker, keyURL, payments)

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	logs := newLogs(t)
	start := func() *exec.Cmd {
		c := exec.Command(self)
		c.Env = append(os.Environ(), becomeVariable+"=1", "BROKER_URL="+broker, "QUEUE="+paymentsQueue, "KEYS_URL="+keyURL,
			"DATABASE_URL="+server.URL("postgres", database), "LOG_LEVEL=WARN")
		c.Stderr = logs.next()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c, err := pgx.Connect(t.Context(), server.URL("postgres", database))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	const postings = `SELECT count(*) FROM posting`
	ledgers := []*exec.Cmd{start(), start()}
	defer func() {
		for _, l := range ledgers {
			_ = l.Process.Kill()
			_ = l.Wait() // it was killed
		}
	}()
	kills := 0
	for end := time.Now().Add(time.Duration(payments)*100*time.Millisecond + 2*time.Minute); ; {
		done := number(t, c, postings)
		if done >= payments {
			break
		}
		if time.Now().After(end) {
			stats, err := inQueue(t.Context(), broker)
			t.Fatalf("%d of %d payments are posted after %d kills; the queue has %+v, %v", done, payments, kills, stats, err)
		}
		if kills < rounds && done >= kills*payments/rounds {
			time.Sleep(rand.N(50 * time.Millisecond)) // Real time: the kill comes anywhere in their work.
			victim := rand.IntN(len(ledgers))
			_ = ledgers[victim].Process.Kill()
			_ = ledgers[victim].Wait() // it was killed
			ledgers[victim] = start()
			kills++
			continue
		}
		time.Sleep(10 * time.Millisecond) // Real time: the ledgers are other processes.
	}
	empty(t, broker)
	sum := payments * (payments + 1) / 2
	for query, want := range map[string]int{
		postings: payments,
		`SELECT count(DISTINCT payment) FROM posting`: payments,
		`SELECT sum(cents)::bigint FROM posting`:      sum,
		`SELECT sum(cents)::bigint FROM account`:      sum,
		`SELECT count(*) FROM account`:                7,
	} {
		if got := number(t, c, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
	t.Logf("%d payments, %d kills", payments, kills)
}

// logs are those of the ledgers, each in a file. A test that failed shows how they end.
type logs struct {
	t     *testing.T
	files []*os.File
}

func newLogs(t *testing.T) *logs {
	l := &logs{t: t}
	t.Cleanup(l.end)
	return l
}

// next returns the file of the next ledger.
func (l *logs) next() *os.File {
	l.t.Helper()
	f, err := os.Create(filepath.Join(l.t.TempDir(), "log"))
	if err != nil {
		l.t.Fatal(err)
	}
	l.files = append(l.files, f)
	return f
}

// end runs after the ledgers have ended.
func (l *logs) end() {
	const lines = 20 // for each of the rounds
	for i, f := range l.files {
		_ = f.Close() // the ledger has written it
		if !l.t.Failed() {
			continue
		}
		text, err := os.ReadFile(f.Name())
		all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		l.t.Logf("ledger %d, the end of %d lines, %v:\n%s", i, len(all), err, bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
	}
}

// inQueue returns what the queue has.
func inQueue(ctx context.Context, broker string) (s driver.Stats, err error) {
	b, err := connect.OpenBroker(ctx, broker)
	if err != nil {
		return s, err
	}
	defer func() { _ = b.Close(ctx) }() // nothing was received
	q, err := b.Open(ctx, paymentsQueue, nil)
	if err != nil {
		return s, err
	}
	return q.Stats(ctx)
}

// empty waits until the queue has no message, and fails if one became a dead letter.
func empty(t *testing.T, broker string) {
	t.Helper()
	b, err := connect.OpenBroker(t.Context(), broker)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close(context.Background()) }()
	q, err := b.Open(t.Context(), paymentsQueue, nil)
	if err != nil {
		t.Fatal(err)
	}
	var s driver.Stats
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if s, err = q.Stats(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.Ready+s.InFlight+s.Scheduled == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond) // Real time: the ledgers complete what comes again.
	}
	if s.Ready+s.InFlight+s.Scheduled+s.DeadLetters != 0 {
		t.Errorf("the queue has %+v, want nothing", s)
	}
}
