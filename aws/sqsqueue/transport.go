package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// This file is what stands between the SDK and the network. Every attempt of a request
// ends by a time-out of its own, and the SDK makes the next one on a new connection: a
// connection that a NAT gateway or a firewall has forgotten answers nothing and fails
// nothing, and would otherwise hold a request for a quarter of an hour while a message's
// lock runs out. And no answer takes more memory than SQS can have asked for.

const (
	// attemptTime is how long SQS may take to begin an answer. It answers within a
	// tenth of a second as a rule; a new connection with TLS to another continent
	// takes one second.
	attemptTime = 3 * time.Second
	// uploadRate is what a line carries at least, in bytes a second: a request of
	// 1 MiB gets 16 s more.
	uploadRate = 64 << 10
	// maxAnswer bounds an answer in bytes: ten messages of 1 MiB, whose JSON escapes
	// can take three times as much.
	maxAnswer = 32 << 20
)

// errNoAnswer ends an attempt whose time is over. It is a time-out of the network, so
// that the SDK's retryer makes another attempt.
var errNoAnswer error = attemptTimeout{}

type attemptTimeout struct{}

func (attemptTimeout) Error() string   { return "no answer in time" }
func (attemptTimeout) Timeout() bool   { return true }
func (attemptTimeout) Temporary() bool { return true }

// errAnswerTooLarge ends the reading of an answer.
var errAnswerTooLarge = fmt.Errorf("the answer has more than %d bytes", maxAnswer)

// transport is the HTTP client of the SDK.
type transport struct {
	sqs.HTTPClient
	attempt time.Duration
	// accepted is set once the service has answered a request without an error: its
	// credentials are good, or were.
	accepted atomic.Bool
}

// newTransport returns a transport over the SDK's client, or over a client like it that
// can be told to give up its connections.
func newTransport(client sqs.HTTPClient, attempt time.Duration) *transport {
	if b, ok := client.(*awshttp.BuildableClient); ok {
		client = &http.Client{
			Transport:     b.GetTransport(),
			Timeout:       b.GetTimeout(),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &transport{HTTPClient: client, attempt: attempt}
}

// attemptKey is the context key of a time that one attempt may take, a time.Duration.
type attemptKey struct{}

// withAttempt returns a context whose requests have d to be answered, each attempt.
func withAttempt(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, attemptKey{}, d)
}

// Do makes one attempt.
func (t *transport) Do(r *http.Request) (*http.Response, error) {
	limit, ok := r.Context().Value(attemptKey{}).(time.Duration)
	if !ok {
		limit = t.attempt
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	watch := time.AfterFunc(limit+time.Duration(max(r.ContentLength, 0))*time.Second/uploadRate, func() { cancel(errNoAnswer) })
	r = r.WithContext(ctx)
	hideWriteTo(r)
	resp, err := t.HTTPClient.Do(r)
	if err != nil {
		watch.Stop()
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			t.closeIdle()
			err = errNoAnswer
		}
		cancel(nil)
		return nil, err
	}
	if resp.StatusCode < http.StatusMultipleChoices {
		t.accepted.Store(true)
	}
	resp.Body = &answer{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, watch: watch, pause: t.attempt, left: maxAnswer}
	return resp, nil
}

// closeIdle gives up the connections that are not in use: what befell one is likely to
// have befallen all of them.
func (t *transport) closeIdle() {
	if c, ok := t.HTTPClient.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// hideWriteTo hides from net/http that the SDK's request bodies have a WriteTo.
//
// The SDK (smithy-go v1.28.9, transport/http) closes a body as soon as the
// response has begun, and from then on its WriteTo returns io.EOF, where Read does
// so rightly. If that is before net/http has looked for the body's end, which a
// fast answer to a busy client can be, it takes it for a failed write and closes
// the connection under the response: messages that were received are lost until
// their lock is over.
func hideWriteTo(r *http.Request) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
}

// answer is the body of a response. Each pause of it is bounded, and its length.
type answer struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *time.Timer
	pause  time.Duration
	left   int // bytes
}

func (a *answer) Read(p []byte) (int, error) {
	a.watch.Reset(a.pause)
	n, err := a.ReadCloser.Read(p)
	if a.left -= n; a.left < 0 {
		return 0, errAnswerTooLarge
	}
	if err != nil && err != io.EOF && errors.Is(context.Cause(a.ctx), errNoAnswer) {
		err = errNoAnswer
	}
	return n, err
}

func (a *answer) Close() error {
	a.watch.Stop()
	err := a.ReadCloser.Close()
	a.cancel(nil)
	return err
}
