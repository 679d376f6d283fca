package testbed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go/logging"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/providers"
)

// openSQS makes queues in SQS by the SDK, each with a dead-letter queue, and
// removes them at the end. FIFO queues serve where sessions or de-duplication are
// asked for, and standard ones else.
func openSQS(ctx context.Context, rawURL string) (*Bed, error) {
	p, err := providers.OpenQueue(ctx, rawURL) // for what is wrong with the URL
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
	maker := &queueMaker{client: sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		if e := u.Query().Get("endpoint"); e != "" {
			o.BaseEndpoint = aws.String(e)
		}
	})}
	return &Bed{
		Title:        "AWS SQS, by queues that are made and removed",
		Connect:      func(ctx context.Context) (driver.Provider, error) { return providers.OpenQueue(ctx, rawURL) },
		NewQueue:     maker.make,
		Missing:      "qrt-missing-" + rand.Text(),
		InvalidNames: []string{"with space", "a/b", strings.Repeat("n", 81)},
		Slack:        10 * time.Second,
		Foreign:      func(stack string) bool { return strings.Contains(stack, "net/http.(*persistConn)") },
		close:        maker.close,
	}, nil
}

// queueMaker makes queues and removes them.
type queueMaker struct {
	client *sqs.Client

	mu   sync.Mutex // guards made
	made []*string  // URLs
}

func (q *queueMaker) make(ctx context.Context, purpose string, s drivertest.QueueSpec) (string, error) {
	name := purpose[:min(len(purpose), 30)] + "-" + strings.ToLower(rand.Text()[:12])
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
