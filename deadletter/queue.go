package deadletter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// DefaultWait is how long a read by receiving waits for a letter before it takes the
// dead-letter queue for empty. It is long enough for a service that answers from one of
// many servers.
const DefaultWait = 2 * time.Second

// Options configure a [Queue]. What is set replaces the Client's.
type Options struct {
	Crypto         *queue.CryptoConfig  // nil means the Client's
	Keys           keys.Provider        // nil means the Client's
	CryptoProvider queue.CryptoProvider // nil means the Client's, unless Keys are set
	Group          string               // queue.ReceiverOptions.Group of the queue's receivers; empty means the queue's name
	Wait           time.Duration        // how long a read by receiving waits for a letter; 0 means DefaultWait
}

// Queue is the dead-letter queue of a queue. It is safe for concurrent use.
type Queue struct {
	name   string
	main   driver.Queue // where letters come from, and go back to
	dead   driver.Queue
	cfg    queue.CryptoConfig
	opener sealing.QueueOpener
	sealer *sealing.QueueSealer // nil without keys
	own    *keys.Cached         // to be closed with the Queue; nil if the Client has it
	store  replay.Store         // nil unless replays are tracked
	group  string
	wait   time.Duration
	obs    observe.Scope
	open   atomic.Bool // the Observer was told of Configured, and not of Closed
	log    *slog.Logger
}

// Open opens the dead-letter queue of the queue with that name. o may be nil. A broker
// without a dead-letter queue answers errors.ErrUnsupported or queue.ErrQueueNotFound.
func Open(ctx context.Context, c *queue.Client, name string, o *Options) (*Queue, error) {
	const op = "open dead letters"
	if ctx == nil || c == nil {
		return nil, queue.NewError(op, name, fmt.Errorf("%w: Open needs a context and a Client", queue.ErrInvalidOptions))
	}
	if o == nil {
		o = &Options{}
	}
	q, err := open(ctx, c, name, o)
	return q, queue.NewError(op, name, err)
}

func open(ctx context.Context, c *queue.Client, name string, o *Options) (*Queue, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client := c.Options()
	q := &Queue{
		name:  name,
		group: o.Group,
		wait:  o.Wait,
		log:   client.Logger,
		obs:   observe.NewScope(client.Observer, observe.Source{Queue: name, Environment: client.Environment}),
	}
	if q.group == "" {
		q.group = name
	}
	if q.wait <= 0 {
		q.wait = DefaultWait
	}
	if err := q.useKeys(&client, o); err != nil {
		return nil, err
	}
	if err := q.connect(ctx, c.Broker(), &client, o); err != nil {
		_ = q.Close(context.WithoutCancel(ctx)) // the first error is the one that tells
		return nil, err
	}
	q.open.Store(true)
	q.obs.Configured(ctx, q.obs.Source, observe.Configured{Role: observe.DeadLetter, Encrypted: q.cfg.Enabled})
	return q, nil
}

// useKeys settles which keys open letters, and seal them anew.
func (q *Queue) useKeys(client *queue.Options, o *Options) error {
	p, crypto := o.Keys, o.CryptoProvider
	if crypto == nil && p == nil {
		crypto = client.CryptoProvider
	}
	if p == nil {
		p = client.KeysFor(q.name)
	}
	q.opener = sealing.QueueOpener{Queue: q.name, Crypto: crypto, Observe: &q.obs}
	if p == nil {
		return nil
	}
	cached, ok := p.(*keys.Cached)
	if !ok {
		var err error
		if cached, err = keys.NewCached(p, nil); err != nil {
			return err
		}
		q.own = cached
	}
	if crypto == nil {
		q.opener.Crypto = sealing.NewCipher(cached)
	}
	q.opener.Valid = cached
	q.sealer = &sealing.QueueSealer{Queue: q.name, Crypto: q.opener.Crypto, Keys: cached, Observe: &q.obs}
	return nil
}

// connect opens both queues at the broker, and resolves what depends on them.
func (q *Queue) connect(ctx context.Context, b driver.Broker, client *queue.Options, o *Options) error {
	var err error
	if q.main, err = b.Open(ctx, q.name, nil); err != nil {
		return err
	}
	cfg := client.Crypto
	if o.Crypto != nil {
		cfg = *o.Crypto
	}
	if q.cfg, err = cfg.Resolve(q.main.Capabilities().Retention); err != nil {
		return err
	}
	q.opener.Origins = q.cfg.AcceptedOrigins
	if q.cfg.TrackReplays {
		q.store = client.ReplayStore
	}
	q.dead, err = q.main.DeadLetters(ctx)
	return err
}

