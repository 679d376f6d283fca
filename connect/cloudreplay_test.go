package connect_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/azurite"
	"github.com/queue-runtime/queue/testbed/dynalite"
)

// cloudStores returns the URLs of stores on emulators, without their parameters, and those.
func cloudStores(t *testing.T) map[string]string {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test-secret-of-forty-characters-as-of-aws")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("TABLE_KEY", azurite.Key)
	return map[string]string{
		"dynamodb://eu-west-1/replay":              "?endpoint=" + dynalite.Serve(t, nil).URL(),
		"aztable://" + azurite.Account + "/replay": "?key=TABLE_KEY&endpoint=" + azurite.Serve(t).Endpoint(),
	}
}

// A store in a table is opened by its URL once it was made, with the bounds of the URL,
// and what it remembers is there for the next one.
func TestReplayStoreInTable(t *testing.T) {
	for base, parameters := range cloudStores(t) {
		url := base + parameters
		if s, err := connect.OpenReplayStore(t.Context(), url); err == nil || !strings.Contains(err.Error(), "qrt nonces init") {
			t.Errorf("%s: %v, %v before it was made", base, s, err)
		}
		for range 2 {
			if err := connect.InitReplayStore(t.Context(), url); err != nil {
				t.Fatalf("%s: %v", base, err)
			}
		}
		now := time.Now()
		r := replay.Request{
			ID: replay.Identity{Sender: "s", Stream: [16]byte{1}, Sequence: 1}, Token: replay.NewToken(), SealedAt: now, Now: now,
			FreshUntil: now.Add(time.Hour), RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Hour,
		}
		for _, want := range []error{nil, replay.ErrBusy} {
			s, err := connect.OpenReplayStore(t.Context(), url+"&records=2000&keep_stream=400h")
			if err != nil {
				t.Fatalf("%s: %v", base, err)
			}
			c, err := s.Begin(t.Context(), "group", []replay.Request{r})
			if err != nil || c[0].Err != want { //nolint:errorlint // the very error, or none
				t.Errorf("%s: %+v, %v, want %v", base, c, err, want)
			}
			stats, err := s.Stats(t.Context())
			if err != nil || !stats.Shared || !stats.Durable || stats.Capacity.Store.Records != 2000 || stats.Capacity.KeepStream != 400*time.Hour {
				t.Errorf("%s: %+v, %v", base, stats, err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
			r.Token = replay.NewToken()
		}
		for query, want := range map[string]string{
			"&records=-1":          "records is below zero",
			"&records=1&records=2": "records is given 2 times",
			"&colour=1":            `unknown URL parameter "colour"`,
		} {
			if _, err := connect.OpenReplayStore(t.Context(), url+query); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s%s: %v, want %q", base, query, err, want)
			}
		}
	}
}
