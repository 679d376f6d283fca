package faultproxy

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"
)

// Answer is what a service answers when it refuses a request.
type Answer struct {
	Status int
	Header map[string]string
	Body   string
}

// HTTP is a proxy in front of one service.
type HTTP struct {
	target   string // http://host:port
	refusals []Answer
	faults   *Faults
	server   *http.Server
	listener net.Listener
	client   *http.Client

	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex
	next chan struct{} // closed when the next answer has been passed on
}

// NewHTTP starts a proxy in front of the service at that URL without a path, on 127.0.0.1
// and a free port. What it refuses gets one of the refusals.
func NewHTTP(target string, f *Faults, refusals ...Answer) (*HTTP, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &HTTP{target: target, refusals: refusals, faults: f, listener: l, client: &http.Client{Transport: &http.Transport{}}, next: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: time.Minute}
	p.running.Go(func() { _ = p.server.Serve(l) })
	return p, nil
}

// URL is where the proxy is, without a path.
func (p *HTTP) URL() string { return "http://" + p.listener.Addr().String() }

// Close ends every request, and waits for all that runs.
func (p *HTTP) Close() error {
	p.cancel()
	err := p.server.Close()
	p.running.Wait()
	p.client.CloseIdleConnections()
	return err
}

// wrongBy is how far a clock is off that is told wrongly: more than services allow
// signatures to be (15 minutes, AWS Signature Version 4).
const wrongBy = time.Hour

func (p *HTTP) serve(w http.ResponseWriter, r *http.Request) {
	// The client's leaving ends a wait, and not the request that arrived.
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	fault := p.faults.draw(Delay, Delay, Drop, LoseAnswer, Cut, Silence, Refuse, Refuse, Refuse, WrongClock, Reorder)
	switch fault {
	case Delay:
		if !p.faults.pause(ctx) {
			return
		}
	case Drop:
		panic(http.ErrAbortHandler) // ends the connection
	case Refuse:
		p.refuse(w)
		return
	case Silence:
		if p.faults.below(2) == 0 {
			<-ctx.Done()
			return
		}
	case None, LoseAnswer, Cut, HalfClose, WrongClock, Reorder:
	}
	answer, err := p.forward(r, body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	switch fault {
	case LoseAnswer:
		panic(http.ErrAbortHandler)
	case Silence: // it was done, and nothing says so
		<-ctx.Done()
		return
	case Reorder:
		p.waitForNext(ctx)
	case WrongClock:
		by := wrongBy
		if p.faults.below(2) == 0 {
			by = -by
		}
		answer.header.Set("Date", time.Now().Add(by).UTC().Format(http.TimeFormat))
	case None, Delay, Drop, Cut, HalfClose, Refuse:
	}
	maps.Copy(w.Header(), answer.header)
	w.WriteHeader(answer.status)
	text := answer.body
	if fault == Cut {
		text = text[:len(text)/2] // less than Content-Length says: the server ends the connection
	}
	_, _ = w.Write(text) //nolint:gosec // G705: a proxy passes on what the service answers
	p.passed()
}

func (p *HTTP) refuse(w http.ResponseWriter) {
	if len(p.refusals) == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	a := p.refusals[p.faults.below(len(p.refusals))]
	for name, value := range a.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(a.Status)
	_, _ = io.WriteString(w, a.Body)
}

// answered is what the service answered.
type answered struct {
	status int
	header http.Header
	body   []byte
}

// forward makes the request, also for a client that has left.
func (p *HTTP) forward(r *http.Request, body []byte) (*answered, error) {
	//nolint:gosec // G704: the target is the test's own; the client chooses the path
	out, err := http.NewRequestWithContext(p.ctx, r.Method, p.target+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header, out.Host = r.Header.Clone(), r.Host
	answer, err := p.client.Do(out) //nolint:gosec // G704
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	return &answered{answer.StatusCode, answer.Header, text}, err
}

// waitForNext waits until another answer was passed on, for MaxDelay at the most.
func (p *HTTP) waitForNext(ctx context.Context) {
	p.mu.Lock()
	next := p.next
	p.mu.Unlock()
	timer := time.NewTimer(p.faults.MaxDelay)
	defer timer.Stop()
	select {
	case <-next:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// passed says that an answer was passed on.
func (p *HTTP) passed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.next)
	p.next = make(chan struct{})
}
