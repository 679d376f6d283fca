package sqsqueue

import (
	"context"
	"crypto/fips140"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
)

// MaxBatchBytes is the default of Options.MaxBatchBytes: what SQS takes in one
// request, and at most in one message (Developer Guide, message quotas).
const MaxBatchBytes = 1 << 20

// MaxPoll is the default and the maximum of Options.Poll.
const MaxPoll = 20 * time.Second

// Options configure a [Broker]. The zero value is right for AWS itself.
type Options struct {
	// Endpoint is the base URL of the service. Empty means the region's own.
	Endpoint string

	// AccountID is the account that owns the queues, 12 digits. Empty means the
	// caller's own.
	AccountID string

	// DeadLetterQueue names the dead-letter queue of a queue that has no redrive
	// policy, given the queue's logical name. Nil, or an empty answer, means
	// that such a queue has none. A redrive policy always comes first. The
	// dead-letter queue is of the same kind: the one of a FIFO queue is the FIFO
	// queue of that name, with or without ".fifo" in the answer.
	DeadLetterQueue func(queue string) string

	// MaxBatchBytes is how much one request carries at most, in bytes, 1024 to
	// MaxBatchBytes. 0 means MaxBatchBytes. Set 262144 for a partition or a
	// service in between that has the older limit.
	MaxBatchBytes int

	// SessionBatch is how many messages one request for a session asks for, 1 to
	// 10. 0 means 1. A larger value saves requests if sessions have many messages
	// waiting, because SQS prefers to answer with one group. If they have not, SQS
	// sends messages of other sessions along. Those stay locked until another
	// AcceptSession of this queue takes them, or are given back after a few seconds,
	// which counts as a delivery. Messages that are given back behind a failed one
	// count, too: leave it at 1 if the redrive policy's count is low.
	SessionBatch int

	// Poll is the longest that one ReceiveMessage waits at SQS, 1 s to MaxPoll
	// in whole seconds. 0 means MaxPoll. It bounds how long Close waits for a
	// poll under way; a shorter one costs more requests while a queue is idle.
	Poll time.Duration
}

func (o *Options) validate() error {
	switch {
	case o.MaxBatchBytes != 0 && (o.MaxBatchBytes < 1024 || o.MaxBatchBytes > MaxBatchBytes):
		return errors.New("sqsqueue: Options.MaxBatchBytes is outside of 1024 to 1048576")
	case o.Poll != 0 && (o.Poll < time.Second || o.Poll > MaxPoll || o.Poll%time.Second != 0):
		return errors.New("sqsqueue: Options.Poll is not a whole number of seconds from 1 to 20")
	case o.SessionBatch < 0 || o.SessionBatch > maxEntries:
		return errors.New("sqsqueue: Options.SessionBatch is outside of 1 to 10")
	case o.AccountID != "" && !isAccount(o.AccountID):
		return errors.New("sqsqueue: Options.AccountID is not 12 digits")
	}
	return nil
}

func isAccount(s string) bool {
	if len(s) != 12 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Broker is SQS in one region, with one set of credentials. It is safe for
// concurrent use.
type Broker struct {
	api          api
	o            Options
	client       *httpclient.Client // nil in tests without HTTP
	credentials  *markedCredentials // nil without any
	surplusGrace time.Duration      // as the constant, but in tests

	mu     sync.Mutex // guards what follows; never held across a call
	closed bool
	urls   map[string]string // of queue names that were looked up
	queues map[*queue]struct{}
}

var _ driver.Broker = (*Broker)(nil)

// New returns a Broker over the SDK's configuration, which brings region,
// credentials, retries and HTTP client. o may be nil. It does no I/O. It fails
// if o is out of range or cfg has no region.
func New(cfg aws.Config, o *Options) (*Broker, error) {
	if o == nil {
		o = &Options{}
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	if cfg.Region == "" {
		return nil, errors.New("sqsqueue: no region: set it in the configuration, AWS_REGION or the URL")
	}
	return newFromConfig(cfg, o, httpclient.AttemptTime), nil
}

// newFromConfig returns a Broker whose attempts take that long at most.
func newFromConfig(cfg aws.Config, o *Options, attempt time.Duration) *Broker {
	var c *httpclient.Client
	var credentials *markedCredentials
	client := sqs.NewFromConfig(cfg, func(so *sqs.Options) {
		if o.Endpoint != "" {
			so.BaseEndpoint = aws.String(o.Endpoint)
		}
		if so.Credentials != nil {
			credentials = &markedCredentials{CredentialsProvider: so.Credentials}
			so.Credentials = credentials
		}
		c = httpclient.New(so.HTTPClient, attempt)
		so.HTTPClient = c
		// The SDK checks bodies by MD5, which panics in this mode. TLS covers
		// the transport, and the envelope everything behind it.
		if fips140.Enforced() {
			so.DisableMessageChecksumValidation = true
		}
	})
	b := newBroker(client, o)
	b.client, b.credentials = c, credentials
	return b
}

func newBroker(a api, o *Options) *Broker {
	b := &Broker{api: a, o: *o, surplusGrace: surplusGrace, urls: make(map[string]string), queues: make(map[*queue]struct{})}
	if b.o.MaxBatchBytes == 0 {
		b.o.MaxBatchBytes = MaxBatchBytes
	}
	if b.o.Poll == 0 {
		b.o.Poll = MaxPoll
	}
	return b
}

// Open implements driver.Broker. A FIFO queue is opened by its name without
// ".fifo", which is its logical name on every broker; the full name is taken
// too. If both "name" and "name.fifo" exist, name means the standard queue.
//
// It needs sqs:GetQueueUrl and sqs:GetQueueAttributes. QueueOptions.Lock is
// rounded up to whole seconds.
func (b *Broker) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	full, url, err := b.lookup(ctx, name, b.o.AccountID)
	if err != nil {
		return nil, err
	}
	q, err := b.open(ctx, full, url, o, asQueue)
	if err != nil {
		return nil, err
	}
	return q, nil
}

func (b *Broker) open(ctx context.Context, full, url string, o *driver.QueueOptions, deadLetters bool) (*queue, error) {
	attrs, err := b.attributes(ctx, url)
	if err != nil {
		return nil, err
	}
	if o == nil {
		o = &driver.QueueOptions{}
	}
	q, err := newQueue(b, full, url, attrs, o, deadLetters)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		q.cancel()
		return nil, &driver.Error{Kind: driver.Closed}
	}
	b.queues[q] = struct{}{}
	return q, nil
}

