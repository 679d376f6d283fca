package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	qrt "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/aws/internal/profile"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/testbed/awspeer"
	"github.com/queue-runtime/queue/worker"
)

// What befalls applications: a pool or a sender over the driver and the SDK, both with their
// own settings, and a service that fails as SQS and the networks before it do.

// local answers the SDK's requests in its own process: in a bubble of testing/synctest time
// goes on while a request has no answer.
type local struct{ *wire }

func (l local) Do(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	l.ServeHTTP(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// field is an application's end of SQS, inside a bubble.
type field struct {
	*testing.T
	sqs  *fakeSQS
	wire *wire
}

func inField(t *testing.T, f func(x *field)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newFakeSQS()
		t.Cleanup(s.polls.Wait) // the last of the cleanups
		f(&field{t, s, &wire{fake: s, count: make(map[string]int)}})
	})
}

func (x *field) must(err error) {
	x.Helper()
	if err != nil {
		x.Fatal(err)
	}
}

// over returns a client over this configuration of the SDK; nil is one with its own retries.
func (x *field) over(cfg *aws.Config, o *Options) *qrt.Client {
	x.Helper()
	if cfg == nil {
		c := awspeer.Config("http://sqs.invalid")
		c.Retryer = nil
		cfg = &c
	}
	cfg.HTTPClient = local{x.wire}
	if o == nil {
		o = &Options{}
	}
	x.must(o.validate())
	return client(x.T, newFromConfig(*cfg, o, httpclient.AttemptTime), newRing(x.T))
}

// broker is a Broker whose attempts last so long, with the SDK's own retries.
func (x *field) broker(attempt time.Duration) *Broker {
	x.Helper()
	cfg := awspeer.Config("http://sqs.invalid")
	cfg.Retryer, cfg.HTTPClient = nil, local{x.wire}
	p := newFromConfig(cfg, &Options{Poll: time.Second}, attempt)
	x.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			x.Errorf("close: %v", err)
		}
	})
	return p
}

func (x *field) receiver(c *qrt.Client, name string) *qrt.Receiver {
	x.Helper()
	r, err := c.Receiver(x.Context(), name, nil)
	x.must(err)
	return r
}

func (x *field) send(c *qrt.Client, name string, ids ...string) {
	x.Helper()
	s, err := c.Sender(x.Context(), name, nil)
	x.must(err)
	for _, id := range ids {
		_, err = s.Send(x.Context(), &qrt.Message{ID: id, Body: []byte("body of " + id)})
		x.must(err)
	}
}

// run runs a pool over these receivers until the test ends. What Run returns comes on done.
func (x *field) run(h worker.HandlerFunc, po *worker.Options, ho *worker.HandleOptions, all ...*qrt.Receiver) (done <-chan error) {
	x.Helper()
	p, err := worker.New(po)
	x.must(err)
	for _, r := range all {
		x.must(p.Handle(r, h, ho))
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() { ended <- p.Run(ctx) })
	x.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return ended
}

// within waits until ok, for d at most, and reports how long that took.
func (x *field) within(d time.Duration, ok func() bool) (took time.Duration, was bool) {
	x.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) >= d {
			return d, false
		}
		<-time.After(100 * time.Millisecond)
	}
	return time.Since(begin), true
}

// empty reports whether all messages of a queue are settled.
func (x *field) empty(name string) func() bool {
	return func() bool { return len(x.sqs.depth(name)) == 0 }
}

// A renewal that nothing answers costs no lock: the handler outlasts it, and no other call has
// the message.
func TestRenewalWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("q", map[string]string{"VisibilityTimeout": "8"})
		c := x.over(nil, nil)
		x.send(c, "q", "m")
		x.wire.before = hang("ChangeMessageVisibilityBatch", 1)
		var calls atomic.Int64
		x.run(func(ctx context.Context, _ *qrt.Delivery) error {
			calls.Add(1)
			select {
			case <-time.After(14 * time.Second):
				return nil
			case <-ctx.Done():
				x.Errorf("the handler was cancelled: %v", context.Cause(ctx))
				return ctx.Err()
			}
		}, nil, nil, x.receiver(c, "q"))
		if _, ok := x.within(30*time.Second, x.empty("q")); !ok || calls.Load() != 1 || x.wire.seen("ChangeMessageVisibilityBatch") < 2 {
			x.Errorf("settled: %t, handled %d times, %d renewals", ok, calls.Load(), x.wire.seen("ChangeMessageVisibilityBatch"))
		}
	})
}

