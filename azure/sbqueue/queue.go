package sbqueue

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

// queue is one open queue.
type queue struct {
	driver.Unimplemented
	b        *Broker
	name     string
	settings QueueOptions
	caps     driver.Capabilities
	sender   *azservicebus.Sender
	receiver *azservicebus.Receiver // of no use on a queue of sessions
	source   *source

	closing sync.Once
	err     error
}

func newQueue(ctx context.Context, b *Broker, name string, settings QueueOptions) (*queue, error) {
	q := &queue{b: b, name: name, settings: settings}
	var err error
	if q.sender, err = b.client.NewSender(name, nil); err != nil {
		return nil, classify(ctx, err)
	}
	if q.receiver, err = b.client.NewReceiverForQueue(name, nil); err != nil {
		_ = q.sender.Close(ctx)
		return nil, classify(ctx, err)
	}
	q.source = newSource(q, q.receiver, false)
	limit, err := q.limit(ctx)
	if err != nil {
		_ = q.Close(ctx)
		return nil, err
	}
	q.caps = driver.Capabilities{
		DeadLetter: driver.Native, AbandonDelay: driver.Copy, Schedule: driver.Native, Peek: driver.Native, TTL: driver.Native,
		BinaryBody: true, Fenced: true,
		MaxBody: limit - metadataBytes, MaxBatch: maxBatch, MaxBatchBytes: limit,
		MaxDeliveries: settings.MaxDeliveries,
		Lock:          settings.Lock, MinLock: settings.Lock, MaxLock: settings.Lock,
		Retention: settings.Retention,
	}
	if settings.Sessions {
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
// Where the credential may only listen there is no sending link to ask.
func (q *queue) limit(ctx context.Context) (int, error) {
	batch, err := q.sender.NewMessageBatch(ctx, nil)
	if err != nil {
		err = classify(ctx, err)
		if driver.KindOf(err) != driver.Permission {
			return 0, err
		}
		if !q.settings.Sessions {
			if _, err := q.receiver.PeekMessages(ctx, 1, nil); err != nil {
				return 0, classify(ctx, err)
			}
		}
		return max(q.settings.MaxBytes, DefaultMaxBytes), nil
	}
	if q.settings.MaxBytes > 0 {
		return q.settings.MaxBytes, nil
	}
	// The SDK does not tell the link's limit, only what is beyond it.
	low, high := 0, probeBytes
	for low < high {
		middle := (low + high + 1) / 2
		err := batch.AddMessage(&azservicebus.Message{Body: make([]byte, middle)}, nil)
		switch {
		case err == nil:
			low = middle
			if batch, err = q.sender.NewMessageBatch(ctx, nil); err != nil {
				return 0, classify(ctx, err)
			}
		case errors.Is(err, azservicebus.ErrMessageTooLarge):
			high = middle - 1
		default:
			return 0, classify(ctx, err)
		}
	}
	if low < 2*metadataBytes {
		return 0, driver.Errorf(driver.Invalid, "the queue takes no more than %d bytes a message; %d are needed", low, 2*metadataBytes)
	}
	return low, nil
}

func (q *queue) Capabilities() driver.Capabilities { return q.caps }

func (q *queue) Size(m *driver.Message) int { return size(m) }

// Send sends the messages in one transfer. Service Bus takes or refuses it whole.
func (q *queue) Send(ctx context.Context, all []*driver.Message) []driver.SendResult {
	results := make([]driver.SendResult, len(all))
	batch, err := q.newBatch(ctx)
	if err != nil {
		return failed(results, nil, err)
	}
	var in []int
	flush := func() {
		if len(in) == 0 {
			return
		}
		if err := q.sender.SendMessageBatch(ctx, batch, nil); err != nil {
			failed(results, in, classify(ctx, err))
		}
		in = in[:0]
	}
	for i, m := range all {
		out, err := q.check(m)
		if err != nil {
			results[i].Err = err
			continue
		}
		err = batch.AddMessage(out, nil)
		if errors.Is(err, azservicebus.ErrMessageTooLarge) && len(in) > 0 {
			flush()
			if batch, err = q.newBatch(ctx); err != nil {
				results[i].Err = err
				continue
			}
			err = batch.AddMessage(out, nil)
		}
		switch {
		case errors.Is(err, azservicebus.ErrMessageTooLarge):
			results[i].Err = driver.NewTooLarge("message", size(m), q.caps.MaxBatchBytes)
		case err != nil:
			results[i].Err = classify(ctx, err)
		default:
			in = append(in, i)
		}
	}
	flush()
	return results
}

func (q *queue) newBatch(ctx context.Context) (*azservicebus.MessageBatch, error) {
	if q.source.over.Err() != nil {
		return nil, errClosed()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := q.sender.NewMessageBatch(ctx, nil)
	return b, classify(ctx, err)
}

func failed(results []driver.SendResult, in []int, err error) []driver.SendResult {
	if in == nil {
		for i := range results {
			results[i].Err = err
		}
		return results
	}
	for _, i := range in {
		results[i].Err = err
	}
	return results
}

// check refuses what cannot be sent.
func (q *queue) check(m *driver.Message) (*azservicebus.Message, error) {
	if len(m.Body) > q.caps.MaxBody {
		return nil, driver.NewTooLarge("body", len(m.Body), q.caps.MaxBody)
	}
	if q.settings.Sessions && m.SessionID == "" {
		return nil, driver.Errorf(driver.Invalid, "this queue requires a session on every message")
	}
	return outgoing(m, 0)
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

func (q *queue) Renew(ctx context.Context, all []*driver.Delivery) ([]time.Time, []error) {
	return q.source.renew(ctx, all)
}

// renew extends the locks of messages, several at once.
func (s *source) renew(ctx context.Context, all []*driver.Delivery) ([]time.Time, []error) {
	until := make([]time.Time, len(all))
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	slot := make(chan struct{}, settleParallel)
	for i, d := range all {
		slot <- struct{}{}
		wg.Go(func() {
			defer func() { <-slot }()
			r, ok := d.Receipt.(*receipt)
			if !ok {
				errs[i] = driver.Errorf(driver.Invalid, "the delivery is of another driver")
				return
			}
			if s.over.Err() != nil {
				errs[i] = errClosed()
				return
			}
			s.mu.Lock()
			settled := r.settled
			_, mine := s.held[r]
			s.mu.Unlock()
			switch {
			case settled:
				errs[i] = &driver.Error{Kind: driver.Settled}
			case !mine:
				errs[i] = &driver.Error{Kind: driver.LockLost}
			default:
				if errs[i] = s.renewOne(ctx, r); errs[i] == nil && r.m.LockedUntil != nil {
					d.LockedUntil, until[i] = *r.m.LockedUntil, *r.m.LockedUntil
				}
			}
		})
	}
	wg.Wait()
	return until, errs
}

// Peek looks over the management link.
func (q *queue) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if q.source.over.Err() != nil {
		return nil, "", errClosed()
	}
	if q.settings.Sessions {
		return nil, "", driver.Unsupported("peeking into a queue of sessions")
	}
	return peek(ctx, q.receiver, q.name, false, cursor, max)
}

func peek(ctx context.Context, r *azservicebus.Receiver, name string, dead bool, cursor string, max int) ([]*driver.Delivery, string, error) {
	from := int64(1)
	if cursor != "" {
		var err error
		if from, err = strconv.ParseInt(cursor, 10, 64); err != nil || from < 0 {
			return nil, "", driver.Errorf(driver.Invalid, "the cursor is not one that Peek returned")
		}
	}
	messages, err := r.PeekMessages(ctx, max, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &from})
	if err != nil {
		return nil, "", classify(ctx, err)
	}
	out := make([]*driver.Delivery, len(messages))
	for i, m := range messages {
		out[i] = incoming(m, name, dead)
		out[i].LockedUntil = time.Time{}
		if m.LockedUntil == nil && out[i].Count > 0 {
			out[i].Count-- // so far; the SDK counts the next one in
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
	r, err := q.b.o.Admin.GetQueueRuntimeProperties(ctx, q.name, nil)
	if err != nil {
		return driver.Stats{}, classify(ctx, err)
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
	r, err := q.b.client.NewReceiverForQueue(q.name, &azservicebus.ReceiverOptions{SubQueue: azservicebus.SubQueueDeadLetter})
	if err != nil {
		return nil, classify(ctx, err)
	}
	d := &deadLetters{q: q, receiver: r, source: newSource(q, r, true)}
	if err := q.b.keep(d); err != nil {
		_ = r.Close(ctx)
		return nil, err
	}
	return d, nil
}

// Close gives back what is held and closes the links.
func (q *queue) Close(ctx context.Context) error {
	q.closing.Do(func() {
		q.source.end()
		q.source.release(context.WithoutCancel(ctx))
		q.err = errors.Join(q.receiver.Close(ctx), q.sender.Close(ctx))
		q.b.forget(q)
	})
	return classify(ctx, q.err)
}