// LogicalName returns the name of a queue that is the same on every broker:
// without SQS's ".fifo".
func (*Broker) LogicalName(queue string) string { return strings.TrimSuffix(queue, fifoSuffix) }

const fifoSuffix = ".fifo"

// checkName applies SQS's rule for names (API Reference, CreateQueue).
func checkName(name string) error {
	base := strings.TrimSuffix(name, fifoSuffix)
	if base == "" || len(name) > 80 {
		return driver.Errorf(driver.InvalidName, "a name of %d bytes: SQS takes 1 to 80, \".fifo\" included", len(name))
	}
	for i := range len(base) {
		switch c := base[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return driver.Errorf(driver.InvalidName, "byte %d of the name: SQS takes letters, digits, hyphens and underscores", i)
		}
	}
	return nil
}

// lookup finds the URL of a queue by its name, or by its name with ".fifo", and
// remembers it.
func (b *Broker) lookup(ctx context.Context, name, account string) (full, url string, err error) {
	candidates := []string{name}
	if !strings.HasSuffix(name, fifoSuffix) && len(name)+len(fifoSuffix) <= 80 {
		candidates = append(candidates, name+fifoSuffix)
	}
	var first error
	for _, full := range candidates {
		url, err := b.url(ctx, full, account)
		if err == nil {
			return full, url, nil
		}
		if first == nil {
			first = err
		}
		// A policy for one queue only answers the other name with
		// AccessDenied, so both mean: try the next.
		if k := driver.KindOf(err); k != driver.NotFound && k != driver.Permission {
			return "", "", err
		}
	}
	return "", "", first
}

func (b *Broker) url(ctx context.Context, name, account string) (string, error) {
	key := account + "/" + name
	b.mu.Lock()
	url, ok, closed := b.urls[key], b.urls[key] != "", b.closed
	b.mu.Unlock()
	if closed {
		return "", &driver.Error{Kind: driver.Closed}
	}
	if ok {
		return url, nil
	}
	in := &sqs.GetQueueUrlInput{QueueName: aws.String(name)}
	if account != "" {
		in.QueueOwnerAWSAccountId = aws.String(account)
	}
	out, err := b.api.GetQueueUrl(ctx, in)
	if err != nil {
		return "", b.classify(ctx, "GetQueueUrl", "", err)
	}
	url = aws.ToString(out.QueueUrl)
	b.mu.Lock()
	b.urls[key] = url
	b.mu.Unlock()
	return url, nil
}

// classify classifies an error of an operation on the queue of that URL.
func (b *Broker) classify(ctx context.Context, operation, url string, err error) error {
	err = classify(ctx, operation, err)
	switch {
	case errors.Is(err, driver.ErrNotFound) && url != "":
		b.forget(url)
	case isExpired(err) && b.client != nil && b.client.Accepted():
		// What hands credentials out has newer ones, or will have.
		b.credentials.invalidate()
		err = &driver.Error{Kind: driver.Unavailable, Err: errors.Unwrap(err)}
	case isUnknownKey(err):
		b.credentials.invalidate() // the next request takes those that are there by then
	}
	return err
}

// forget drops a URL whose queue turned out not to exist.
func (b *Broker) forget(url string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, u := range b.urls {
		if u == url {
			delete(b.urls, key)
		}
	}
}

// Close implements driver.Broker. It closes every queue at once, and so waits
// for polls under way, up to Options.Poll or the end of ctx.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	queues := make([]*queue, 0, len(b.queues))
	for q := range b.queues {
		queues = append(queues, q)
	}
	b.mu.Unlock()
	errs := make([]error, len(queues))
	var wg sync.WaitGroup
	for i, q := range queues {
		wg.Go(func() { errs[i] = q.Close(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