// A completion that nothing answers is made again before the lock is over.
func TestCompletionWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for _, lock := range []string{"10", "30"} {
		inField(t, func(x *field) {
			x.sqs.create("q", map[string]string{"VisibilityTimeout": lock})
			c := x.over(nil, nil)
			x.send(c, "q", "m")
			x.wire.before = hang("DeleteMessageBatch", 1)
			var calls atomic.Int64
			x.run(func(context.Context, *qrt.Delivery) error {
				calls.Add(1)
				return nil
			}, &worker.Options{OnError: func(_ context.Context, _ *qrt.Delivery, err error) { x.Errorf("OnError: %v", err) }}, nil, x.receiver(c, "q"))
			took, ok := x.within(45*time.Second, x.empty("q"))
			<-time.After(45 * time.Second) // for another delivery
			if !ok || took > 10*time.Second || calls.Load() != 1 {
				x.Errorf("lock of %s s: settled %t after %s, handled %d times", lock, ok, took, calls.Load())
			}
		})
	}
}

// A retry with a delay of a second comes within seconds, although nothing answers the first
// request that gives the message back.
func TestRetryWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("q", map[string]string{"VisibilityTimeout": "40"})
		c := x.over(nil, nil)
		x.send(c, "q", "m")
		x.wire.before = hang("ChangeMessageVisibilityBatch", 1)
		var calls atomic.Int64
		x.run(func(context.Context, *qrt.Delivery) error {
			if calls.Add(1) == 1 {
				return worker.RetryAfter(errors.New("not now"), time.Second)
			}
			return nil
		}, nil, nil, x.receiver(c, "q"))
		if took, ok := x.within(20*time.Second, x.empty("q")); !ok || calls.Load() != 2 {
			x.Errorf("settled: %t after %s, handled %d times; want 2", ok, took, calls.Load())
		}
	})
}

// A message is sent although nothing answers the first request, by a Sender without a deadline
// and by a Batcher.
func TestSendBesideASilentConnection(t *testing.T) {
	t.Parallel()
	for _, batcher := range []bool{false, true} {
		inField(t, func(x *field) {
			x.sqs.create("q", nil)
			s, err := x.over(nil, nil).Sender(x.Context(), "q", nil)
			x.must(err)
			x.wire.before = hang("SendMessageBatch", 1)
			send := s.Send
			if batcher {
				b, err := qrt.NewBatcher(s, nil)
				x.must(err)
				defer func() { x.must(b.Close(x.Context())) }()
				send = b.Send
			}
			begin := time.Now()
			_, err = send(x.Context(), &qrt.Message{Body: []byte("x")})
			if took := time.Since(begin); err != nil || took > 10*time.Second || len(x.sqs.depth("q")) != 1 {
				x.Errorf("batcher %t: %v after %s, %d stored", batcher, err, took, len(x.sqs.depth("q")))
			}
		})
	}
}