// Close releases what the Queue holds. Letters that it had received go back to the
// broker. The Client stays open. A second Close returns nil.
func (q *Queue) Close(ctx context.Context) error {
	if ctx == nil {
		return queue.NewError("close", q.name, fmt.Errorf("%w: nil context", queue.ErrInvalidOptions))
	}
	var err error
	if q.dead != nil {
		err = q.dead.Close(ctx)
	}
	if q.main != nil {
		if e := q.main.Close(ctx); err == nil {
			err = e
		}
	}
	if q.own != nil {
		err = errors.Join(err, q.own.Close(ctx))
	}
	if q.open.Swap(false) {
		q.obs.Closed(ctx, q.obs.Source, observe.Closed{Role: observe.DeadLetter})
	}
	return queue.NewError("close", q.name, err)
}

// Letter is a dead letter that was read. It stays in the dead-letter queue.
type Letter struct {
	queue.Received
	DeadLetter driver.DeadLetter // why it was dead-lettered; not authenticated, for display
	// Detail is queue.Reason.Detail, or what a handler of a worker.Pool failed with: error
	// text, panic value and stack. It may hold payload. It is authentic: a receiver with
	// the keys of the queue wrote it about this message. "" if there is none.
	Detail string
	// DetailErr says why the detail that there is does not open.
	DetailErr error
	// Err says why the message does not open; its Body is then nil and nothing else of
	// it is authentic. Nil for plaintext, whatever the policy.
	Err error
}

// All returns the letters that f selects, opened if a key is at hand; f may be nil. They
// stay where they are. An error ends it.
func (q *Queue) All(ctx context.Context, f *Filter) iter.Seq2[*Letter, error] {
	return func(yield func(*Letter, error) bool) {
		for m, err := range q.scan(ctx, f) {
			if err != nil {
				yield(nil, queue.NewError("read dead letters", q.name, err))
				return
			}
			if !yield(q.letter(ctx, m), nil) {
				return
			}
		}
	}
}

// letter opens a message.
func (q *Queue) letter(ctx context.Context, m *driver.Delivery) *Letter {
	l := &Letter{DeadLetter: reasonOf(m)}
	l.Received = queue.Received{
		Message: queue.Message{ID: m.ID, SessionID: m.SessionID, CorrelationID: m.CorrelationID, ContentType: m.ContentType, Attributes: m.Attributes},
		Queue:   q.name, BrokerID: m.BrokerID, Count: m.Count, EnqueuedAt: m.EnqueuedAt,
	}
	var detail []byte
	if l.DeadLetter.Description, detail = sealing.SplitDetail(l.DeadLetter.Description); detail != nil {
		var f *sealing.Failure
		if l.Detail, f = q.opener.OpenDetail(ctx, detail, m.Body); f != nil {
			l.DetailErr = f.Err
		}
	}
	var opened sealing.Opened
	f := q.opener.Open(ctx, m, &opened)
	l.KeyID = opened.KeyID()
	if f != nil {
		l.Err = f.Err
		return l
	}
	l.Body, l.Attributes, l.Unauthenticated = opened.Body, opened.Attributes, opened.Added
	l.Encrypted = opened.Sealed
	if l.Encrypted {
		l.Origin, l.EncryptedAt, l.NotBefore, l.TTL = opened.Envelope.Origin, opened.EncryptedAt(), opened.NotBefore(), opened.TTL()
	}
	return l
}

// Stats are counts over a dead-letter queue.
type Stats struct {
	Count    int             // letters
	ByReason map[string]int  // by code; "" if the broker keeps none
	ByKey    map[keys.ID]int // of sealed messages, by the key that they name
	Plain    int             // messages that are not sealed
	Oldest   time.Time       // the earliest dead-lettering; zero if unknown
	Newest   time.Time       // the latest
}

// Stats counts the letters that f selects, by reading them; f may be nil.
func (q *Queue) Stats(ctx context.Context, f *Filter) (Stats, error) {
	s := Stats{ByReason: map[string]int{}, ByKey: map[keys.ID]int{}}
	for m, err := range q.scan(ctx, f) {
		if err != nil {
			return s, queue.NewError("read dead letters", q.name, err)
		}
		s.add(m)
	}
	return s, nil
}

func (s *Stats) add(m *driver.Delivery) {
	why := reasonOf(m)
	s.Count++
	s.ByReason[why.Reason]++
	if e, err := envelope.Parse(m.Body); err == nil {
		s.ByKey[keys.ID(e.KeyID)]++
	} else if !envelope.IsSealed(m.Body) {
		s.Plain++
	}
	if why.At.IsZero() {
		return
	}
	if s.Oldest.IsZero() || why.At.Before(s.Oldest) {
		s.Oldest = why.At
	}
	if why.At.After(s.Newest) {
		s.Newest = why.At
	}
}
