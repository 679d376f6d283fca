package httpproxy_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// TestProxy: requests and answers pass, are counted and amended, and each fault does what
// it says.
func TestProxy(t *testing.T) {
	var served atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.URL.Path)
		if string(body) == "bad" {
			w.WriteHeader(http.StatusConflict)
		}
		_, _ = w.Write(append([]byte("got "), body...))
	}))
	defer server.Close()
	p, err := httpproxy.New(server.URL, &httpproxy.Options{
		Name: func(r *http.Request) string { return r.URL.Path },
		Amend: func(_ *http.Request, body []byte, a *httpproxy.Answer, _ func(*http.Request, []byte) (*httpproxy.Answer, error)) error {
			if string(body) == "amend" {
				a.Body = append(a.Body, " and more"...)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(p.Close(), p.Close()); err != nil {
			t.Error(err)
		}
	}()
	post := func(body string) (status int, text string, err error) {
		answer, err := http.Post(p.URL()+"/path", "text/plain", strings.NewReader(body))
		if err != nil {
			return 0, "", err
		}
		b, err := io.ReadAll(answer.Body)
		return answer.StatusCode, answer.Header.Get("X-Path") + " " + string(b), errors.Join(err, answer.Body.Close())
	}
	expect := func(body string, status int, text string) {
		t.Helper()
		if s, got, err := post(body); err != nil || s != status || got != text {
			t.Errorf("%s: %d %q, %v, want %d %q", body, s, got, err, status, text)
		}
	}
	expect("this", 200, "/path got this")
	expect("amend", 200, "/path got amend and more")
	expect("bad", 409, "/path got bad")
	if n := p.Counts(); n["/path"] != 3 || n["/path 409"] != 1 || len(n) != 2 {
		t.Errorf("counts: %v", n)
	}
	reaches := func(f httpproxy.Faults, fails bool) int64 {
		t.Helper()
		p.Fail(f)
		defer p.Fail(httpproxy.Faults{})
		before := served.Load()
		if _, _, err := post("this"); (err != nil) != fails {
			t.Errorf("%+v: %v, want a failure: %v", f, err, fails)
		}
		return served.Load() - before
	}
	if n := reaches(httpproxy.Faults{Cut: true}, true); n != 0 {
		t.Errorf("cut off: %d requests reached the server", n)
	}
	if n := reaches(httpproxy.Faults{Lost: 1000}, true); n == 0 {
		t.Error("a lost answer: no request reached the server")
	}
	p.Fail(httpproxy.Faults{Refused: 1000, Refusal: httpproxy.Answer{Status: 503, Body: []byte("busy")}})
	expect("this", 503, " busy")
	start := time.Now()
	if n := reaches(httpproxy.Faults{Delay: 50 * time.Millisecond}, false); n != 1 || time.Since(start) < 50*time.Millisecond {
		t.Errorf("delayed: %d requests in %v", n, time.Since(start))
	}
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	if err := p.Forward(other.URL); err != nil {
		t.Error(err)
	}
	expect("this", 404, " 404 page not found\n")
	if err := p.Forward("nothing"); err == nil {
		t.Error("forwards to no server")
	}
}
