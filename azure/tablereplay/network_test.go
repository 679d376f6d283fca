package tablereplay_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/azure/tablereplay"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// openOver opens a store whose requests go by another HTTP client. 0 retries means as
// many as without options, -1 none.
func openOver(t *testing.T, c httpproxy.Doer, retries int32) error {
	t.Helper()
	credential, err := aztables.NewSharedKeyCredential("account", "a2V5")
	if err != nil {
		t.Fatal(err)
	}
	var o aztables.ClientOptions
	o.Transport = c
	o.Retry.MaxRetries = retries
	_, err = tablereplay.NewSharedKey(t.Context(), "https://account.table.core.windows.net", credential, "table", &tablereplay.Options{Client: &o})
	return err
}

// TestSilentConnection: a request that nothing answers is made again within seconds.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &httpproxy.Silent{}
		begin := time.Now()
		err := openOver(t, silent, 0)
		if silent.Requests() != 2 {
			t.Errorf("%d requests: %v", silent.Requests(), err)
		}
		if took := time.Since(begin); took > httpclient.AttemptTime+time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// TestLargeAnswer: an answer larger than any of the service's is not kept in memory.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	e := &httpproxy.Endless{}
	err := openOver(t, e, -1)
	if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), httpclient.ErrTooLarge.Error()) {
		t.Errorf("%v, want driver.ErrUnavailable with the bound", err)
	}
	if n := e.Read(); n > httpclient.MaxAnswer+1 {
		t.Errorf("%d bytes of answers were read", n)
	}
}
