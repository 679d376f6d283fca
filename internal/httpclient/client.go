// Package httpclient is what stands between a cloud's SDK and the network. Each attempt of a
// request ends by a time-out of its own, and the SDK makes the next one on a new connection:
// a connection that a NAT gateway or a firewall has forgotten answers nothing and fails
// nothing, and would otherwise hold a request for a quarter of an hour while a message's lock
// runs out. And no answer takes more memory than the service can have meant to send.
package httpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/internal/dialing"
)

const (
	// AttemptTime is how long a service may take to begin an answer. The services answer
	// within a tenth of a second as a rule; a new connection with TLS to another continent
	// takes one second.
	AttemptTime = 3 * time.Second
	// MaxAnswer bounds an answer in bytes. The longest is one of SQS: ten messages of 1 MiB,
	// whose JSON escapes can take three times as much.
	MaxAnswer = 32 << 20
	// uploadRate is what a line carries at least, in bytes a second: a request of
	// 1 MiB gets 16 s more.
	uploadRate = 64 << 10
)

// errNoAnswer ends an attempt whose time is over. It is a time-out of the network, so
// that the SDK's retryer makes another attempt.
var errNoAnswer error = attemptTimeout{}

type attemptTimeout struct{}

func (attemptTimeout) Error() string   { return "no answer in time" }
func (attemptTimeout) Timeout() bool   { return true }
func (attemptTimeout) Temporary() bool { return true }

// ErrTooLarge ends the reading of an answer.
var ErrTooLarge = fmt.Errorf("the answer has more than %d bytes", MaxAnswer)

// Doer is what each client of the SDKs takes for its HTTP client.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// Client is a [Doer] for an SDK. It is safe for concurrent use.
type Client struct {
	inner    Doer
	attempt  time.Duration
	accepted atomic.Bool
}

// New returns a Client over another one; nil means one that all such Clients share, with the
// settings of [http.DefaultTransport], which watches idle connections of HTTP/2. An attempt has the time
// attempt for its answer to begin, and for each pause within it.
func New(client Doer, attempt time.Duration) *Client {
	switch c := client.(type) {
	case nil:
		client = shared()
	case buildable:
		// One like it that can be told to give up its connections.
		client = &http.Client{Transport: limited(c.GetTransport()), Timeout: c.GetTimeout(), CheckRedirect: keepRedirect}
	}
	return &Client{inner: client, attempt: attempt}
}

// shared keeps the connections of all Clients without one of their own, so that many stores
// and providers of one service need no more than one.
var shared = sync.OnceValue(func() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert,errcheck // net/http says so
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second}
	return &http.Client{Transport: limited(t), CheckRedirect: keepRedirect}
})

// limited has a transport connect no more often than the process may to that server.
func limited(t *http.Transport) *http.Transport {
	dial := t.DialContext
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	t.DialContext = dialing.Limited(dial)
	return t
}

// buildable is the client that the AWS SDK makes.
type buildable interface {
	GetTransport() *http.Transport
	GetTimeout() time.Duration
}

// keepRedirect has a redirect handed to the SDK as the answer: to follow it would send a
// signed request to another host.
func keepRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Accepted reports whether the service has answered a request without an error: its
// credentials are good, or were.
func (c *Client) Accepted() bool { return c.accepted.Load() }

// attemptKey is the context key of a time that one attempt may take, a time.Duration.
type attemptKey struct{}

// WithAttempt returns a context whose requests have d to be answered, each attempt.
func WithAttempt(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, attemptKey{}, d)
}

// Do makes one attempt.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	limit, ok := r.Context().Value(attemptKey{}).(time.Duration)
	if !ok {
		limit = c.attempt
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	watch := time.AfterFunc(limit+time.Duration(max(r.ContentLength, 0))*time.Second/uploadRate, func() { cancel(errNoAnswer) })
	resp, err := PlainBodies{c.inner}.Do(r.WithContext(ctx))
	if err != nil {
		watch.Stop()
		if errors.Is(context.Cause(ctx), errNoAnswer) {
			c.closeIdle()
			err = errNoAnswer
		}
		cancel(nil)
		return nil, err
	}
	if resp.StatusCode < http.StatusMultipleChoices {
		c.accepted.Store(true)
	}
	resp.Body = &answer{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, watch: watch, pause: c.attempt, left: MaxAnswer}
	return resp, nil
}

// closeIdle gives up the connections that are not in use: what befell one is likely to
// have befallen all of them.
func (c *Client) closeIdle() {
	if inner, ok := c.inner.(interface{ CloseIdleConnections() }); ok {
		inner.CloseIdleConnections()
	}
}

// PlainBodies is a [Doer] that hides from net/http that the AWS SDK's request bodies have
// a WriteTo. A client of that SDK that is not over a [Client] needs it.
//
// The SDK (smithy-go v1.28.9, transport/http) closes a body as soon as the
// response has begun, and from then on its WriteTo returns io.EOF, where Read does
// so rightly. If that is before net/http has looked for the body's end, which a
// fast answer to a busy client can be, it takes it for a failed write and closes
// the connection under the response: messages that were received are lost until
// their lock is over.
type PlainBodies struct{ Doer }

// Do sends the request. It does not change r.
func (p PlainBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return p.Doer.Do(r)
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
	// One byte more than may come tells that there are more.
	n, err := a.ReadCloser.Read(p[:min(len(p), a.left+1)])
	if a.left -= n; a.left < 0 {
		return 0, ErrTooLarge
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
