package sqsqueue

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/awspeer"
)

// refusedActions are those of p that are refused, with a "dead:" before those on
// the dead-letter queue.
func refusedActions(t *testing.T, p *Broker, name string) (refused []string, tried int) {
	t.Helper()
	list, err := p.Permissions(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		action := strings.TrimPrefix(x.Action, "sqs:")
		if x.DeadLetters {
			action = "dead:" + action
		}
		if x.Err != nil {
			if !errors.Is(x.Err, driver.ErrPermission) {
				t.Errorf("%s: %v", action, x.Err)
			}
			refused = append(refused, action)
		}
	}
	return refused, len(list)
}

func TestPermissions(t *testing.T) {
	f := newFakeSQS()
	f.create("dead", nil)
	f.create("q", fakeRedrive("dead", 10))
	f.create("alone", nil)
	p := newBroker(f, &Options{})
	denied := ""
	f.fail = func(action string) error {
		switch {
		case strings.Contains(denied, action+" "):
			return &smithy.GenericAPIError{Code: "AccessDenied", Message: "User u is not authorized"}
		case action == "ReceiveMessage":
			return &smithy.GenericAPIError{Code: "InvalidParameterValue", Message: "Value 11 for parameter MaxNumberOfMessages is invalid."}
		case strings.HasSuffix(action, "Batch"):
			return &types.EmptyBatchRequest{}
		}
		return nil
	}
	for name, c := range map[string]struct {
		queue, denied string
		refused       string
		tried         int
	}{
		"all":             {"q", "", "", 10},
		"no dead letters": {"alone", "", "", 5},
		"receiver":        {"q", "SendMessageBatch ", "SendMessage dead:SendMessage", 10},
		"sender":          {"alone", "ReceiveMessage DeleteMessageBatch ChangeMessageVisibilityBatch ", "ReceiveMessage DeleteMessage ChangeMessageVisibility", 5},
		// What cannot be read cannot tell of a dead-letter queue either.
		"attributes": {"q", "GetQueueAttributes ", "GetQueueAttributes", 5},
	} {
		denied = c.denied
		got, tried := refusedActions(t, p, c.queue)
		if strings.Join(got, " ") != c.refused || tried != c.tried {
			t.Errorf("%s: refused %q of %d, want %q of %d", name, got, tried, c.refused, c.tried)
		}
	}
	// An outage is not taken for a right.
	denied = ""
	f.fail = func(string) error {
		return &smithy.GenericAPIError{Code: "ServiceUnavailable", Fault: smithy.FaultServer}
	}
	list, err := p.Permissions(t.Context(), "alone")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		if driver.KindOf(x.Err) != driver.Unavailable {
			t.Errorf("%s during an outage: %v", x.Action, x.Err)
		}
	}
	for _, name := range []string{"missing", "a b"} {
		if _, err := newBroker(newFakeSQS(), &Options{}).Permissions(t.Context(), name); err == nil {
			t.Errorf("%q: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.fail = func(string) error { return context.Canceled }
	if _, err := p.Permissions(ctx, "alone"); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

// TestPermissionsDoNothing: the calls reach the service, and a message that lies
// there is as it was.
func TestPermissionsDoNothing(t *testing.T) {
	cfg := awspeer.Config(awspeer.Fauxqs(t))
	client := rawClient(cfg)
	made, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("permissions")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: made.QueueUrl, MessageBody: aws.String("here")}); err != nil {
		t.Fatal(err)
	}
	called := 0
	cfg.HTTPClient = counting{http.DefaultClient, &called}
	p, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if refused, tried := refusedActions(t, p, "permissions"); len(refused) > 0 || tried != 5 {
		t.Errorf("refused %q of %d", refused, tried)
	}
	if called != 6 { // with GetQueueUrl
		t.Errorf("%d calls reached the service, want 6", called)
	}
	out, err := client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
		QueueUrl: made.QueueUrl, MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameApproximateReceiveCount},
	})
	if err != nil || len(out.Messages) != 1 || out.Messages[0].Attributes["ApproximateReceiveCount"] != "1" {
		t.Errorf("afterwards %+v, %v", out, err)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// counting counts the requests that are answered.
type counting struct {
	sqs.HTTPClient
	n *int
}

// Do implements sqs.HTTPClient.
func (c counting) Do(r *http.Request) (*http.Response, error) {
	a, err := c.HTTPClient.Do(r)
	if err == nil {
		*c.n++
	}
	return a, err
}
