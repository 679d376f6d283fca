// Package httpproxy is a reverse proxy that tests put in front of a server: it
// counts requests, delays them, loses answers and cuts the server off. Its address
// stays the same when the server is started again. What goes wrong, and when, is for the
// test to say; package faultproxy draws it at random.
package httpproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
)

// maxBody bounds the bodies of requests and answers in bytes.
const maxBody = 64 << 20

// clientsIdle is longer than clients keep connections. Some have never had a request, opened
// beside one that became free: a client does not repeat what it sent on such a one if it is
// closed just then.
const clientsIdle = time.Hour

// Answer is what a server answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Options configure a [Proxy]. Nil and the zero value mean that requests and
// answers pass as they are, and that all requests count under their method.
type Options struct {
	// Name names the kind of a request for Counts. An answer with a status of 400
	// or more counts once more, under the name and the status: "PUT 412".
	Name func(r *http.Request) string
	// Amend may change an answer. send makes another request to the server.
	Amend func(r *http.Request, body []byte, a *Answer, send func(r *http.Request, body []byte) (*Answer, error)) error
}

// Proxy forwards requests. It is safe for concurrent use.
type Proxy struct {
	o        Options
	url      string
	server   *http.Server
	client   *http.Transport
	serving  sync.WaitGroup
	listener net.Listener
	passing  sync.RWMutex // held for reading while a request is at the server

	mu     sync.Mutex // guards what follows
	target *url.URL
	counts map[string]int
	faults Faults
}

// Faults are what goes wrong. The zero value is nothing.
type Faults struct {
	// Cut has every connection closed in place of an answer, before the server
	// has the request.
	Cut bool
	// Lost is how many of 1,000 requests reach the server and have no answer.
	Lost int
	// Refused is how many of 1,000 requests are answered with Refusal and do not
	// reach the server.
	Refused int
	Refusal Answer
	// Delay is how much longer each request takes.
	Delay time.Duration
}

// New starts a proxy on 127.0.0.1 and a free port. o may be nil.
func New(target string, o *Options) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		url: "http://" + l.Addr().String(), listener: l, counts: make(map[string]int),
		// Tests open hundreds of connections, and look for goroutines that stay.
		client: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}
	if o != nil {
		p.o = *o
	}
	if p.o.Name == nil {
		p.o.Name = func(r *http.Request) string { return r.Method }
	}
	if err := p.Forward(target); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: clientsIdle}
	p.serving.Go(func() { _ = p.server.Serve(l) }) // ends with Close
	return p, nil
}

// URL returns the proxy's address, such as "http://127.0.0.1:40123".
func (p *Proxy) URL() string { return p.url }

// Forward has later requests go to another server.
func (p *Proxy) Forward(target string) error {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return fmt.Errorf("httpproxy: %q is no URL of a server", target)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = u
	return nil
}

// Fail sets what goes wrong from now on.
func (p *Proxy) Fail(f Faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

// Alone calls do while no request is at the server: those that come wait. do must not
// send one through the proxy.
func (p *Proxy) Alone(do func()) {
	p.passing.Lock()
	defer p.passing.Unlock()
	do()
}

// Counts returns how many requests of each kind came since the last call, and
// starts again.
func (p *Proxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := maps.Clone(p.counts)
	clear(p.counts)
	return c
}

// Close ends the proxy and its connections. A second call returns nil.
func (p *Proxy) Close() error {
	err := p.server.Close()
	p.serving.Wait()
	p.client.CloseIdleConnections()
	return err
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	name := p.o.Name(r)
	p.mu.Lock()
	p.counts[name]++
	f := p.faults
	p.mu.Unlock()
	backoff.Sleep(r.Context(), f.Delay)
	switch {
	case f.Cut:
		panic(http.ErrAbortHandler) // closes the connection
	case chance(f.Refused):
		write(w, &f.Refusal)
		return
	}
	p.passing.RLock()
	defer p.passing.RUnlock()
	lost := chance(f.Lost)
	ctx := r.Context()
	if lost {
		// The server must do what the client never hears of.
		ctx = context.WithoutCancel(ctx)
	}
	a, err := p.send(r.WithContext(ctx), body)
	if err == nil && p.o.Amend != nil {
		err = p.o.Amend(r, body, a, p.send)
	}
	if err != nil || lost {
		panic(http.ErrAbortHandler) // the server is away: so is the proxy
	}
	if a.Status >= http.StatusBadRequest {
		p.mu.Lock()
		p.counts[fmt.Sprint(name, " ", a.Status)]++
		p.mu.Unlock()
	}
	write(w, a)
}

func chance(perMille int) bool {
	return perMille > 0 && rand.IntN(1000) < perMille //nolint:gosec // G404: faults, not secrets
}

// send makes a request to the server.
func (p *Proxy) send(r *http.Request, body []byte) (*Answer, error) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = target.Scheme, target.Host
	out.RequestURI = ""
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	got, err := p.client.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(got.Body, maxBody))
	if err := errors.Join(err, got.Body.Close()); err != nil {
		return nil, err
	}
	return &Answer{got.StatusCode, got.Header, text}, nil
}

func write(w http.ResponseWriter, a *Answer) {
	maps.Copy(w.Header(), a.Header)
	w.Header().Del("Content-Length") // Amend may have changed it
	w.Header().Del("Transfer-Encoding")
	w.WriteHeader(a.Status)
	_, _ = w.Write(a.Body) //nolint:gosec // G705: what a server answered; the client may be gone
}
