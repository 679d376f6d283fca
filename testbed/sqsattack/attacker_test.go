package sqsattack_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/awspeer"
	"github.com/queue-runtime/queue/testbed/sqsattack"
)

var (
	_ drivertest.Attacker = (*sqsattack.Attacker)(nil)
	_ sqsattack.API       = (*sqs.Client)(nil)
)

func TestMain(m *testing.M) {
	code := m.Run()
	awspeer.Stop()
	os.Exit(code)
}

// connect returns a client of fauxqs.
func connect(t *testing.T) *sqs.Client {
	t.Helper()
	return sqs.NewFromConfig(awspeer.Config(awspeer.Fauxqs(t)), func(o *sqs.Options) {
		o.HTTPClient = plainBodies{o.HTTPClient}
	})
}

// plainBodies hides that the SDK's request bodies have a WriteTo, because of which a busy
// client can lose an answer, and the messages in it until their lock is over.
type plainBodies struct{ sqs.HTTPClient }

func (p plainBodies) Do(r *http.Request) (*http.Response, error) {
	r.Body = struct{ io.ReadCloser }{r.Body}
	return p.HTTPClient.Do(r)
}

// create makes an SQS queue and returns its URL.
func create(t *testing.T, client *sqs.Client, name string, attributes map[string]string) *string {
	t.Helper()
	out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(name), Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	return out.QueueUrl
}

// TestOrder: in a FIFO queue, where a message blocks the next of its group, the
// attacker finds all messages, keeps their order, and changes one alone.
func TestOrder(t *testing.T) {
	client := connect(t)
	a := sqsattack.New(client)
	name := "order-" + rand.Text()
	create(t, client, name+".fifo", map[string]string{"FifoQueue": "true"})
	var want []driver.Message
	for i := range 25 { // of three groups, and more than one request takes
		want = append(want, driver.Message{
			ID: fmt.Sprint(i), SessionID: fmt.Sprint("s", i%3), CorrelationID: "c", ContentType: "text/plain",
			Body: fmt.Appendf(nil, "body %d", i), Attributes: map[string]string{"n": fmt.Sprint(i)},
		})
	}
	if err := a.Rewrite(t.Context(), name, func(all []driver.Message) []driver.Message { return append(all, want...) }); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		got, err := a.Read(t.Context(), name)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d messages and %v, want %d messages", len(got), err, len(want))
		}
		last := make(map[string]int)
		for _, m := range got {
			i := slices.IndexFunc(want, func(w driver.Message) bool { return w.ID == m.ID })
			if i < 0 {
				t.Fatalf("found message %q", m.ID)
			}
			if d := drivertest.Difference(&want[i], &m); d != "" || m.Sealed != want[i].Sealed {
				t.Errorf("message %s: %s", m.ID, d)
			}
			if before, ok := last[m.SessionID]; ok && before > i {
				t.Errorf("message %d of session %s comes after %d", i, m.SessionID, before)
			}
			last[m.SessionID] = i
		}
	}
	check()
	check() // Read changed nothing
	want[4].Body, want[5].Body, want[5].Sealed, want[6].Body = nil, []byte{0, 255}, true, []byte("\x00 not sealed")
	err := a.Rewrite(t.Context(), name, func(all []driver.Message) []driver.Message {
		for i := range all {
			for _, w := range want[4:7] {
				if all[i].ID == w.ID {
					all[i] = w
				}
			}
		}
		return all
	})
	if err != nil {
		t.Fatal(err)
	}
	check()
	if _, err := a.Read(t.Context(), "never-created"); err == nil {
		t.Error("a queue that does not exist was read")
	}
}

// TestCancelled: if the context ends while the attacker waits for a held message,
// the messages that it removed are stored again.
func TestCancelled(t *testing.T) {
	client := connect(t)
	a := sqsattack.New(client)
	name := "cancelled-" + rand.Text()
	url := create(t, client, name, nil)
	err := a.Rewrite(t.Context(), name, func([]driver.Message) []driver.Message {
		return []driver.Message{{ID: "1", Body: []byte("one")}, {ID: "2", Body: []byte("two")}}
	})
	if err != nil {
		t.Fatal(err)
	}
	held, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: url, MaxNumberOfMessages: 1, VisibilityTimeout: 600})
	if err != nil || len(held.Messages) != 1 {
		t.Fatalf("%+v, %v; want one message", held, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := a.Read(ctx, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an ended context: %v", err)
	}
	if got, err := a.Read(t.Context(), name); err != nil || len(got) != 1 {
		t.Errorf("%d messages, %v", len(got), err)
	}
}
