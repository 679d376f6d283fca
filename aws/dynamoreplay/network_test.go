package dynamoreplay_test

import (
	"errors"
	"strings"
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