// A token that runs out between a handler and its completion has nothing handled again.
func TestTokenThatRunsOut(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("q", map[string]string{"VisibilityTimeout": "10"})
		c := x.over(nil, &Options{Poll: time.Second})
		x.send(c, "q", "m")
		x.wire.before = func(w http.ResponseWriter, _ *http.Request, action string, n int) bool {
			if action != "DeleteMessageBatch" || n > 1 {
				return true
			}
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"__type":"com.amazon.coral.service#ExpiredToken","message":"The security token included in the request is expired"}`)
			return false
		}
		var calls atomic.Int64
		x.run(func(context.Context, *qrt.Delivery) error {
			calls.Add(1)
			return nil
		}, nil, nil, x.receiver(c, "q"))
		_, ok := x.within(30*time.Second, x.empty("q"))
		<-time.After(30 * time.Second)
		if !ok || calls.Load() != 1 || x.wire.seen("DeleteMessageBatch") != 2 {
			x.Errorf("settled: %t, handled %d times, %d deletions", ok, calls.Load(), x.wire.seen("DeleteMessageBatch"))
		}
	})
}

// A queue that is deleted leaves the pool's other queue at work, by option. One answer that it is
// not there ends nothing.
func TestQueueThatIsDeleted(t *testing.T) {
	t.Parallel()
	for _, deleted := range []bool{true, false} {
		inField(t, func(x *field) {
			x.sqs.create("a", nil)
			x.sqs.create("b", nil)
			c := x.over(nil, &Options{Poll: time.Second})
			handled := make(chan string, 10)
			var missing atomic.Bool // for one answer
			x.wire.before = func(w http.ResponseWriter, _ *http.Request, action string, _ int) bool {
				if action != "ReceiveMessage" || !missing.Swap(false) {
					return true
				}
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}`)
				return false
			}
			done := x.run(func(_ context.Context, d *qrt.Delivery) error {
				handled <- d.Queue
				return nil
			}, &worker.Options{ContinueOnError: deleted}, nil, x.receiver(c, "a"), x.receiver(c, "b"))
			<-time.After(time.Second)
			want := []string{"b"}
			if deleted {
				x.sqs.remove("a")
			} else {
				missing.Store(true)
				want = append(want, "a")
			}
			<-time.After(5 * time.Minute)
			for _, q := range want {
				x.send(c, q, "m")
				if took, ok := x.within(5*time.Second, func() bool { return len(handled) > 0 }); !ok {
					x.Fatalf("deleted %t: queue %s is not served after %s", deleted, q, took)
				} else if got := <-handled; got != q {
					x.Errorf("handled a message of %s, want %s", got, q)
				}
			}
			if missing.Load() {
				x.Error("no receiver was told that its queue is not there")
			}
			if len(done) > 0 {
				x.Errorf("deleted %t: Run has ended: %v", deleted, <-done)
			}
		})
	}
}

// deadLettersBeside names a dead-letter queue for queues without a redrive policy.
func deadLettersBeside(q string) string { return q + "-dead" }

// A message that ended fifty processes on a queue without a redrive policy is a dead letter before
// its handler runs once more.
func TestPoisonWithoutARedrivePolicy(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("q", map[string]string{"VisibilityTimeout": "1"})
		x.sqs.create("q-dead", nil)
		c := x.over(nil, &Options{Poll: time.Second, DeadLetterQueue: deadLettersBeside})
		x.send(c, "q", "m")
		x.sqs.mu.Lock()
		x.sqs.queues["q"].messages[0].receives = 50
		x.sqs.mu.Unlock()
		x.run(func(_ context.Context, d *qrt.Delivery) error {
			x.Errorf("the handler was called at delivery %d", d.Count)
			return nil
		}, nil, &worker.HandleOptions{MaxDeliveries: 5}, x.receiver(c, "q"))
		if _, ok := x.within(10*time.Second, x.empty("q")); !ok || len(x.sqs.depth("q-dead")) != 1 {
			x.Errorf("settled: %t, %d dead letters", ok, len(x.sqs.depth("q-dead")))
		}
	})
}

// A handler that ignores its context, and outlasts MaxProcessing and its lock, keeps its message as
// long as it runs: it is not begun again, let alone for ever.
func TestHandlerThatTakesTooLong(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("q", map[string]string{"VisibilityTimeout": "2"})
		x.sqs.create("q-dead", nil)
		c := x.over(nil, &Options{Poll: time.Second, DeadLetterQueue: deadLettersBeside})
		x.send(c, "q", "m")
		var calls atomic.Int64
		x.run(func(context.Context, *qrt.Delivery) error {
			calls.Add(1)
			<-time.After(5 * time.Second)
			return nil
		}, &worker.Options{DrainTimeout: time.Second, CancelGrace: time.Second}, &worker.HandleOptions{MaxProcessing: time.Second, MaxDeliveries: 3}, x.receiver(c, "q"))
		_, ok := x.within(25*time.Second, x.empty("q"))
		<-time.After(time.Minute)
		if !ok || calls.Load() != 1 || len(x.sqs.depth("q-dead")) != 0 {
			x.Errorf("settled: %t, begun %d times, %d dead letters", ok, calls.Load(), len(x.sqs.depth("q-dead")))
		}
	})
}

