package brokers

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/fauxqs"
)

func TestLoopback(t *testing.T) {
	for url, want := range map[string]bool{
		"": false, "http://127.0.0.1:4566": true, "http://[::1]:1": true, "http://localhost:1/": true, "https://localhost.example.com": false,
		"https://sqs.eu-west-1.amazonaws.com": false, "http://127.0.0.1.example.com": false, "http://10.0.0.1": false, "%": false,
	} {
		if got := loopback(aws.String(url)); got != want {
			t.Errorf("loopback(%q) = %v", url, got)
		}
	}
	if loopback(nil) {
		t.Error("no endpoint at all is AWS's own")
	}
}

// TestConsent: a broker that would create queues in an account or beside other queues says so.
func TestConsent(t *testing.T) {
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	for url, want := range map[string]bool{"sqs://eu-west-1/": true, "sqs://eu-west-1/?endpoint=http://127.0.0.1:1": false, "mem://": false, Temporary: false} {
		if b := open(t, url); (b.Consent != "") != want {
			t.Errorf("%q: consent %q", url, b.Consent)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:1")
	if b := open(t, "sqs://eu-west-1/"); b.Consent != "" {
		t.Errorf("an endpoint of the environment on this machine: consent %q", b.Consent)
	}
	file := "sqlite://" + filepath.ToSlash(filepath.Join(t.TempDir(), "queue.db"))
	b := open(t, file)
	if b.Consent != "" {
		t.Errorf("a new file: consent %q", b.Consent)
	}
	if _, err := b.NewQueue(t.Context(), "orders", drivertest.QueueSpec{}); err != nil {
		t.Fatal(err)
	}
	if b := open(t, file); !strings.Contains(b.Consent, "queue.db") {
		t.Errorf("a file with queues: consent %q", b.Consent)
	}
}

// TestFauxqsMissing: the error names the variable and what to install.
func TestFauxqsMissing(t *testing.T) {
	t.Setenv(FauxqsFolder, t.TempDir())
	if _, err := Open(t.Context(), SQSEmulatorURL); !errors.Is(err, fauxqs.ErrNotInstalled) || !strings.Contains(err.Error(), FauxqsFolder) || !strings.Contains(err.Error(), "npm") {
		t.Errorf("%v, want ErrNotInstalled, the variable and npm", err)
	}
}
