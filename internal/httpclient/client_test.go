package httpclient

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patience is longer than a busy machine takes for an answer from itself.
const patience = time.Minute

// get makes one attempt, and reads the answer.
func get(ctx context.Context, t *testing.T, c *Client, url string) (n int64, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(io.Discard, res.Body)
	return n, errors.Join(err, res.Body.Close())
}

// TestSilence: an answer that does not begin, or stops in its middle, ends the attempt by a
// time-out of the network, which the SDK's retryer repeats. The next attempt is made on
// another connection.
func TestSilence(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/never":
			<-r.Context().Done()
		case "/half":
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	c := New(nil, 100*time.Millisecond)
	patient := WithAttempt(t.Context(), patience) // until the answer begins
	for i, x := range []struct {
		path string
		ctx  context.Context
	}{{"/never", t.Context()}, {"/half", patient}} {
		_, err := get(x.ctx, t, c, server.URL+x.path)
		var timeout interface{ Timeout() bool }
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v, want a time-out", x.path, err)
		}
		if _, err := get(patient, t, c, server.URL+"/well"); err != nil {
			t.Errorf("after %s: %v", x.path, err)
		}
		if n := connections.Load(); n < int64(i)+2 {
			t.Errorf("%d connections after %s", n, x.path)
		}
	}
}

// TestTooLarge: no more of an answer than MaxAnswer is read, and an answer of that length is
// read whole.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for range MaxAnswer >> 20 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
		_, _ = io.WriteString(w, r.URL.RawQuery)
	}))
	t.Cleanup(server.Close)
	c := New(nil, patience)
	if n, err := get(t.Context(), t, c, server.URL); n != MaxAnswer || err != nil {
		t.Errorf("%d bytes, %v; want %d", n, err, MaxAnswer)
	}
	if n, err := get(t.Context(), t, c, server.URL+"?x"); n > MaxAnswer || !errors.Is(err, ErrTooLarge) {
		t.Errorf("%d bytes, %v; want ErrTooLarge", n, err)
	}
}

// TestAccepted: an answer without an error shows that the credentials are good.
func TestAccepted(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "refused") {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(server.Close)
	c := New(nil, patience)
	for _, step := range []struct {
		path string
		want bool
	}{{"/refused", false}, {"/taken", true}, {"/refused", true}} {
		if _, err := get(t.Context(), t, c, server.URL+step.path); err != nil {
			t.Fatal(err)
		}
		if got := c.Accepted(); got != step.want {
			t.Errorf("after %s: Accepted is %t", step.path, got)
		}
	}
}

// looked stands for net/http: it looks for the end of the body after the SDK has closed it.
type looked struct{ err error }

func (l *looked) Do(r *http.Request) (*http.Response, error) {
	if err := r.Body.Close(); err != nil {
		return nil, err
	}
	_, l.err = io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

// closing is a body as smithy-go has it: once closed it ends, and its WriteTo fails.
type closing struct{ io.ReadCloser }

func (closing) Read([]byte) (int, error)         { return 0, io.EOF }
func (closing) WriteTo(io.Writer) (int64, error) { return 0, io.EOF }

// A body that the SDK has closed early looks to net/http as one that ended.
func TestPlainBodies(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(Doer) Doer{
		"PlainBodies": func(d Doer) Doer { return PlainBodies{d} },
		"Client":      func(d Doer) Doer { return New(d, AttemptTime) },
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1/", closing{http.NoBody})
		if err != nil {
			t.Fatal(err)
		}
		body := r.Body
		var l looked
		res, err := wrap(&l).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
		if l.err != nil {
			t.Errorf("%s: %v", name, l.err)
		}
		if r.Body != body {
			t.Errorf("%s: the caller's request was changed", name)
		}
	}
}