// Ten messages that SQS takes one by one are sent over a service that takes less in one request
// than the queue's own limit says.
func TestBatchBeyondTheServicesLimit(t *testing.T) {
	t.Parallel()
	for _, told := range []bool{true, false} {
		inField(t, func(x *field) {
			x.sqs.batchLimit = 256 << 10
			x.sqs.create("q", nil)
			if told {
				x.sqs.create("q", map[string]string{"MaximumMessageSize": "262144"})
			}
			s, err := x.over(nil, nil).Sender(x.Context(), "q", nil)
			x.must(err)
			var all []*qrt.Message
			for range 10 {
				all = append(all, &qrt.Message{Body: make([]byte, 60<<10)})
			}
			if _, err := s.SendBatch(x.Context(), all); err != nil || len(x.sqs.depth("q")) != 10 {
				x.Errorf("the queue tells of its limit: %t: %v, %d of 10 stored", told, err, len(x.sqs.depth("q")))
			}
		})
	}
}

// The first message of a session is refused for a passing reason, in a call of a Batcher that
// could have taken all: the session is read in order all the same.
func TestBatcherKeepsAGroupInOrder(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("f.fifo", nil)
		c := x.over(nil, nil)
		s, err := c.Sender(x.Context(), "f", nil)
		x.must(err)
		refused := 0
		x.sqs.refuse = func(action, _ string) string {
			if action == "SendMessageBatch" && refused == 0 {
				refused++
				return "InternalError"
			}
			return ""
		}
		b, err := qrt.NewBatcher(s, &qrt.BatcherOptions{Linger: 200 * time.Millisecond})
		x.must(err)
		var want []string
		for i := range 5 {
			want = append(want, fmt.Sprint("m-", i))
			x.must(b.SendAsync(x.Context(), &qrt.Message{ID: want[i], SessionID: "s", Body: []byte("x")}, func(r qrt.SendResult) {
				if r.Err != nil {
					x.Errorf("%s: %v", r.MessageID, r.Err)
				}
			}))
		}
		x.must(b.Flush(x.Context()))
		x.must(b.Close(x.Context()))
		r := x.receiver(c, "f")
		var got []string
		for range want {
			d, err := r.ReceiveOne(x.Context())
			x.must(err)
			got = append(got, d.ID)
			x.must(d.Complete(x.Context()))
		}
		if !slices.Equal(got, want) || refused != 1 {
			x.Errorf("the session reads %v, %d refused", got, refused)
		}
	})
}

// After a service that answered 503 for six seconds, receiving is back within seconds.
func TestShortOutage(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("q", nil)
		c := x.over(nil, &Options{Poll: time.Second})
		var down atomic.Bool
		x.wire.before = func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
			if down.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return !down.Load()
		}
		x.run(func(context.Context, *qrt.Delivery) error { return nil }, nil, nil, x.receiver(c, "q"))
		<-time.After(1500 * time.Millisecond)
		down.Store(true)
		<-time.After(6 * time.Second)
		down.Store(false)
		x.send(c, "q", "m")
		if took, ok := x.within(time.Minute, x.empty("q")); !ok || took > 10*time.Second {
			x.Errorf("handled: %t, %s after an outage of 6 s", ok, took)
		}
	})
}

