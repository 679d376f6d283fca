package httpproxy

import (
	"io"
	"net/http"
	"sync/atomic"
)

// Doer is what SDKs take for their HTTP client.
type Doer interface {
	Do(r *http.Request) (*http.Response, error)
}

// Silent is a [Doer] that leaves its first request without an answer, until that is given up.
// Its wait is one that a bubble of testing/synctest can see. It is safe for concurrent use.
type Silent struct {
	// Next answers all other requests. Nil means that they get a status of 400.
	Next Doer

	requests atomic.Int64
}

// Do implements [Doer].
func (s *Silent) Do(r *http.Request) (*http.Response, error) {
	if s.requests.Add(1) == 1 {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if s.Next == nil {
		return &http.Response{StatusCode: http.StatusBadRequest, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
	return s.Next.Do(r)
}

// Requests returns how many requests were made.
func (s *Silent) Requests() int { return int(s.requests.Load()) }

// Endless is a [Doer] whose answers have a string of JSON without end in them. It is safe
// for concurrent use.
type Endless struct{ read atomic.Int64 }

// Do implements [Doer].
func (e *Endless) Do(r *http.Request) (*http.Response, error) {
	header := http.Header{"Content-Type": {"application/json"}}
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(&endless{e: e}), Request: r}, nil
}

// Read returns how many bytes of answers were read.
func (e *Endless) Read() int64 { return e.read.Load() }

type endless struct {
	e     *Endless
	begun bool
}

func (b *endless) Read(p []byte) (n int, err error) {
	if !b.begun {
		b.begun = true
		n = copy(p, `{"Name":"`)
	} else {
		for n = range p {
			p[n] = 'x'
		}
		n = len(p)
	}
	b.e.read.Add(int64(n))
	return n, nil
}
