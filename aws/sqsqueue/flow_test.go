package sqsqueue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	qrt "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/testbed/awspeer"
	"github.com/queue-runtime/queue/worker"
)

// client returns a strict client, without a replay store, over p.
func client(t *testing.T, p driver.Broker, ring *keys.Ring) *qrt.Client {
	t.Helper()
	c, err := qrt.New(p, &qrt.Options{
		Crypto: qrt.CryptoConfig{Enabled: true, PlaintextPolicy: qrt.Reject, MaxMessageAge: 24 * time.Hour},
		Keys:   ring,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

func newRing(t *testing.T) *keys.Ring {
	t.Helper()
	k, err := keys.Generate("k-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := keys.NewRing(k)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// severed is a connection that can be cut, as by a crash: from then on nothing of
// it reaches SQS.
type severed struct {
	api
	cut *atomic.Bool
}

func (s severed) err() error {
	if s.cut.Load() {
		return &apiError{code: "ServiceUnavailable"}
	}
	return nil
}

func (s severed) SendMessageBatch(ctx context.Context, in *sqs.SendMessageBatchInput, o ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.api.SendMessageBatch(ctx, in, o...)
}

func (s severed) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, o ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.api.ReceiveMessage(ctx, in, o...)
}

func (s severed) DeleteMessageBatch(ctx context.Context, in *sqs.DeleteMessageBatchInput, o ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.api.DeleteMessageBatch(ctx, in, o...)
}

func (s severed) ChangeMessageVisibilityBatch(ctx context.Context, in *sqs.ChangeMessageVisibilityBatchInput, o ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityBatchOutput, error) {
	if err := s.err(); err != nil {
		return nil, err
	}
	return s.api.ChangeMessageVisibilityBatch(ctx, in, o...)
}

// Fifty sessions, eight workers on two processes, handlers that fail and abandon,
// and one process that crashes in the middle with messages in hand, which come
// back when their locks run out: each session is handled in order and by one at a
// time, and nothing is lost.
func TestProcessorSessionsFake(t *testing.T) {
	for _, batch := range []int{1, 10} {
		t.Run(fmt.Sprintf("batch=%d", batch), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSQS()
				f.create("d.fifo", nil)
				f.create("pulls.fifo", fakeRedrive("d.fifo", 1000))
				t.Cleanup(f.polls.Wait) // the last of the cleanups
				processorSessions(t, func(o *Options) *Broker {
					o.SessionBatch = batch
					return newBroker(f, o)
				}, "pulls", 10)
			})
		})
	}
}

func TestProcessorSessionsFauxqs(t *testing.T) {
	cfg := awspeer.Config(awspeer.Fauxqs(t))
	t.Parallel()
	b := peer{cfg: cfg, short: 4 * time.Second}.harness(fifoKind).Start(t)
	name, err := b.NewQueue(t.Context(), drivertest.QueueSpec{Sessions: true, ShortLock: true})
	if err != nil {
		t.Fatal(err)
	}
	processorSessions(t, func(o *Options) *Broker {
		p, err := New(cfg, o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}, name, 4)
}

func processorSessions(t *testing.T, connect func(*Options) *Broker, name string, each int) {
	const sessions = 50
	ring := newRing(t)
	sender, err := client(t, connect(&Options{Poll: time.Second}), ring).Sender(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	done := make(map[string][]int) // per session, in the order of completion
	busy := make(map[string]int)
	left := sessions * each
	finished := make(chan struct{})
	crashed := make(chan struct{})
	var crash sync.Once
	var cut atomic.Bool
	handler := func(process int) worker.HandlerFunc {
		return func(ctx context.Context, d *qrt.Delivery) error {
			var n int
			if _, err := fmt.Sscanf(string(d.Body), d.SessionID+"/%d", &n); err != nil {
				t.Errorf("message %q in session %q", d.Body, d.SessionID)
			}
			mu.Lock()
			if busy[d.SessionID]++; busy[d.SessionID] > 1 {
				t.Errorf("session %s is handled by two at a time", d.SessionID)
			}
			got := len(done[d.SessionID])
			// Of the last one done the completion may have been lost in the crash.
			again := n == got-1 && d.Count > 1 && cut.Load()
			if n != got && !again {
				t.Errorf("session %s: message %d while %d are done", d.SessionID, n, got)
			}
			total := left
			mu.Unlock()
			defer func() {
				mu.Lock()
				busy[d.SessionID]--
				mu.Unlock()
			}()
			if process == 1 && total < sessions*each/2 {
				crash.Do(func() {
					cut.Store(true)
					close(crashed)
				})
			}
			if process == 1 {
				select {
				case <-crashed:
					<-ctx.Done()
					return ctx.Err()
				default:
				}
			}
			if again {
				return nil
			}
			if d.Count == 1 && rand.IntN(10) == 0 { //nolint:gosec // G404: a test's dice
				return worker.RetryAfter(errors.New("the dice"), time.Second)
			}
			mu.Lock()
			defer mu.Unlock()
			done[d.SessionID] = append(done[d.SessionID], n)
			if left--; left == 0 {
				close(finished)
			}
			return nil
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for process := range 2 {
		p := connect(&Options{Poll: time.Second})
		if process == 1 {
			p.api = severed{p.api, &cut}
		}
		r, err := client(t, p, ring).Receiver(t.Context(), name, &qrt.ReceiverOptions{Wait: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		proc, err := worker.New(&worker.Options{Concurrency: 4, DrainTimeout: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		if err := proc.Handle(r, handler(process), &worker.HandleOptions{Sessions: true, SessionIdle: time.Second}); err != nil {
			t.Fatal(err)
		}
		mine, end := context.WithCancel(ctx)
		running.Go(func() {
			defer end()
			_ = proc.Run(mine)
		})
		if process == 1 {
			running.Go(func() {
				select {
				case <-crashed:
					end()
				case <-ctx.Done():
				}
			})
		}
	}
	var all []*qrt.Message
	for n := range each {
		for s := range sessions {
			id := fmt.Sprintf("pr-%d", s)
			all = append(all, &qrt.Message{SessionID: id, Body: fmt.Appendf(nil, "%s/%d", id, n)})
		}
	}
	if _, err := sender.SendBatch(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	select {
	case <-finished:
	case <-time.After(5 * time.Minute):
		mu.Lock()
		t.Errorf("%d of %d messages are not handled", left, sessions*each)
		mu.Unlock()
	}
	stop()
	running.Wait()
	cut.Store(false) // for closing
	mu.Lock()
	defer mu.Unlock()
	for s, got := range done {
		for i, n := range got {
			if i != n {
				t.Fatalf("session %s was handled as %v", s, got)
			}
		}
	}
	select {
	case <-crashed:
	default:
		t.Error("the crash did not happen")
	}
}

// Full batches of sealed messages through package queue, counted at the peer: a
// tenth of a request a message each for send, receive and delete.
func TestRequestsPerMessageAtPeer(t *testing.T) {
	url := awspeer.Fauxqs(t)
	cfg := awspeer.Config(url)
	b := peer{cfg: cfg}.harness(standard).Start(t)
	name, err := b.NewQueue(t.Context(), drivertest.QueueSpec{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(cfg, &Options{Poll: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, p, newRing(t))
	sender, err := c.Sender(t.Context(), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Receiver(t.Context(), name, &qrt.ReceiverOptions{Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	all := make([]*qrt.Message, n)
	for i := range all {
		all[i] = &qrt.Message{ID: fmt.Sprint(i), Body: bytes.Repeat([]byte("payload "), 1000)}
	}
	resetCounts(t, url)
	if _, err := sender.SendBatch(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < n; {
		list, err := r.Receive(t.Context(), 10)
		if err != nil || len(list) == 0 {
			t.Fatalf("%d of %d came: %v", got, n, err)
		}
		got += len(list)
		var handlers sync.WaitGroup
		for _, d := range list {
			handlers.Go(func() {
				if err := d.Complete(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		handlers.Wait()
	}
	calls := counts(t, url)
	for _, action := range []string{"SendMessageBatch", "ReceiveMessage", "DeleteMessageBatch"} {
		// Ten handlers that complete their messages within 2 ms share a request;
		// on a busy machine some do not.
		if c := calls[action]; c < n/10 || c > n/10 && (action != "DeleteMessageBatch" || c > n/5) {
			t.Errorf("%s: %d requests for %d messages, want %d", action, c, n, n/10)
		}
	}
	t.Logf("%d messages: %v", n, calls)
}

// Taking the encoding attribute away changes nothing: the text says what it is.
func TestStrippedEncoding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSQS()
		f.create("d", nil)
		f.create("q", fakeRedrive("d", 100))
		t.Cleanup(f.polls.Wait) // the last of the cleanups
		c := client(t, newBroker(f, &Options{}), newRing(t))
		sender, err := c.Sender(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sender.Send(t.Context(), &qrt.Message{Body: []byte("secret")}); err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		m := f.queues["q"].messages[0]
		stored := m.body
		delete(m.attrs, attrEncoding)
		f.mu.Unlock()
		r, err := c.Receiver(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		d, err := r.ReceiveOne(t.Context())
		if err != nil || !d.Encrypted || string(d.Body) != "secret" {
			t.Fatalf("received %+v, %v; want the body, encrypted", d, err)
		}
		if err := d.Complete(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Nor does a text that only begins like one pass as plaintext, whatever
		// is said of it; it is kept as it is stored.
		for name, encoding := range map[string]string{"bare": "", "marked": encodingSealed, "unknown": "gzip"} {
			text := stored[:40] + "!" + stored[41:]
			attrs := map[string]types.MessageAttributeValue{attrID: {DataType: aws.String("String"), StringValue: aws.String(name)}}
			if encoding != "" {
				attrs[attrEncoding] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(encoding)}
			}
			if _, err := f.SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: aws.String("fake://q"), Entries: []types.SendMessageBatchRequestEntry{
				{Id: aws.String("0"), MessageBody: aws.String(text), MessageAttributes: attrs}}}); err != nil {
				t.Fatal(err)
			}
			_, err = r.ReceiveOne(t.Context())
			wantError(t, err, qrt.ErrInvalidEnvelope)
			if dead := f.depth("d"); dead[len(dead)-1] != text {
				t.Errorf("%s: the dead letter is not what was stored", name)
			}
		}
	})
}
