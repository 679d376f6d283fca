package router

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/examples/internal/hooks"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// startSQS starts an emulator of SQS with FIFO queues, and opens it.
func startSQS(t *testing.T, queues ...string) *queuetest.Proxy {
	t.Helper()
	server, err := fauxqs.Start(nil)
	if errors.Is(err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	const region, key, words = "us-east-1", "test", "test-secret-of-forty-characters-as-of-aws"
	client := sqs.New(sqs.Options{
		Region: region, BaseEndpoint: aws.String(server.URL()), Credentials: credentials.NewStaticCredentialsProvider(key, words, ""),
	})
	for _, name := range queues {
		if _, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{"FifoQueue": "true"}}); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("AWS_ACCESS_KEY_ID", key)
	t.Setenv("AWS_SECRET_ACCESS_KEY", words)
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	broker, err := connect.OpenBroker(t.Context(), "sqs://"+region+"/?endpoint="+server.URL())
	if err != nil {
		t.Fatal(err)
	}
	return queuetest.Wrap(broker, 1)
}

// With a database the router takes webhooks while SQS is away, and GitHub's repeats of
// them. Each goes to its bot once, in the order of its pull request or issue.
func TestOutbox(t *testing.T) {
	server, err := postgres.Start(nil)
	postgres.Require(t, err)
	t.Cleanup(func() { _ = server.Close() })
	f := &fixture{TB: t}
	f.config, f.keys = newConfig(t)
	c := f.config
	c.Database = server.URL("postgres", "postgres")
	c.PullRequestQueue, c.IssueQueue, c.PushQueue = "task-tactician.fifo", "merge-warden.fifo", "spec-sentinel.fifo"
	f.broker = startSQS(t, c.PullRequestQueue, c.IssueQueue, c.PushQueue)
	if f.telemetry, err = service.NewTelemetryWith(nil); err != nil {
		t.Fatal(err)
	}
	f.start(f.broker, slog.New(slog.DiscardHandler))

	f.broker.Inject(queuetest.Fault{On: queuetest.Send, Err: queuetest.Unavailable()})
	all, err := hooks.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string][]string) // GUIDs by session, in order
	for range 2 {                     // GitHub repeats what it was not told in time
		for i := range all {
			if a := f.post(&all[i]); a.Status != http.StatusAccepted {
				t.Fatalf("%s while SQS is away: %d %s", all[i].Event, a.Status, a.Text)
			}
		}
	}
	for i := range all {
		session, err := sessionOf(all[i].Body, all[i].Delivery)
		if err != nil {
			t.Fatal(err)
		}
		session = c.targets()[routeOf(all[i].Event)].queue + " " + session
		want[session] = append(want[session], all[i].Delivery)
	}
	f.await(`queue_depth{queue="outbox:` + c.PushQueue + `",state="ready"}`)
	f.broker.Heal()

	got, bodies := make(map[string][]string), make(map[string]string)
	for _, to := range c.targets() {
		f.receiveAll(to.queue, func(d *queue.Delivery) {
			session := to.queue + " " + d.SessionID
			got[session], bodies[d.ID] = append(got[session], d.ID), string(d.Body)
		}, func() bool {
			n := 0
			for session, ids := range want {
				if strings.HasPrefix(session, to.queue) {
					n += len(ids) - len(got[session])
				}
			}
			return n <= 0
		})
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("the bots got %v\nwant %v", got, want)
	}
	for i := range all {
		if bodies[all[i].Delivery] != string(all[i].Body) {
			t.Errorf("the body of %s is not what GitHub sent", all[i].Event)
		}
	}
}

// receiveAll takes what comes to a queue until done says so.
func (f *fixture) receiveAll(name string, each func(*queue.Delivery), done func() bool) {
	f.Helper()
	c := f.client(strings.TrimSuffix(name, ".fifo"))
	r, err := c.Receiver(f.Context(), name, &queue.ReceiverOptions{Wait: time.Second})
	if err != nil {
		f.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(deadline) {
			f.Errorf("%s: not everything came within a minute", name)
			return
		}
		some, err := r.Receive(f.Context(), 10)
		if err != nil && !errors.Is(err, queue.ErrNoMessage) {
			f.Fatal(err)
		}
		for _, d := range some {
			each(d)
			if err := d.Complete(context.Background()); err != nil {
				f.Fatal(err)
			}
		}
	}
}

// A database keeps sealed webhooks only.
func TestOutboxNeedsEncryption(t *testing.T) {
	t.Parallel()
	c, _ := newConfig(t)
	c.Database, c.Encrypt = "postgres://u@127.0.0.1/db", false
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "DATABASE_URL needs ENCRYPT=true") {
		t.Error(err)
	}
}
