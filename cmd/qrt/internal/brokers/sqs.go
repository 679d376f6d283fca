package brokers

import (
	"context"
	"crypto/fips140"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/logging"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/testbed/sqsattack"
)

// openSQS makes queues in SQS by the SDK, each with a dead-letter queue, and
// removes them at the end.
func openSQS(ctx context.Context, rawURL string) (*Broker, error) {
	p, err := connect.OpenBroker(ctx, rawURL) // for what is wrong with the URL
	if err != nil {
		return nil, err
	}
	if err := p.Close(ctx); err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, errors.New("sqs: the URL does not parse")
	}
	// The SDK's own lines would go to standard error, whatever the program logs
	// to; what they tell comes as an error, too.
	load := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	if u.Hostname() != "" {
		load = append(load, config.WithRegion(u.Hostname()))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, err
	}
	if e := u.Query().Get("endpoint"); e != "" {
		cfg.BaseEndpoint = aws.String(e)
	}
	b, maker := newSQS(cfg)
	b.Title = "SQS, by queues that are made and removed"
	b.Connect = func(ctx context.Context) (driver.Broker, error) { return connect.OpenBroker(ctx, rawURL) }
	if !loopback(maker.client.Options().BaseEndpoint) {
		b.Consent = "this makes queues, sends to them and removes them in the AWS account of the SDK's credentials, which costs money"
	}
	b.close = maker.close
	return b, nil
}

// newSQS returns a Broker without Connect and close. It creates FIFO queues for
// sessions and de-duplication, and standard queues otherwise.
func newSQS(cfg aws.Config) (*Broker, *queueMaker) {
	maker := &queueMaker{client: sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		o.HTTPClient = httpclient.PlainBodies{Doer: o.HTTPClient}
		o.DisableMessageChecksumValidation = fips140.Enforced() // it is MD5, which panics in this mode
	})}
	return &Broker{
		NewQueue:     maker.make,
		Attacker:     sqsattack.New(maker.client),
		Missing:      "qrt-missing-" + rand.Text(),
		InvalidNames: []string{"with space", "a/b", strings.Repeat("n", 81)},
		Slack:        10 * time.Second,
		Foreign:      func(stack string) bool { return strings.Contains(stack, "net/http.(*persistConn)") },
	}, maker
}

// loopback reports whether an endpoint lies on this machine, where no account of
// a cloud does.
func loopback(endpoint *string) bool {
	u, err := url.Parse(aws.ToString(endpoint))
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// queueMaker makes queues and removes them.
type queueMaker struct {
	client *sqs.Client

	mu   sync.Mutex // guards made
	made []*string  // URLs
}

func (q *queueMaker) make(ctx context.Context, purpose string, s drivertest.QueueSpec) (string, error) {
	name := sqsName(purpose) + "-" + strings.ToLower(rand.Text()[:12])
	suffix := ""
	attributes := map[string]string{"VisibilityTimeout": "30"}
	if s.Sessions || s.Dedup {
		suffix = ".fifo"
		attributes["FifoQueue"] = "true"
	}
	if s.ShortLock {
		attributes["VisibilityTimeout"] = "1"
	}
	deliveries := s.MaxDeliveries
	if deliveries == 0 {
		deliveries = 1000 // the most that SQS takes
	}
	dead, err := q.create(ctx, name+"-dead"+suffix, attributes)
	if err != nil {
		return "", err
	}
	found, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: dead, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err != nil {
		return "", err
	}
	attributes["RedrivePolicy"] = fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, found.Attributes["QueueArn"], deliveries)
	_, err = q.create(ctx, name+suffix, attributes)
	return name, err
}

// sqsName is purpose as far as it can begin the name of a queue: letters, digits,
// hyphens and underscores.
func sqsName(purpose string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a' && r != '_' || r > 'z' {
			return '-'
		}
		return r
	}, purpose[:min(len(purpose), 30)])
}

func (q *queueMaker) create(ctx context.Context, name string, attributes map[string]string) (*string, error) {
	out, err := q.client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name), Attributes: attributes})
	if err != nil {
		return nil, fmt.Errorf("make queue %s: %w", name, err)
	}
	q.mu.Lock()
	q.made = append(q.made, out.QueueUrl)
	q.mu.Unlock()
	return out.QueueUrl, nil
}

func (q *queueMaker) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	q.mu.Lock()
	defer q.mu.Unlock()
	var errs []error
	for _, u := range q.made {
		_, err := q.client.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: u})
		errs = append(errs, err)
	}
	q.made = nil
	return errors.Join(errs...)
}
