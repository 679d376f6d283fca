package dynamoreplay_test

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

	"github.com/queue-runtime/queue/aws/dynamoreplay"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// over is config with another HTTP client.
func over(c httpproxy.Doer) aws.Config {
	cfg := config()
	cfg.HTTPClient = c
	return cfg
}

// TestSilentConnection: a request that nothing answers is made again, long before the time of
// the whole call is over.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &httpproxy.Silent{}
		begin := time.Now()
		_, err := dynamoreplay.New(t.Context(), over(silent), table, nil)
		if silent.Requests() != 2 {
			t.Errorf("%d requests: %v", silent.Requests(), err)
		}
		if took := time.Since(begin); took > httpclient.AttemptTime+4*time.Second { // the SDK's pauses
			t.Errorf("it took %s", took)
		}
	})
}

// refusing refuses every request with one error. It hands out credentials, and counts them.
type refusing struct {
	code    string
	fetched atomic.Int32
}

func (r *refusing) Retrieve(context.Context) (aws.Credentials, error) {
	r.fetched.Add(1)
	return aws.Credentials{AccessKeyID: "a", SecretAccessKey: "secret"}, nil
}

func (r *refusing) Do(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
		Body: io.NopCloser(strings.NewReader(`{"__type":"com.amazon.coral.service#` + r.code + `","message":"no"}`)),
	}, nil
}

// TestRefusedCredentials: credentials that the service does not take are fetched anew for
// the next call, and those that may not do something are kept.
func TestRefusedCredentials(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]int32{"ExpiredTokenException": 2, "UnrecognizedClientException": 2, "InvalidSignatureException": 2, "AccessDeniedException": 1} {
		r := &refusing{code: code}
		cfg := over(r)
		cfg.Credentials = aws.NewCredentialsCache(r)
		for range 2 {
			if _, err := dynamoreplay.New(t.Context(), cfg, table, nil); !errors.Is(err, driver.ErrPermission) {
				t.Errorf("%s: %v, want driver.ErrPermission", code, err)
			}
		}
		if n := r.fetched.Load(); n != want {
			t.Errorf("%s: the credentials were fetched %d times, want %d", code, n, want)
		}
	}
}

// TestLargeAnswer: an answer larger than any of DynamoDB's is not kept in memory.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	e := &httpproxy.Endless{}
	_, err := dynamoreplay.New(t.Context(), over(e), table, nil)
	if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), httpclient.ErrTooLarge.Error()) {
		t.Errorf("%v, want driver.ErrUnavailable with the bound", err)
	}
	if n := e.Read(); n > 4*(httpclient.MaxAnswer+1) { // the SDK's attempts
		t.Errorf("%d bytes of answers were read", n)
	}
}
