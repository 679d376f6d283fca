package sqsqueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

const (
	// maxVisibility is how long SQS holds a message for one receipt at most,
	// extensions included (API Reference, ChangeMessageVisibility).
	maxVisibility = 12 * time.Hour
	// maxSendDelay is the longest DelaySeconds (API Reference, SendMessage).
	maxSendDelay = 15 * time.Minute
	// defaultVisibility is SQS's own default; it stands in for a queue that
	// hides what is received for no time at all.
	defaultVisibility = 30 * time.Second
	// smallBatch is what SQS took in a request until August 2025; some partitions and
	// emulators still do. A queue whose messages may not be larger gets no larger
	// requests.
	smallBatch = 256 << 10
	// The range of MessageRetentionPeriod (API Reference, SetQueueAttributes).
	minRetention = time.Minute
	maxRetention = 14 * 24 * time.Hour
	// maxEntries is how many entries a request has at most.
	maxEntries = 10
)

// queue is one queue, and whatever was received from it and is not settled.
type queue struct {
	driver.Unimplemented

	broker      *Broker
	name        string // SQS's own, with ".fifo"
	url         string
	fifo        bool
	deadLetters bool // this is a dead-letter queue, opened by DeadLetters
	caps        driver.Capabilities
	lock        time.Duration // whole seconds
	limit       int           // bytes of one message on the wire
	batchLimit  int           // bytes of one request to send
	minPoll     int32         // seconds; what wait 0 becomes
	target      deadLetterTarget

	ctx    context.Context // of polls; ends when Close stops waiting for them
	cancel context.CancelFunc
	gone   chan struct{} // closed when Close has nothing left to wait for

	mu     sync.Mutex // guards what follows; never held across a call
	closed bool
	work   sync.WaitGroup // polls and requests of its own; added to under mu, while open or by one of them
	dispatcher
	deletions
}

var _ driver.Queue = (*queue)(nil)

// redrivePolicy is the JSON of the attribute RedrivePolicy. SQS writes the count
// as a number, some tools as a string.
type redrivePolicy struct {
	Target string      `json:"deadLetterTargetArn"`
	Count  json.Number `json:"maxReceiveCount"`
}

func (b *Broker) attributes(ctx context.Context, url string) (map[string]string, error) {
	// All: a standard queue answers an error to the name of a FIFO attribute.
	out, err := b.api.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl:       aws.String(url),
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		return nil, b.classify(ctx, "GetQueueAttributes", url, err)
	}
	return out.Attributes, nil
}

// What a queue is opened as: for its own messages, or as the dead letters of another.
const (
	asQueue       = false
	asDeadLetters = true
)

func newQueue(b *Broker, full, url string, attrs map[string]string, o *driver.QueueOptions, deadLetters bool) (*queue, error) {
	q := &queue{broker: b, name: full, url: url, fifo: strings.HasSuffix(full, fifoSuffix), deadLetters: deadLetters}
	number := func(name types.QueueAttributeName, fallback int) int {
		if n, err := strconv.Atoi(attrs[string(name)]); err == nil && n >= 0 {
			return n
		}
		return fallback
	}
	q.lock = time.Duration(number(types.QueueAttributeNameVisibilityTimeout, 0)) * time.Second
	if q.lock == 0 {
		q.lock = defaultVisibility
	}
	if o.Lock != 0 {
		if o.Lock < 0 || o.Lock > maxVisibility {
			return nil, driver.Unsupported(fmt.Sprintf("a lock of %s: SQS takes 1 s to 12 h", o.Lock))
		}
		q.lock = (o.Lock + time.Second - 1).Truncate(time.Second)
	}
	q.limit = min(number(types.QueueAttributeNameMaximumMessageSize, MaxBatchBytes), b.o.MaxBatchBytes)
	q.batchLimit = min(max(q.limit, smallBatch), b.o.MaxBatchBytes)
	if number(types.QueueAttributeNameReceiveMessageWaitTimeSeconds, 0) > 0 {
		// The SDK does not send a zero, so the queue's own wait would apply.
		q.minPoll = 1
	}
	retention, err := retentionOf(attrs[string(types.QueueAttributeNameMessageRetentionPeriod)])
	if err != nil {
		return nil, err
	}
	maxDeliveries := 0
	if raw := attrs[string(types.QueueAttributeNameRedrivePolicy)]; raw != "" {
		var policy redrivePolicy
		if err := json.Unmarshal([]byte(raw), &policy); err != nil {
			return nil, driver.Errorf(driver.Other, "the queue's RedrivePolicy does not parse")
		}
		target, err := parseARN(policy.Target)
		if err != nil {
			return nil, err
		}
		q.target = target
		if n, err := policy.Count.Int64(); err == nil && n > 0 {
			maxDeliveries = int(n)
		}
	} else if b.o.DeadLetterQueue != nil {
		target, err := configuredTarget(full, b.o.DeadLetterQueue(b.LogicalName(full)), b.o.AccountID)
		if err != nil {
			return nil, err
		}
		q.target = target
	}
	q.caps = driver.Capabilities{
		AbandonDelay:  driver.Native,
		MaxBody:       maxBody(q.limit),
		MaxBatch:      maxEntries,
		MaxBatchBytes: q.batchLimit,
		MaxAttributes: maxAttributes,
		MaxDeliveries: maxDeliveries,
		Lock:          q.lock,
		MinLock:       time.Second,
		MaxLock:       maxVisibility,
		Retention:     retention,
	}
	switch {
	case deadLetters: // received from and settled, nothing else
		q.target = deadLetterTarget{}
		q.caps.MaxDelay = maxVisibility
	case q.fifo:
		q.caps.Sessions = driver.Emulated
		q.caps.SessionGaps = true
		q.caps.Dedup = driver.Native
		q.caps.MaxDelay = maxVisibility
	default:
		q.caps.ReceiveBatch = maxEntries
		q.caps.Schedule = driver.Native
		q.caps.MaxDelay = maxSendDelay
	}
	if q.target.name != "" {
		q.caps.DeadLetter = driver.Copy
	}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	q.gone = make(chan struct{})
	q.dispatcher.init()
	return q, nil
}