// Access keys that are rotated by replacing the credentials file, as that of a mounted secret, are
// used within a minute, by a sender and by a receiver that were there before.
func TestRotatedCredentialsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	for name, value := range map[string]string{
		"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_CONFIG_FILE": file + "-none", "AWS_PROFILE": "", "AWS_ACCESS_KEY_ID": "",
		"AWS_SECRET_ACCESS_KEY": "", "AWS_SESSION_TOKEN": "", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	inField(t, func(x *field) {
		rotate := func(id string) {
			x.must(os.WriteFile(file, []byte("[default]\naws_access_key_id = "+id+"\naws_secret_access_key = secret\n"), 0o600))
		}
		var valid atomic.Value
		valid.Store("KEYONE")
		x.wire.before = func(w http.ResponseWriter, r *http.Request, _ string, _ int) bool {
			if strings.Contains(r.Header.Get("Authorization"), "Credential="+valid.Load().(string)+"/") {
				return true
			}
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"__type":"com.amazon.coral.service#InvalidClientTokenId","message":"The security token included in the request is invalid."}`)
			return false
		}
		rotate("KEYONE")
		cfg, err := profile.Load(x.Context(), "us-east-1")
		x.must(err)
		cfg.BaseEndpoint = aws.String("http://sqs.invalid")
		x.sqs.create("q", map[string]string{"VisibilityTimeout": "5"})
		c := x.over(&cfg, &Options{Poll: time.Second})
		s, err := c.Sender(x.Context(), "q", nil)
		x.must(err)
		var calls atomic.Int64
		x.run(func(context.Context, *qrt.Delivery) error {
			calls.Add(1)
			return nil
		}, nil, nil, x.receiver(c, "q"))
		x.send(c, "q", "m-0")
		if _, ok := x.within(5*time.Second, x.empty("q")); !ok {
			x.Fatal("not even before")
		}
		rotate("KEYTWO")
		<-time.After(2 * time.Second)
		valid.Store("KEYTWO")
		took, sent := x.within(time.Minute, func() bool {
			_, err = s.Send(x.Context(), &qrt.Message{ID: "m-1", Body: []byte("x")})
			return err == nil
		})
		if !sent {
			x.Fatalf("not sent within %s of the rotation: %v", took, err)
		}
		if took, ok := x.within(time.Minute, x.empty("q")); !ok || calls.Load() != 2 {
			x.Errorf("received: %t after %s, handled %d; want 2", ok, took, calls.Load())
		}
	})
}

// SQS gives out no letter of a FIFO queue while an earlier one of its session is held. A selection
// that passes letters over says so, and how the rest can be reached: a session at a time, or all.
func TestSelectionOfOrderedDeadLetters(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("q-dead.fifo", nil)
		x.sqs.create("q.fifo", fakeRedrive("q-dead.fifo", 100))
		c := x.over(nil, &Options{Poll: time.Second})
		s, err := c.Sender(x.Context(), "q", nil)
		x.must(err)
		r := x.receiver(c, "q")
		const letters, sessions = 60, 3
		for i := range letters {
			_, err := s.Send(x.Context(), &qrt.Message{SessionID: fmt.Sprint("s", i%sessions), Body: []byte("x")})
			x.must(err)
			d, err := r.ReceiveOne(x.Context())
			x.must(err)
			code := "gave_up"
			if i >= letters-sessions { // the last of each session
				code = "wanted"
			}
			x.must(d.DeadLetter(x.Context(), qrt.Reason{Code: code}))
		}
		dead, err := deadletter.Open(x.Context(), c, "q", nil)
		x.must(err)
		n, err := dead.Purge(x.Context(), &deadletter.Filter{Reasons: []string{"wanted"}})
		var left *deadletter.IncompleteError
		if n != 0 || !errors.As(err, &left) || left.Left != letters-sessions || !strings.Contains(err.Error(), "select a whole session") {
			x.Errorf("Purge = %d, %v; want %d left, and what to do", n, err, letters-sessions)
		}
		// The other sessions have letters left, which is an error, too.
		if n, err := dead.Purge(x.Context(), &deadletter.Filter{SessionIDs: []string{"s1"}}); n != letters/sessions || !errors.Is(err, deadletter.ErrIncomplete) {
			x.Errorf("Purge of a session = %d, %v; want %d", n, err, letters/sessions)
		}
		report, err := dead.Redrive(x.Context(), nil)
		if err != nil || report.Redriven != letters-letters/sessions {
			x.Errorf("Redrive of all: %+v, %v", report, err)
		}
		x.must(dead.Close(x.Context()))
	})
}
