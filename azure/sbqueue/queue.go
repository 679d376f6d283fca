package sbqueue

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/queue-runtime/queue/driver"
)

// queue is one open queue.
type queue struct {
	driver.Unimplemented
	b        *Broker
	name     string
	settings QueueOptions
	lock     lockTime
	caps     driver.Capabilities
	source   *source // its receiver is of no use on a queue of sessions

	closing sync.Once

	mu       sync.Mutex // guards what follows
	sendLink *sendLink
	sessions map[*session]struct{} // that are neither closed nor lost
}

func newQueue(ctx context.Context, b *Broker, name string, settings QueueOptions) (*queue, error) {
	q := &queue{b: b, name: name, settings: settings, lock: newLockTime(settings.Lock), sessions: make(map[*session]struct{})}
	q.sendLink, q.source = q.newSendLink(), newQueueSource(q, ofMessages)
	limit, err := q.limit(ctx)
	if err != nil {
		b.discard(b.life, q)
		return nil, err
	}
	q.caps = driver.Capabilities{
		DeadLetter: driver.Native, AbandonDelay: driver.Copy, Schedule: driver.Native, Peek: driver.Native, TTL: driver.Native,
		BinaryBody: true, Fenced: true, OrderedBatch: true,
		MaxBody: limit - metadataBytes, MaxBatch: maxBatch, MaxBatchBytes: limit, // of one message; Send makes batches of maxBatchBytes
		MaxDeliveries: settings.MaxDeliveries,
		Lock:          q.lock.duration, MinLock: q.lock.duration, MaxLock: q.lock.duration,
		Retention: settings.Retention,
	}
	q.caps.ReceiveBatch = receiveBatch
	if settings.Sessions {
		q.caps.ReceiveBatch = 0 // each session has a link
		q.caps.Sessions, q.caps.SessionState = driver.Native, driver.Native
		q.caps.AcceptByID, q.caps.SessionOnly = true, true
		q.caps.AbandonDelay = driver.None
		q.caps.Peek = driver.None // the SDK peeks over a link that such a queue refuses
	}
	if settings.Dedup {
		q.caps.Dedup = driver.Native
	}
	return q, nil
}

// limit finds out that the queue exists, and how large a transfer the link takes.
// If the credential may only listen there is no sending link to ask.
func (q *queue) limit(ctx context.Context) (int, error) {
	batch, err := q.newBatch(ctx)
	if err != nil {
		if driver.KindOf(err) != driver.Permission {
			return 0, err
		}
		if !q.settings.Sessions {
			if _, _, err := q.source.peek(ctx, "", 1); err != nil {
				return 0, err
			}
		}
		return max(q.settings.MaxBytes, DefaultMaxBytes), nil
	}
	if q.settings.MaxBytes > 0 {
		return q.settings.MaxBytes, nil
	}
	// The SDK does not tell the link's limit, only what is beyond it. Mostly it
	// is that of a tier.
	body := make([]byte, probeBytes+1)
	fits := func(size int) (bool, error) {
		err := batch.AddMessage(&azservicebus.Message{Body: body[:size]}, nil)
		if errors.Is(err, azservicebus.ErrMessageTooLarge) {
			return false, nil
		}
		if err == nil {
			batch, err = q.newBatch(ctx)
		}
		return err == nil, err
	}
	for _, tier := range [...]int{DefaultMaxBytes, probeBytes} {
		if ok, err := fits(tier + 1); err != nil || ok {
			if err != nil {
				return 0, err
			}
			continue
		}
		if ok, err := fits(tier - messageBytes); err != nil || ok {
			return tier - messageBytes, err
		}
	}
	low, high := 0, probeBytes
	for low < high {
		middle := (low + high + 1) / 2
		ok, err := fits(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			low = middle
		} else {
			high = middle - 1
		}
	}
	if low < 2*metadataBytes {
		return 0, driver.Errorf(driver.Invalid, "the queue takes no more than %d bytes a message; %d are needed", low, 2*metadataBytes)
	}
	return low, nil
}

func (q *queue) Capabilities() driver.Capabilities { return q.caps }

func (q *queue) Size(m *driver.Message) int { return size(m) }