// retentionOf reads how long the queue keeps messages, 0 if it does not say. What is
// reported decides how old a message may be under queue.Strict, so it is kept within
// what SQS can do.
func retentionOf(seconds string) (time.Duration, error) {
	if seconds == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(seconds, 10, 32)
	if err != nil || n <= 0 {
		return 0, driver.Errorf(driver.Other, "the queue's MessageRetentionPeriod is not a number of seconds above zero")
	}
	return min(max(time.Duration(n)*time.Second, minRetention), maxRetention), nil
}

// The room for metadata that a message of the largest body has, and that a
// dead-letter reason has in any message.
const (
	metadataReserve   = 16 << 10
	deadLetterReserve = 1 << 10
)

// maxBody is the longest body that fits a message of limit bytes in base64, with
// metadata.
func maxBody(limit int) int { return (limit - min(metadataReserve, limit/4)) / 4 * 3 }

// Capabilities implements driver.Queue.
func (q *queue) Capabilities() driver.Capabilities { return q.caps }

// Stats implements driver.Queue. SQS's counts are estimates that settle about a
// minute after the last change. Messages that an abandon delays count as in
// flight.
func (q *queue) Stats(ctx context.Context) (driver.Stats, error) {
	if err := q.check(ctx); err != nil {
		return driver.Stats{}, err
	}
	attrs, err := q.broker.attributes(ctx, q.url)
	if err != nil {
		return driver.Stats{}, err
	}
	s := driver.Stats{
		Ready:       count(attrs, types.QueueAttributeNameApproximateNumberOfMessages),
		InFlight:    count(attrs, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible),
		Scheduled:   count(attrs, types.QueueAttributeNameApproximateNumberOfMessagesDelayed),
		DeadLetters: -1,
		Approximate: true,
	}
	if q.target.name == "" {
		return s, nil
	}
	// Without permission for the dead-letter queue, the other counts are returned.
	url, err := q.broker.url(ctx, q.target.name, q.target.account)
	if err == nil {
		attrs, err = q.broker.attributes(ctx, url)
	}
	switch {
	case err == nil:
		s.DeadLetters = count(attrs, types.QueueAttributeNameApproximateNumberOfMessages)
		if n := count(attrs, types.QueueAttributeNameApproximateNumberOfMessagesNotVisible); n > 0 {
			s.DeadLetters += n
		}
	case ctx.Err() != nil:
		return driver.Stats{}, ctx.Err()
	}
	return s, nil
}

func count(attrs map[string]string, name types.QueueAttributeName) int64 {
	n, err := strconv.ParseInt(attrs[string(name)], 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// check returns why nothing can be asked of the queue: a context that has ended,
// or Close.
func (q *queue) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return &driver.Error{Kind: driver.Closed}
	}
	return nil
}

// classify classifies an error of an operation on this queue.
func (q *queue) classify(ctx context.Context, operation string, err error) error {
	return q.broker.classify(ctx, operation, q.url, err)
}

// Close implements driver.Queue. It makes everything that is held visible again,
// and waits for polls under way, because one that is cut off takes the messages
// that SQS has just handed over along, until their lock runs out. When ctx ends
// they are cut off. A Close beside another waits with it.
func (q *queue) Close(ctx context.Context) error {
	q.mu.Lock()
	first := !q.closed
	q.closed = true
	held := q.drain()
	q.mu.Unlock()
	var err error
	if first {
		err = q.release(ctx, held)
		go func() {
			defer close(q.gone)
			q.work.Wait()
			q.cancel()
			q.broker.mu.Lock()
			defer q.broker.mu.Unlock()
			delete(q.broker.queues, q)
		}()
	}
	select {
	case <-q.gone:
		return err
	default:
	}
	select {
	case <-q.gone:
	case <-ctx.Done():
		q.cancel()
		<-q.gone // the SDK gives up at once
		err = errors.Join(err, ctx.Err())
	}
	return err
}
