package cli_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/testbed/script"

	"github.com/queue-runtime/queue/testbed/azurite"
	"github.com/queue-runtime/queue/testbed/dynalite"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/postgres"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// What the clients of fauxqs call themselves.
const (
	fauxqsRegion = "us-east-1"
	fauxqsKey    = "test"
	fauxqsSecret = "test-secret-of-forty-characters-as-of-aws" //nolint:gosec // G101: it opens nothing
)

// startFauxqs starts fauxqs until the test ends, and returns its URL. If fauxqs is
// not installed it skips the test, or fails it if QRT_REQUIRE_PEERS is 1.
func startFauxqs(t *testing.T) string {
	t.Helper()
	server, err := fauxqs.Start(nil)
	if errors.Is(err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server.URL()
}

// deny stands between clients and a server of SQS, and refuses what a policy
// might: each action in the list, on queues whose name begins so. The form of a
// rule is ACTION:NAME; its path is the list, so that a URL holds it.
func deny(t *testing.T, server string) string {
	t.Helper()
	to, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, action, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
		rules := strings.Split(strings.Trim(r.URL.Path, "/"), ",")
		body := bufio.NewReader(r.Body)
		begin, _ := body.Peek(4096) // where the request names its queue; an error is the end
		for _, rule := range rules {
			denied, name, _ := strings.Cut(rule, ":")
			if strings.TrimSuffix(action, "Batch") == denied && (strings.Contains(string(begin), "/"+name+`"`) || strings.Contains(string(begin), `"`+name+`"`)) {
				w.Header().Set("Content-Type", "application/x-amz-json-1.0")
				w.WriteHeader(http.StatusForbidden)
				_, _ = fmt.Fprintf(w, `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"User u is not authorized to perform: sqs:%s"}`, denied)
				return
			}
		}
		r.Body = struct {
			*bufio.Reader
			closer
		}{body, r.Body}
		r.URL.Path = "/"
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

type closer interface{ Close() error }

// makeQueue is "queue NAME [ATTRIBUTE=VALUE...]": a queue of SQS is made; dead=NAME
// gives it a redrive policy with maxReceiveCount 10, dead=NAME:N with N.
func makeQueue(server string) script.Command {
	client := sqs.New(sqs.Options{
		Region: fauxqsRegion, BaseEndpoint: aws.String(server),
		Credentials: credentials.NewStaticCredentialsProvider(fauxqsKey, fauxqsSecret, ""),
	})
	return func(ts *script.State, neg bool, args []string) {
		if neg || len(args) < 1 {
			ts.Fatalf("usage: queue NAME [ATTRIBUTE=VALUE...]")
		}
		attributes := make(map[string]string)
		if strings.HasSuffix(args[0], ".fifo") {
			attributes["FifoQueue"] = "true"
		}
		ctx := context.Background()
		for _, a := range args[1:] {
			k, v, _ := strings.Cut(a, "=")
			if k != "dead" {
				attributes[k] = v
				continue
			}
			name, count, ok := strings.Cut(v, ":")
			if !ok {
				count = "10"
			}
			u, err := client.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(name)})
			ts.Check(err)
			got, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: u.QueueUrl, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
			ts.Check(err)
			policy, err := json.Marshal(map[string]string{"deadLetterTargetArn": got.Attributes["QueueArn"], "maxReceiveCount": count})
			ts.Check(err)
			attributes["RedrivePolicy"] = string(policy)
		}
		_, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(args[0]), Attributes: attributes})
		ts.Check(err)
	}
}

// TestScriptSQS runs the scripts of SQS, against fauxqs. QRT_BROKER is its URL;
// DENY is the beginning of one that refuses: $DENY/ACTION:QUEUE,...
func TestScriptSQS(t *testing.T) {
	t.Parallel()
	server := startFauxqs(t)
	script.Run(t, "testdata/sqs", &script.Options{Env: map[string]string{
		"AWS_ACCESS_KEY_ID": fauxqsKey, "AWS_SECRET_ACCESS_KEY": fauxqsSecret, "AWS_REGION": fauxqsRegion, "AWS_CONFIG_FILE": os.DevNull,
		"QRT_BROKER": "sqs://" + fauxqsRegion + "/?endpoint=" + server,
		"DENY":       "sqs://" + fauxqsRegion + "/?endpoint=" + deny(t, server),
	}, Commands: map[string]script.Command{"queue": makeQueue(server)}})
}

// TestScriptServiceBus runs the scripts of Service Bus, against the emulator.
func TestScriptServiceBus(t *testing.T) {
	t.Parallel()
	server, err := sbemulator.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, o := range map[string]*sbemulator.QueueOptions{
		"orders":  nil,
		"events":  {RequiresSession: true},
		"hasty":   {LockDuration: 10 * time.Second, MaxDeliveryCount: 2},
		"expires": {DefaultTTL: time.Hour},
	} {
		if err := server.CreateQueue(name, o); err != nil {
			t.Fatal(err)
		}
	}
	script.Run(t, "testdata/servicebus", &script.Options{Env: map[string]string{
		"CONNECTION": server.ConnectionString(), "QRT_BROKER": "sb:///?connection=CONNECTION",
	}})
}

// TestScriptTables runs the scripts with replay stores in the tables of two clouds: NONCES
// is the URL.
func TestScriptTables(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]map[string]string{
		"dynamodb": {
			"NONCES": "dynamodb://eu-west-1/replay?endpoint=" + dynalite.Serve(t, nil).URL(), "AWS_CONFIG_FILE": os.DevNull,
			"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret-of-forty-characters-as-of-aws",
		},
		"aztable": {
			"NONCES":    "aztable://" + azurite.Account + "/replay?key=TABLE_KEY&endpoint=" + azurite.Serve(t).Endpoint(),
			"TABLE_KEY": azurite.Key,
		},
	} {
		t.Run(name, func(t *testing.T) {
			script.Run(t, "testdata/tables", &script.Options{Env: env})
		})
	}
}

// TestScriptPostgres runs the scripts with a replay store in PostgreSQL: NONCES is its URL,
// and BROKER that of a broker in the same database.
func TestScriptPostgres(t *testing.T) {
	t.Parallel()
	server, err := postgres.Start(nil)
	postgres.Require(t, err)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	base := server.URL("postgres", "postgres")
	script.Run(t, "testdata/postgres", &script.Options{Env: map[string]string{"NONCES": base + "?schema=nonces", "BROKER": base}})
}