// check refuses what cannot be sent.
func (q *queue) check(m *driver.Message) (*azservicebus.AMQPAnnotatedMessage, error) {
	if len(m.Body) > q.caps.MaxBody {
		return nil, driver.NewTooLarge("body", len(m.Body), q.caps.MaxBody)
	}
	if q.settings.Sessions && m.SessionID == "" {
		return nil, driver.Errorf(driver.Invalid, "this queue requires a session on every message")
	}
	return outgoing(m)
}

// copyID is the broker's message ID of a copy: never one that was used before.
func copyID(d *driver.Delivery) string {
	id := d.DedupID
	if id == "" {
		id = d.ID
	}
	const suffix = 27
	return id[:min(len(id), 128-suffix)] + "~" + rand.Text()
}

func (q *queue) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if q.settings.Sessions {
		return nil, driver.Unsupported("receiving without a session from a queue of sessions")
	}
	return q.source.receive(ctx, max, wait)
}

func (q *queue) Settle(ctx context.Context, all []driver.Settlement) []error {
	return q.source.settle(ctx, all)
}

func (q *queue) Renew(ctx context.Context, all []*driver.Delivery) []driver.RenewResult {
	return q.source.renew(ctx, all)
}

// Peek looks over the management link.
func (q *queue) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if q.source.over.Err() != nil {
		return nil, "", errClosed()
	}
	if q.settings.Sessions {
		return nil, "", driver.Unsupported("peeking into a queue of sessions")
	}
	return q.source.peek(ctx, cursor, max)
}

func (s *source) peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	from := int64(1)
	if cursor != "" {
		var err error
		if from, err = strconv.ParseInt(cursor, 10, 64); err != nil || from < 0 {
			return nil, "", driver.Errorf(driver.Invalid, "the cursor is not one that Peek returned")
		}
	}
	var messages []*azservicebus.ReceivedMessage
	err := s.at(ctx, func(ctx context.Context, r *azservicebus.Receiver) (err error) {
		return readable(func() error {
			messages, err = r.PeekMessages(ctx, max, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &from})
			return err
		})
	})
	if err != nil {
		return nil, "", s.fault(ctx, err)
	}
	out := make([]*driver.Delivery, len(messages))
	for i, m := range messages {
		out[i] = new(driver.Delivery)
		incoming(out[i], m, s.q.name, s.dead)
		out[i].LockedUntil = time.Time{}
		if out[i].Count > 0 {
			out[i].Count-- // so far; the SDK counts the next or current one in
		}
		from = sequence(m) + 1
	}
	if len(messages) == 0 {
		return nil, "", nil
	}
	return out, strconv.FormatInt(from, 10), nil
}

// Stats asks the management API.
func (q *queue) Stats(ctx context.Context) (driver.Stats, error) {
	if q.source.over.Err() != nil {
		return driver.Stats{}, errClosed()
	}
	if q.b.o.Admin == nil {
		return driver.Stats{}, driver.Unsupported("statistics without the management API")
	}
	r, err := administer(ctx, func(ctx context.Context) (*admin.GetQueueRuntimePropertiesResponse, error) {
		return q.b.o.Admin.GetQueueRuntimeProperties(ctx, q.name, nil)
	})
	if err != nil {
		return driver.Stats{}, err
	}
	if r == nil {
		return driver.Stats{}, &driver.Error{Kind: driver.NotFound}
	}
	return driver.Stats{
		Ready:       int64(r.ActiveMessageCount), // held ones included: the API does not tell them apart
		InFlight:    -1,
		Scheduled:   int64(r.ScheduledMessageCount),
		DeadLetters: int64(r.DeadLetterMessageCount),
		Approximate: true,
	}, nil
}

// DeadLetters opens the sub-queue.
func (q *queue) DeadLetters(ctx context.Context) (driver.Queue, error) {
	if q.source.over.Err() != nil {
		return nil, errClosed()
	}
	d := &deadLetters{q: q, source: newQueueSource(q, ofDeadLetters)}
	if err := q.b.keep(d); err != nil {
		_ = d.source.close(ctx)
		return nil, err
	}
	return d, nil
}

// Close gives back the held messages, releases the sessions and closes the links.
func (q *queue) Close(ctx context.Context) (err error) {
	q.closing.Do(func() {
		q.source.shut()
		q.mu.Lock()
		all := []closer{closing(q.sendLink.close), closing(q.source.close)}
		for s := range q.sessions {
			all = append(all, s)
		}
		q.mu.Unlock()
		err = classify(ctx, q.b.closeAll(ctx, all, closeQueue))
		q.b.forget(q)
	})
	return err
}
