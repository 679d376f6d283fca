//go:build unix

package azurite_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/queue-runtime/queue/testbed/azurite"
)

// TestRestart: what a server has confirmed outlives its Restart, also if that comes while the
// server writes its file, as it does every 5 seconds.
func TestRestart(t *testing.T) {
	t.Parallel()
	s := azurite.Serve(t)
	if status, err := request(t.Context(), s, http.MethodPost, "Tables", `{"TableName":"entities"}`); err != nil || status != http.StatusCreated {
		t.Fatalf("create a table: %d, %v", status, err)
	}
	// The server writes to this name and renames it. Here it cannot finish before the test
	// reads, because a pipe does not hold as much.
	pipe := s.Data() + "~"
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	entity := fmt.Sprintf(`{"PartitionKey":"p","RowKey":"r","A":%[1]q,"B":%[1]q,"C":%[1]q,"D":%[1]q}`, strings.Repeat("x", 30<<10))
	if status, err := request(t.Context(), s, http.MethodPost, "entities", entity); err != nil || status != http.StatusCreated {
		t.Fatalf("insert: %d, %v", status, err)
	}
	reader, err := os.Open(pipe) // waits until the server has opened it
	if err != nil {
		t.Fatal(err)
	}
	direct, err := url.Parse(s.Direct())
	if err != nil {
		t.Fatal(err)
	}
	restarted := make(chan error, 1)
	go func() { restarted <- s.Restart() }()
	for { // until the server takes no connections any more: it is about to end
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", direct.Host)
		if err != nil {
			break
		}
		_ = c.Close()
	}
	if _, err := io.Copy(io.Discard, reader); err != nil {
		t.Error(err)
	}
	_ = reader.Close()
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	if status, err := request(t.Context(), s, http.MethodGet, "entities(PartitionKey='p',RowKey='r')", ""); err != nil || status != http.StatusOK {
		t.Errorf("what was confirmed before the restart: %d, %v", status, err)
	}
}

// request sends one request of the Table service's REST API, signed with a shared key as
// its documentation says (Authorize with Shared Key, Shared Key Lite for Table service).
func request(ctx context.Context, s *azurite.Server, method, path, body string) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, method, s.Endpoint()+"/"+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	key, err := base64.StdEncoding.DecodeString(azurite.Key)
	if err != nil {
		return 0, err
	}
	date := time.Now().UTC().Format(http.TimeFormat)
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s\n/%s%s", date, azurite.Account, r.URL.EscapedPath())
	r.Header.Set("Authorization", "SharedKeyLite "+azurite.Account+":"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	r.Header.Set("X-Ms-Date", date)
	r.Header.Set("X-Ms-Version", "2020-12-06")
	r.Header.Set("Accept", "application/json;odata=nometadata")
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, answer.Body.Close()) }()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}
