package sqsqueue

import (
	"context"
	"crypto/md5" //nolint:gosec // G501: what SQS answers with
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/testbed/awspeer"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// wire serves a fakeSQS over HTTP, so that the SDK and the network below it are part of
// a test. before, if set, sees the n-th request of an action, from 1; false means that
// it has answered, or that nothing answers.
type wire struct {
	*httptest.Server
	fake   *fakeSQS
	before func(w http.ResponseWriter, r *http.Request, action string, n int) bool

	mu    sync.Mutex // guards what follows
	count map[string]int
}

func serve(t *testing.T, f *fakeSQS) *wire {
	t.Helper()
	w := &wire{fake: f, count: make(map[string]int)}
	w.Server = httptest.NewServer(w)
	t.Cleanup(func() {
		w.CloseClientConnections()
		w.Close()
	})
	return w
}

// config has the SDK's own retries, as a program that sets nothing.
func (x *wire) config() aws.Config {
	cfg := awspeer.Config(x.URL)
	cfg.Retryer = nil
	return cfg
}

// unhurried is an attempt's time that no machine is too busy for.
const unhurried = time.Minute

// broker is a Broker over HTTP with that time for an attempt.
func (x *wire) broker(t *testing.T, attempt time.Duration) *Broker {
	t.Helper()
	p := newFromConfig(x.config(), &Options{Poll: time.Second}, attempt)
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

func (x *wire) seen(action string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.count[action]
}

func (x *wire) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	x.mu.Lock()
	x.count[action]++
	n := x.count[action]
	x.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil || x.before != nil && !x.before(w, r, action, n) {
		return
	}
	out, err := x.call(r.Context(), action, body)
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	var api smithy.APIError
	switch {
	case errors.As(err, &api):
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"__type":"com.amazonaws.sqs#%s","message":%q}`, api.ErrorCode(), api.ErrorMessage())
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	default:
		_ = json.NewEncoder(w).Encode(out)
	}
}

// call decodes a request, whose JSON has the names of the SDK's fields, and has the
// fake answer it.
func (x *wire) call(ctx context.Context, action string, body []byte) (any, error) {
	sum := func(s *string) *string {
		d := md5.Sum([]byte(aws.ToString(s))) //nolint:gosec // G401
		return aws.String(hex.EncodeToString(d[:]))
	}
	switch action {
	case "GetQueueUrl":
		return called(ctx, body, x.fake.GetQueueUrl)
	case "GetQueueAttributes":
		return called(ctx, body, x.fake.GetQueueAttributes)
	case "DeleteMessageBatch":
		return called(ctx, body, x.fake.DeleteMessageBatch)
	case "ChangeMessageVisibilityBatch":
		return called(ctx, body, x.fake.ChangeMessageVisibilityBatch)
	case "ReceiveMessage":
		out, err := called(ctx, body, x.fake.ReceiveMessage)
		if err == nil {
			for i := range out.Messages {
				out.Messages[i].MD5OfBody = sum(out.Messages[i].Body)
			}
		}
		return out, err
	case "SendMessageBatch":
		var in sqs.SendMessageBatchInput
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, err
		}
		out, err := x.fake.SendMessageBatch(ctx, &in)
		if err == nil {
			for i := range out.Successful {
				for _, e := range in.Entries {
					if *e.Id == *out.Successful[i].Id {
						out.Successful[i].MD5OfMessageBody = sum(e.MessageBody)
					}
				}
			}
		}
		return out, err
	}
	return nil, fmt.Errorf("unknown action %q", action)
}

func called[I, O any](ctx context.Context, body []byte, call func(context.Context, *I, ...func(*sqs.Options)) (*O, error)) (*O, error) {
	var in I
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	return call(ctx, &in)
}

// hang leaves the n-th request of an action without an answer, on a connection that
// stays open, until the client gives it up.
func hang(action string, nth int) func(http.ResponseWriter, *http.Request, string, int) bool {
	return func(_ http.ResponseWriter, r *http.Request, a string, n int) bool {
		if a != action || n != nth {
			return true
		}
		<-r.Context().Done()
		return false
	}
}

// TestSilentConnection: a request that nothing answers ends within its attempt's time
// and is made again, whatever it was.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	const attempt = time.Second
	for _, action := range []string{"GetQueueUrl", "GetQueueAttributes", "SendMessageBatch", "ChangeMessageVisibilityBatch", "DeleteMessageBatch"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			inField(t, func(x *field) {
				x.sqs.create("q", map[string]string{"VisibilityTimeout": "30"})
				x.wire.before = hang(action, 1)
				begin := time.Now()
				q := open(x.T, x.broker(attempt), "q", nil)
				send(x.T, q, "m")
				d := receiveBodies(x.T, q, 1, time.Second, "m")
				if err := q.Renew(x.Context(), d)[0].Err; err != nil {
					x.Errorf("Renew: %v", err)
				}
				settle(x.T, q, driver.Complete, d[0])
				if left := x.sqs.depth("q"); len(left) > 0 {
					x.Errorf("left in the queue: %v", left)
				}
				if n := x.wire.seen(action); n < 2 {
					x.Errorf("%s was called %d times, want again after no answer", action, n)
				}
				// The renewal's own limit, and the SDK's pause of a second at most.
				if took := time.Since(begin); took > 15*time.Second {
					x.Errorf("it took %s", took)
				}
			})
		})
	}
}

// TestSilentPoll: a poll that nothing answers ends soon after its wait, and the next
// brings what is there.
func TestSilentPoll(t *testing.T) {
	t.Parallel()
	inField(t, func(x *field) {
		x.sqs.create("q", nil)
		x.wire.before = hang("ReceiveMessage", 1)
		q := open(x.T, x.broker(time.Second), "q", nil)
		send(x.T, q, "m")
		begin := time.Now()
		receiveBodies(x.T, q, 1, 20*time.Second, "m")
		if took := time.Since(begin); took > 18*time.Second {
			x.Errorf("received after %s", took)
		}
	})
}

// TestSilentNetwork: where no connection is answered a call ends with an error that
// says so and is transient, without a deadline of its caller's.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	f := newFakeSQS()
	f.create("q", nil)
	x := serve(t, f)
	x.before = func(_ http.ResponseWriter, r *http.Request, a string, _ int) bool {
		if a == "SendMessageBatch" {
			<-r.Context().Done()
			return false
		}
		return true
	}
	q := open(t, x.broker(t, time.Second), "q", nil)
	err := q.Send(context.Background(), []*driver.Message{{ID: "m", Body: []byte("m")}})[0].Err
	wantError(t, err, driver.ErrUnavailable)
}

// TestLargeAnswer: an answer larger than any of SQS's is not kept in memory.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	f := newFakeSQS()
	f.create("q", nil)
	x := serve(t, f)
	large := &largeAnswers{Doer: http.DefaultClient}
	cfg := x.config()
	cfg.HTTPClient = large
	p := newFromConfig(cfg, &Options{Poll: time.Second}, unhurried)
	defer func() { _ = p.Close(context.Background()) }()
	q := open(t, p, "q", nil)
	_, err := q.Receive(t.Context(), 1, 20*time.Second)
	wantError(t, err, driver.ErrUnavailable)
	if n := large.Read(); n != httpclient.MaxAnswer+1 {
		t.Errorf("%d bytes of the answer were read, want one more than %d", n, httpclient.MaxAnswer)
	}
}

// largeAnswers answers ReceiveMessage without end, and has others answered.
type largeAnswers struct {
	httpclient.Doer
	httpproxy.Endless
}

func (l *largeAnswers) Do(r *http.Request) (*http.Response, error) {
	if r.Header.Get("X-Amz-Target") == "AmazonSQS.ReceiveMessage" {
		return l.Endless.Do(r)
	}
	return l.Doer.Do(r)
}

// TestExpiredToken: credentials that worked and ran out are fetched anew, and the
// refusal is transient. Those that never worked are a refusal.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	for name, worked := range map[string]bool{"worked before": true, "never worked": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeSQS()
			f.create("q", nil)
			x := serve(t, f)
			var refuse sync.Map
			x.before = func(w http.ResponseWriter, _ *http.Request, a string, _ int) bool {
				if _, on := refuse.Load(a); !on {
					return true
				}
				w.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(w, `{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"The security token included in the request is expired"}`)
				return false
			}
			if !worked {
				refuse.Store("GetQueueUrl", true)
				_, err := x.broker(t, unhurried).Open(t.Context(), "q", nil)
				wantError(t, err, driver.ErrPermission)
				return
			}
			cfg := x.config()
			fetched := &counted{CredentialsProvider: cfg.Credentials}
			cfg.Credentials = aws.NewCredentialsCache(fetched)
			p := newFromConfig(cfg, &Options{Poll: time.Second}, unhurried)
			defer func() { _ = p.Close(context.Background()) }()
			q := open(t, p, "q", nil)
			send(t, q, "m")
			d := receiveBodies(t, q, 1, time.Second, "m")
			refuse.Store("DeleteMessageBatch", true)
			before := fetched.count()
			wantError(t, settleErrors(q, driver.Complete, d[0])[0], driver.ErrUnavailable)
			refuse.Delete("DeleteMessageBatch")
			settle(t, q, driver.Complete, d[0])
			if n := fetched.count() - before; n != 1 {
				t.Errorf("the credentials were fetched %d times after the refusal, want once", n)
			}
		})
	}
}

// TestUnknownCredentials: credentials that the service does not know are a refusal, and
// fetched anew for the next request.
func TestUnknownCredentials(t *testing.T) {
	t.Parallel()
	f := newFakeSQS()
	f.create("q", nil)
	x := serve(t, f)
	refusals := make(chan string, 1)
	x.before = func(w http.ResponseWriter, _ *http.Request, _ string, _ int) bool {
		select {
		case code := <-refusals:
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"__type":"com.amazon.coral.service#`+code+`","message":"no"}`)
			return false
		default:
			return true
		}
	}
	cfg := x.config()
	fetched := &counted{CredentialsProvider: cfg.Credentials}
	cfg.Credentials = aws.NewCredentialsCache(fetched)
	p := newFromConfig(cfg, &Options{Poll: time.Second}, unhurried)
	defer func() { _ = p.Close(context.Background()) }()
	q := open(t, p, "q", nil)
	for code, anew := range map[string]int{"InvalidClientTokenId": 1, "UnrecognizedClientException": 1, "InvalidSignatureException": 1, "AccessDeniedException": 0} {
		before := fetched.count()
		refusals <- code
		wantError(t, q.Send(t.Context(), []*driver.Message{{ID: "m", Body: []byte("m")}})[0].Err, driver.ErrPermission)
		send(t, q, "m")
		if n := fetched.count() - before; n != anew {
			t.Errorf("%s: the credentials were fetched %d times, want %d", code, n, anew)
		}
	}
}

// counted counts how often credentials are fetched.
type counted struct {
	aws.CredentialsProvider
	mu sync.Mutex // guards n
	n  int
}

func (c *counted) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.CredentialsProvider.Retrieve(ctx)
}

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
