package kvkeys

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// askOver asks a vault for a key by another HTTP client. 0 retries
// means as many as without options, -1 none.
func askOver(t *testing.T, c httpproxy.Doer, retries int32) error {
	t.Helper()
	var o azsecrets.ClientOptions
	o.Transport = c
	o.Retry.MaxRetries = retries
	p, err := New(vaultURL, identity{}, "", &Options{Client: &o})
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.GetKey(t.Context(), "k1")
	return err
}

// TestSilentConnection: a request that nothing answers is made again within seconds.
func TestSilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := &httpproxy.Silent{}
		begin := time.Now()
		err := askOver(t, silent, 0)
		if silent.Requests() != 2 {
			t.Errorf("%d requests: %v", silent.Requests(), err)
		}
		if took := time.Since(begin); took > httpclient.AttemptTime+3*time.Second { // the SDK's pauses
			t.Errorf("it took %s", took)
		}
	})
}

// TestLargeAnswer: an answer larger than any of Key Vault's is not kept in memory.
func TestLargeAnswer(t *testing.T) {
	t.Parallel()
	e := &httpproxy.Endless{}
	err := askOver(t, e, -1)
	if !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), httpclient.ErrTooLarge.Error()) {
		t.Errorf("%v, want keys.ErrUnavailable with the bound", err)
	}
	if n := e.Read(); n > httpclient.MaxAnswer+1 {
		t.Errorf("%d bytes of answers were read", n)
	}
}
