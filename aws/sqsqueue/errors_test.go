package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/testbed/awspeer"
)

// answering returns a configuration of a service that gives one answer only.
func answering(t *testing.T, status int, header http.Header, body string) aws.Config {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.Header().Set("X-Amzn-Requestid", "request-1")
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}))
	t.Cleanup(s.Close)
	return awspeer.Config(s.URL)
}

func TestErrorsOfTheService(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		retry  string
		target error
		after  time.Duration
	}{
		{400, `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"x"}`, "", driver.ErrNotFound, 0},
		{400, `{"__type":"AWS.SimpleQueueService.NonExistentQueue","message":"x"}`, "", driver.ErrNotFound, 0},
		{400, `{"__type":"com.amazonaws.sqs#RequestThrottled","message":"x"}`, "7", driver.ErrThrottled, 7 * time.Second},
		{400, `{"__type":"com.amazon.coral.availability#ThrottlingException","message":"x"}`, "nonsense", driver.ErrThrottled, 0},
		{403, `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"User arn:aws:iam::1:user/u is not authorized"}`, "", driver.ErrPermission, 0},
		{403, `{"__type":"InvalidClientTokenId","message":"x"}`, "", driver.ErrPermission, 0},
		{403, `{"__type":"SomethingNew","message":"x"}`, "", driver.ErrPermission, 0},
		{429, `{"__type":"SomethingNew","message":"x"}`, "3", driver.ErrThrottled, 3 * time.Second},
		{500, `{"__type":"SomethingNew","message":"x"}`, "", driver.ErrUnavailable, 0},
		{503, `not JSON`, "", driver.ErrUnavailable, 0},
		{200, `not JSON`, "", driver.ErrUnavailable, 0},
		{400, `{"__type":"KmsThrottled","message":"x"}`, "", driver.ErrThrottled, 0},
		{400, `{"__type":"OverLimit","message":"x"}`, "", driver.ErrThrottled, 0},
	} {
		header := http.Header{}
		if c.retry != "" {
			header.Set("Retry-After", c.retry)
		}
		p, err := New(answering(t, c.status, header, c.body), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Open(t.Context(), "q", nil)
		if !errors.Is(err, c.target) {
			t.Errorf("%d %s: %v, want %v", c.status, c.body, err, c.target)
			continue
		}
		var e *driver.Error
		if !errors.As(err, &e) || e.RetryAfter != c.after {
			t.Errorf("%s: retry after %s, want %s", c.body, e.RetryAfter, c.after)
		}
		if transient := c.target == driver.ErrThrottled || c.target == driver.ErrUnavailable; e.Transient() != transient {
			t.Errorf("%s: transient %t", c.body, e.Transient())
		}
		if !strings.Contains(err.Error(), "GetQueueUrl: ") || c.status != 200 && !strings.Contains(err.Error(), "request-1") {
			t.Errorf("%v names neither the action nor the request", err)
		}
	}
}

func TestErrorsOfTheWay(t *testing.T) {
	const nowhere = "http://127.0.0.1:1" // a port that nothing listens on
	p, err := New(awspeer.Config(nowhere), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Open(t.Context(), "q", nil)
	wantError(t, err, driver.ErrUnavailable)

	cfg := awspeer.Config(nowhere)
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no profile")
	})
	if p, err = New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	_, err = p.Open(t.Context(), "q", nil)
	wantError(t, err, driver.ErrPermission)

	// What was handed out before may be handed out again.
	calls := 0
	cfg = awspeer.Config(nowhere)
	good := cfg.Credentials
	cfg.Credentials = aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		if calls++; calls > 1 {
			return aws.Credentials{}, errors.New("the container does not answer")
		}
		return good.Retrieve(ctx)
	})
	if p, err = New(cfg, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = p.Open(t.Context(), "q", nil)
		wantError(t, err, driver.ErrUnavailable)
	}
	if !strings.Contains(err.Error(), "renewed") || strings.Contains(err.Error(), "container") {
		t.Errorf("%v, want an error that says renewed and does not quote the container's", err)
	}

	hang := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer slow.Close()
	defer close(hang)
	if p, err = New(awspeer.Config(slow.URL), nil); err != nil {
		t.Fatal(err)
	}
	yields := awspeer.Config(slow.URL)
	yields.HTTPClient = &http.Client{Timeout: 20 * time.Millisecond}
	hurried, err := New(yields, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = hurried.Open(t.Context(), "q", nil)
	if wantError(t, err, driver.ErrUnavailable); driver.KindOf(err) != driver.Unavailable {
		t.Errorf("a timeout of the HTTP client passes for the caller's: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err = p.Open(ctx, "q", nil); err != context.DeadlineExceeded {
		t.Errorf("got %v, want the context's error as it is", err)
	}
}

func TestErrorsOfEntries(t *testing.T) {
	for _, c := range []struct {
		code, text string
		sender     bool
		target     error
	}{
		{"ReceiptHandleIsInvalid", "x", true, driver.ErrLockLost},
		{"AWS.SimpleQueueService.MessageNotInflight", "x", true, driver.ErrLockLost},
		{"InvalidParameterValue", expiredHandle, true, driver.ErrLockLost},
		{"InvalidParameterValue", "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]", true, driver.ErrLockLost},
		{"InvalidParameterValue", "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes.", true, driver.ErrTooLarge},
		{"InvalidParameterValue", "x", true, driver.ErrInvalid},
		{"InvalidMessageContents", "x", true, driver.ErrInvalid},
		{"InternalError", "x", false, driver.ErrUnavailable},
		{"SomethingNew", "x", false, driver.ErrUnavailable},
	} {
		err := entryError("SendMessageBatch", types.BatchResultErrorEntry{Code: aws.String(c.code), Message: aws.String(c.text), SenderFault: c.sender})
		if !errors.Is(err, c.target) {
			t.Errorf("%s %s: %v, want %v", c.code, c.text, err, c.target)
		}
		if strings.Contains(err.Error(), "Value h") {
			t.Errorf("the error repeats a receipt handle: %v", err)
		}
	}
	if k := driver.KindOf(entryError("x", types.BatchResultErrorEntry{Code: aws.String("SomethingNew"), SenderFault: true})); k != driver.Other {
		t.Errorf("an unknown fault of the sender is %d", k)
	}
}

// stubClient is an HTTP client that notes what it is given.
type stubClient struct{ body io.ReadCloser }

func (s *stubClient) Do(r *http.Request) (*http.Response, error) {
	s.body = r.Body
	return nil, errors.New("not sent")
}

// The SDK's bodies reach net/http without their WriteTo, and whole.
func TestPlainBodies(t *testing.T) {
	stub := &stubClient{}
	cfg := awspeer.Config("http://127.0.0.1:1")
	cfg.HTTPClient = stub
	p, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Open(t.Context(), "q", nil)
	wantError(t, err, driver.ErrUnavailable)
	if _, bad := stub.body.(io.WriterTo); bad || stub.body == nil {
		t.Errorf("the body is a %T", stub.body)
	}
	direct := &stubClient{}
	res, err := httpclient.New(direct, httpclient.AttemptTime).Do(httptest.NewRequest(http.MethodPost, "/", strings.NewReader("body")))
	if err == nil {
		_ = res.Body.Close()
		t.Fatal("the stub answered")
	}
	if b, err := io.ReadAll(direct.body); string(b) != "body" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
