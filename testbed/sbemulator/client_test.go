package sbemulator_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// start runs an emulator with one queue, "q", and sees to it that it leaves no
// goroutine.
func start(t *testing.T, o *sbemulator.Options, q *sbemulator.QueueOptions) *sbemulator.Server {
	t.Helper()
	s, err := sbemulator.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		noGoroutines(t)
	})
	if err := s.CreateQueue("q", q); err != nil {
		t.Fatal(err)
	}
	return s
}

// noGoroutines fails t where one of the emulator's is left. Other tests must not
// run beside it. A goroutine that has said that it is done may take a moment to
// be gone.
func noGoroutines(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	var left string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		left = ""
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "sbemulator.(*") {
				left = g
			}
		}
		if left == "" {
			return
		}
	}
	t.Errorf("a goroutine is left after Close:\n%s", left)
}

// quick are retry options with which a test that expects an error has it soon.
var quick = azservicebus.RetryOptions{MaxRetries: 2, RetryDelay: time.Millisecond, MaxRetryDelay: 5 * time.Millisecond}

func connect(t *testing.T, s *sbemulator.Server) *azservicebus.Client {
	t.Helper()
	c, err := azservicebus.NewClientFromConnectionString(s.ConnectionString(), &azservicebus.ClientOptions{RetryOptions: quick})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	return c
}

// patience is how long what should succeed may take.
const patience = time.Minute

// within is a context for what should succeed.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// briefly is a context for what should fail. The client retries what it takes
// for transient after seconds, whatever its retry options say of settlements.
func briefly(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func send(t *testing.T, c *azservicebus.Client, queue string, messages ...*azservicebus.Message) {
	t.Helper()
	ctx := within(t)
	sender := must[*azservicebus.Sender](t)(c.NewSender(queue, nil))
	for _, m := range messages {
		if err := sender.SendMessage(ctx, m, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := sender.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func text(body string) *azservicebus.Message { return &azservicebus.Message{Body: []byte(body)} }

func inSession(session, body string) *azservicebus.Message {
	return &azservicebus.Message{Body: []byte(body), SessionID: to.Ptr(session)}
}

// source is what messages are received from and settled through.
type source interface {
	ReceiveMessages(context.Context, int, *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
	CompleteMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.CompleteMessageOptions) error
	AbandonMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.AbandonMessageOptions) error
	DeadLetterMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.DeadLetterOptions) error
	DeferMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.DeferMessageOptions) error
	ReceiveDeferredMessages(context.Context, []int64, *azservicebus.ReceiveDeferredMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
	PeekMessages(context.Context, int, *azservicebus.PeekMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
}

// one receives exactly one message.
func one(t *testing.T, r source) *azservicebus.ReceivedMessage {
	t.Helper()
	return many(t, r, 1)[0]
}

// many receives exactly n messages.
func many(t *testing.T, r source, n int) []*azservicebus.ReceivedMessage {
	t.Helper()
	ctx := within(t)
	// All by one call, if they come: the client gives back what comes between two, and what
	// is behind it comes first.
	o := &azservicebus.ReceiveMessagesOptions{TimeAfterFirstMessage: patience}
	var out []*azservicebus.ReceivedMessage
	for len(out) < n {
		m, err := r.ReceiveMessages(ctx, n-len(out), o)
		if err != nil {
			t.Fatalf("%d of %d messages: %v", len(out), n, err)
		}
		out = append(out, m...)
	}
	return out
}

// none fails t when a message comes within a short time.
func none(t *testing.T, r source) {
	t.Helper()
	// Has the links attached first, which may take longer than that.
	if _, err := r.PeekMessages(within(t), 1, &azservicebus.PeekMessagesOptions{FromSequenceNumber: to.Ptr(int64(1))}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	m, err := r.ReceiveMessages(ctx, 1, nil)
	if len(m) > 0 {
		t.Fatalf("received %q", m[0].Body)
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
}

func receiver(t *testing.T, c *azservicebus.Client, queue string, o *azservicebus.ReceiverOptions) *azservicebus.Receiver {
	t.Helper()
	return must[*azservicebus.Receiver](t)(c.NewReceiverForQueue(queue, o))
}

var (
	deadLetters = &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter}
	destructive = &azservicebus.ReceiverOptions{ReceiveMode: azservicebus.ReceiveModeReceiveAndDelete}
)

// wantCode fails t unless err is an *azservicebus.Error of that code.
func wantCode(t *testing.T, err error, code azservicebus.Code) {
	t.Helper()
	var e *azservicebus.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error %v, want code %s", err, code)
	}
}

// wantCondition fails t unless err carries that AMQP condition.
func wantCondition(t *testing.T, err error, condition string) {
	t.Helper()
	var e *amqp.Error
	if !errors.As(err, &e) || string(e.Condition) != condition {
		t.Errorf("error %v, want condition %s", err, condition)
	}
}

func wantStored(t *testing.T, s *sbemulator.Server, path string, n int) []sbemulator.Message {
	t.Helper()
	m := must[[]sbemulator.Message](t)(s.Messages(path))
	if len(m) != n {
		t.Errorf("%s holds %d messages, want %d", path, len(m), n)
	}
	return m
}

func number(i int) string { return fmt.Sprintf("%04d", i) }
