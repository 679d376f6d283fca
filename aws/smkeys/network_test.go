package smkeys

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// over returns a provider whose requests go by another HTTP client.
func (s *server) over(t *testing.T, c httpproxy.Doer, repeat bool) *Provider {
	t.Helper()
	cfg := s.config()
	cfg.HTTPClient = c
	if repeat {
		cfg.Retryer = nil // the SDK's
	}
	p, err := New(cfg, "k", &Options{Layout: Versions})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSilentConnection: a request that nothing answers ends within seconds and is made
// again. A client that repeats none says that there was no answer.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.putBinary("k", "a", secretOf(1), stageCurrent)
		begin := time.Now()
		_, err := s.over(t, &httpproxy.Silent{Next: s}, false).ValidKeyIDs(t.Context())
		if !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("%v, want that there was no answer", err)
		}
		silent := &httpproxy.Silent{Next: s}
		ids, err := s.over(t, silent, true).ValidKeyIDs(t.Context())
		if err != nil || len(ids) != 1 || silent.Requests() != 2 {
			t.Errorf("%v, %v after %d requests", ids, err, silent.Requests())
		}
		if took := time.Since(begin); took > 2*httpclient.AttemptTime+time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// rotating hands out the credentials "old" once and then "new", and passes requests on that
// are signed with "new". Others have expired.
type rotating struct {
	next    httpproxy.Doer
	fetched atomic.Int32
}

func (r *rotating) Retrieve(context.Context) (aws.Credentials, error) {
	id := "new"
	if r.fetched.Add(1) == 1 {
		id = "old"
	}
	return aws.Credentials{AccessKeyID: id, SecretAccessKey: "secret"}, nil
}

func (r *rotating) Do(q *http.Request) (*http.Response, error) {
	if strings.Contains(q.Header.Get("Authorization"), "Credential=new/") {
		return r.next.Do(q)
	}
	return &http.Response{
		StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/x-amz-json-1.1"}},
		Body: io.NopCloser(strings.NewReader(`{"__type":"com.amazon.coral.service#ExpiredTokenException","message":"expired"}`)),
	}, nil
}

// TestExpiredToken: credentials that the service refuses are fetched anew for the next
// request.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	s := newServer()
	s.putBinary("k", "a", secretOf(1), stageCurrent)
	r := &rotating{next: s}
	cfg := s.config()
	cfg.HTTPClient, cfg.Credentials = r, aws.NewCredentialsCache(r)
	p, err := New(cfg, "k", &Options{Layout: Versions})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.ValidKeyIDs(t.Context()); !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("with credentials that have expired: %v, want ErrUnavailable", err)
	}
	if ids, err := p.ValidKeyIDs(t.Context()); err != nil || len(ids) != 1 || r.fetched.Load() != 2 {
		t.Errorf("then: %v, %v, fetched %d times; want the key, and twice", ids, err, r.fetched.Load())
	}
}

// TestLargeAnswer: an answer larger than any of Secrets Manager's is not kept in memory.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	e := &httpproxy.Endless{}
	_, err := newServer().over(t, e, false).ValidKeyIDs(t.Context())
	if !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), httpclient.ErrTooLarge.Error()) {
		t.Errorf("%v, want keys.ErrUnavailable with the bound", err)
	}
	if n := e.Read(); n > httpclient.MaxAnswer+1 {
		t.Errorf("%d bytes of an answer were read", n)
	}
}
