package sqsqueue

import (
	"crypto/fips140"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/testbed/awspeer"
)

// TestMain lets more tests run at once than there are processors: those against
// a peer mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "40"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	code := m.Run()
	awspeer.Stop()
	os.Exit(code)
}

// live returns the configuration of real AWS, where the environment asks for it.
func live(t *testing.T) aws.Config {
	t.Helper()
	if os.Getenv("QRT_SQS_LIVE") == "" {
		t.Skip("QRT_SQS_LIVE is not set: no test against AWS itself, which costs money")
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Credentials.Retrieve(t.Context()); err != nil {
		t.Skip("QRT_SQS_LIVE is set and there are no AWS credentials")
	}
	return cfg
}

// rawClient is a client of the SDK, past the driver.
func rawClient(cfg aws.Config) *sqs.Client {
	return sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		o.HTTPClient = httpclient.New(o.HTTPClient, httpclient.AttemptTime)
		o.DisableMessageChecksumValidation = fips140.Enforced() // MD5
	})
}

// counts asks fauxqs how often each action was called since the last reset.
func counts(t *testing.T, url string) map[string]int {
	t.Helper()
	out := make(map[string]int)
	res, err := http.Get(url + "/counts")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func resetCounts(t *testing.T, url string) {
	t.Helper()
	res, err := http.Post(url+"/counts/reset", "application/x-amz-json-1.0", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
}
