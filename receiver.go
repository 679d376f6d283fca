package queue

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// Defaults of [ReceiverOptions].
const (
	defaultWait            = 20 * time.Second
	defaultMaxAuthFailures = 20
	defaultMaxDeliveries   = 10
	defaultRotationHorizon = 15 * time.Minute
	defaultMissingAfter    = time.Hour
)

// settleTimeout bounds the settling of messages that the application never saw.
// It runs on a context of its own: a message must not stay locked because a
// caller went away.
const settleTimeout = 15 * time.Second

// ReceiverOptions configure a [Receiver].
type ReceiverOptions struct {
	// Crypto replaces the Client's for this receiver. Nil means the Client's.
	Crypto *CryptoConfig

	// Keys replace the Client's for this receiver. Only messages under one of
	// these keys are opened. Nil means the Client's.
	Keys keys.Provider

	// CryptoProvider replaces AESGCM over Keys. Nil means the Client's, unless Keys
	// are set.
	CryptoProvider CryptoProvider

	// Senders are the IDs of the sender keys whose messages are accepted, "" for the
	// master key; messages of other senders are dead-lettered. Nil means every sender
	// that holds a key.
	Senders []string

	// Group is the name under which receivers share their records in the replay store,
	// at most 255 bytes. Two sets of receivers that each get their own copy of a
	// message need two names. Empty means the queue's name.
	Group string

	// Wait is how long Receive waits for a first message. 0 means 20 s.
	Wait time.Duration

	// Lock is how long a message is held before it must be renewed, within the
	// driver's bounds. 0 means the queue's own.
	Lock time.Duration

	// Prefetch is how many messages All fetches at once. The locks of messages that the
	// loop has not reached run meanwhile and are not renewed. 0 means 1.
	Prefetch int

	// MaxDeliveries is how often a message may be delivered, at most the queue's own
	// limit. One that comes once more is dead-lettered as max_deliveries and not
	// returned, if the queue has a dead-letter queue. One that is rejected for a reason
	// that time may cure (an unknown version or key) is dead-lettered at the last of
	// these deliveries. 0 means the queue's limit, or 10 if it has none.
	MaxDeliveries int

	// RotationHorizon is over how long those deliveries are spread, so that a
	// new key reaches this receiver first. It should exceed the life of cached
	// keys. In a session it counts from when the broker took the first message that
	// had to wait; others that have to wait within four times that long are
	// dead-lettered at once. It is at most CryptoConfig.MaxMessageAge: a key that
	// comes later finds the message expired. 0 means 15 minutes, or MaxMessageAge if
	// that is shorter.
	RotationHorizon time.Duration

	// MissingAfter is how long no receiver of the group has seen a message before it
	// counts as late, counted from when a later message said that the broker confirmed
	// it. Set it above the longest delay of a retry. The message counts as missing once
	// it is too old to be handled (MaxMessageAge + MaxClockSkew), never before
	// MissingAfter. Fetching starts a look at the streams every MissingAfter/4, and
	// when a message is due. 0 means 1 h.
	MissingAfter time.Duration

	// NoAccounting turns the reports of late and missing messages off. Set it if the
	// receivers of the group by design do not see every message of the queue, or if
	// the replay store does not, such as a replay.Memory in each of several processes.
	NoAccounting bool

	// MaxAuthFailures is after how many authentication failures a key counts as
	// wrong under which no message has opened: its messages are given back, with
	// delays of 1 s doubling to 5 minutes, and while no key of this receiver has
	// opened any, nothing is fetched. On a broker that counts what is released, one
	// message that has spent a quarter of MaxDeliveries is enough, and those that have
	// come back after half an hour. Whether messages open by then is found out by
	// peeking, or, if the broker cannot peek, by fetching one. Once a message opened
	// under a key, others that fail under it are forged and are dead-lettered at full
	// speed.
	//
	// It is also how many dead letters in a minute, of messages that could not be
	// read, raise the alarm: see observe.Flood. 0 means 20.
	MaxAuthFailures int
}

func (o *ReceiverOptions) resolve(caps driver.Capabilities, cfg *CryptoConfig, queue string) error {
	err := driver.CheckSettings([]driver.Setting{
		{Name: "Wait", Value: int64(o.Wait)},
		{Name: "Lock", Value: int64(o.Lock)},
		{Name: "RotationHorizon", Value: int64(o.RotationHorizon)},
		{Name: "MissingAfter", Value: int64(o.MissingAfter)},
		{Name: "Prefetch", Value: int64(o.Prefetch)},
		{Name: "MaxDeliveries", Value: int64(o.MaxDeliveries)},
		{Name: "MaxAuthFailures", Value: int64(o.MaxAuthFailures)},
	})
	if err != nil {
		return invalidOption("ReceiverOptions.%v", err)
	}
	if len(o.Group) > replay.MaxGroup {
		return invalidOption("ReceiverOptions.Group has %d bytes, the limit is %d", len(o.Group), replay.MaxGroup)
	}
	if o.Group == "" {
		o.Group = queue
	}
	if o.Wait == 0 {
		o.Wait = defaultWait
	}
	if o.Prefetch == 0 {
		o.Prefetch = 1
	}
	if o.MaxDeliveries == 0 {
		o.MaxDeliveries = caps.MaxDeliveries
	}
	if o.MaxDeliveries == 0 {
		o.MaxDeliveries = defaultMaxDeliveries
	}
	if caps.MaxDeliveries > 0 {
		// The broker never delivers more often than this, so spread the rotation horizon
		// over that many deliveries.
		o.MaxDeliveries = min(o.MaxDeliveries, caps.MaxDeliveries)
	}
	if o.MissingAfter == 0 {
		o.MissingAfter = defaultMissingAfter
	}
	if o.MaxAuthFailures == 0 {
		o.MaxAuthFailures = defaultMaxAuthFailures
	}
	return o.resolveHorizon(cfg)
}

// resolveHorizon checks RotationHorizon against the age that messages may have.
func (o *ReceiverOptions) resolveHorizon(cfg *CryptoConfig) error {
	limit := cfg.MaxMessageAge
	if cfg.InsecureSkipFreshness {
		limit = maxHorizon
	}
	if o.RotationHorizon > limit {
		return invalidOption("ReceiverOptions.RotationHorizon is %v and CryptoConfig.MaxMessageAge %v: a message that waits for its key for longer than MaxMessageAge is expired when the key comes; raise MaxMessageAge or lower RotationHorizon", o.RotationHorizon, limit)
	}
	if o.RotationHorizon == 0 {
		o.RotationHorizon = min(defaultRotationHorizon, limit)
	}
	return nil
}

// Receiver receives from one queue. It is safe for concurrent use: several calls of Receive
// ask the broker side by side, on Service Bus up to 32. As many goroutines on one Receiver get
// as much as with one each.
type Receiver struct {
	*endpoint
	options      ReceiverOptions
	store        replay.Store // nil unless replays are tracked
	finishes     *finisher    // nil unless replays are tracked
	watch        *storeWatch  // of the Client
	accountant   *accountant  // of the Client and group; nil unless replays are tracked
	releases     *releases    // nil unless the broker counts what is released, and sets no limit itself
	arrivals     arrivals
	freshness    intake.Freshness
	gate         *intake.Gate
	unreadRecord *unreadRecord // of the queue, shared with other receivers of the Client
	checked      checkedKeys
	storedKeys   *storedKeys // nil unless replays are tracked
	peeker       peeker
	lockRenewals atomic.Int64 // sessions that wait for a message and whose lock is renewed
}

// Receiver opens queue for receiving. o may be nil. With keys it reads sealed
// and, by the PlaintextPolicy, plain messages, with no further configuration.
// The Receiver lives until its Close or the Client's.
func (c *Client) Receiver(ctx context.Context, queue string, o *ReceiverOptions) (*Receiver, error) {
	r := &Receiver{}
	if o != nil {
		r.options = *o
	}
	if c.options.sendsOnly {
		return nil, wrap("open receiver", queue, invalidOption("the options are StrictSender's, which tracks no replays: use Strict to receive"))
	}
	e, err := c.open(ctx, endpointRequest{
		queue: queue, role: observe.Receiver, keys: r.options.Keys, crypto: r.options.CryptoProvider, config: r.options.Crypto, lock: r.options.Lock,
	})
	if err != nil {
		return nil, wrap("open receiver", queue, err)
	}
	r.endpoint = e
	r.options.Senders = slices.Clone(r.options.Senders)
	e.opener.Senders = r.options.Senders
	err = r.options.resolve(e.caps, &e.cfg, queue)
	if err == nil {
		err = e.refuseSenderKey(ctx)
	}
	if err == nil {
		err = e.cfg.checkStore(c.options.ReplayStore)
	}
	if err != nil {
		_ = e.close(ctx) // the configuration's error is the one that tells
		return nil, wrap("open receiver", queue, err)
	}
	if e.cfg.TrackReplays {
		r.store, r.watch = c.options.ReplayStore, &c.watch
		r.finishes = newFinisher(r.store, r.options.Group)
		r.storedKeys = newStoredKeys()
	}
	if !e.caps.ReleaseUncounted && e.caps.MaxDeliveries == 0 {
		r.releases = &releases{of: make(map[string]int)}
	}
	r.freshness = intake.Freshness{MaxAge: e.cfg.MaxMessageAge, Skew: e.cfg.MaxClockSkew, Skip: e.cfg.InsecureSkipFreshness, Store: r.store != nil}
	r.unreadRecord = c.unreadRecordOf(queue, r.options.MaxAuthFailures)
	gate := intake.GateOptions{
		MaxAuthFailures: r.options.MaxAuthFailures,
		Ask:             r.askAgain,
		Check:           r.keyChanged,
		Tell:            r.reportChange,
		Paused:          func(retry time.Duration) error { return &driver.Error{RetryAfter: retry, Err: ErrReceivingPaused} },
	}
	if e.caps.Peek != driver.None {
		r.peeker.opener = e.opener
		r.peeker.opener.Observe = &unobserved // a probe is no event of the queue
		gate.Peek = r.peekOpens
	}
	r.gate = intake.NewGate(gate)
	if r.store != nil {
		e.leave = func(ctx context.Context) { c.unaccount(ctx, r) }
		r.accountant = c.account(r)
	}
	return r, nil
}

// Queue is the name of the queue.
func (r *Receiver) Queue() string { return r.queue }

// Capabilities are what the queue's broker can do.
func (r *Receiver) Capabilities() driver.Capabilities { return r.caps }

// Stats returns the queue's counts as the broker reports them. It fails with
// errors.ErrUnsupported if the broker has none.
func (r *Receiver) Stats(ctx context.Context) (driver.Stats, error) {
	if err := checkContext(ctx); err != nil {
		return driver.Stats{}, wrap("stats", r.queue, err)
	}
	s, err := r.q.Stats(ctx)
	return s, wrap("stats", r.queue, err)
}

// Close releases the receiver. Its waiting calls fail with ErrClosed, and
// deliveries that are not settled go back to the broker if it allows that: another receiver
// has them soon, and each has spent a delivery. Settling or renewing one afterwards fails with
// ErrClosed, although it was handled, and it comes again: wait for what is being handled first,
// as worker.Pool.Stop does.
func (r *Receiver) Close(ctx context.Context) error {
	return wrap("close", r.queue, r.close(ctx))
}

// Client is the Client that opened the Receiver.
func (r *Receiver) Client() *Client { return r.client }

// Options returns the options in force: a copy, with the defaults filled in.
func (r *Receiver) Options() ReceiverOptions { return r.options }

// RetryLimit is how long after its sealing a message may still be tried again: without
// a replay store, MaxMessageAge, after which it is dead-lettered as expired. 0 means
// that nothing limits it.
func (r *Receiver) RetryLimit() time.Duration {
	if r.opener.Crypto == nil || r.store != nil || r.cfg.InsecureSkipFreshness {
		return 0
	}
	return r.cfg.MaxMessageAge
}

// Batch is the result of one call to the broker.
type Batch struct {
	Deliveries []*Delivery      // the caller's to settle
	Rejected   []*RejectedError // settled already, and reported
	// Blocked is the message among Rejected that no other message of its session may
	// overtake; nil if there is none. The messages behind it were given back.
	Blocked *RejectedError
}

// orNone returns err, or ErrNoMessage if there is no error and nothing in the batch either.
func (b *Batch) orNone(err error) error {
	if err == nil && len(b.Deliveries) == 0 && len(b.Rejected) == 0 { // Blocked is among Rejected
		return ErrNoMessage
	}
	return err
}

// deliveries turns a batch, and the error of the Fetch that brought it, into the result of
// Receive.
func (b *Batch) deliveries(queue string, err error) ([]*Delivery, error) {
	if len(b.Deliveries) > 0 {
		return b.Deliveries, err
	}
	if err == nil {
		err = wrap("receive", queue, ErrNoMessage)
	}
	return nil, err
}

// Fetch is Receive for callers that need to know what was rejected. If all messages were
// rejected, it returns them and no error. It fails with ErrNoMessage if none came within Wait.
func (r *Receiver) Fetch(ctx context.Context, max int) (Batch, error) {
	b, err := r.fetch(ctx, fetchRequest{source: r.q, limit: max, wait: r.options.Wait})
	return b, wrap("receive", r.queue, b.orNone(err))
}

// Receive returns up to max messages as soon as there are some. It fails with ErrNoMessage if
// none came within Wait, or if all that came were rejected. That is no failure: a loop goes on,
// as All does.
//
// Its error is about receiving, never about one message. A message that does not pass
// the pipeline is settled as DESIGN.md says and reported to Options.OnRejected, the
// log and the Observer; the others of its batch are delivered. While messages open
// under no key of this receiver the error is ErrReceivingPaused. While the key
// provider or the replay store does not answer, Receive fetches nothing, and after
// Wait the error is ErrKeyProvider or ErrReplayStore. If the locks of all that it fetches
// end before it can return them, three times in a row, the error is ErrLockLost, with a
// RetryAfter: each fetch spends a delivery of messages that cannot be handled.
func (r *Receiver) Receive(ctx context.Context, max int) ([]*Delivery, error) {
	b, err := r.Fetch(ctx, max)
	return b.deliveries(r.queue, err)
}

// ReceiveOne returns one message. It fails with ErrNoMessage if none came within Wait,
// and with a *RejectedError if the message was rejected; errors.Is finds the reason.
func (r *Receiver) ReceiveOne(ctx context.Context) (*Delivery, error) {
	b, err := r.Fetch(ctx, 1)
	return b.one(err)
}

// one turns a batch of at most one message, and the error of the Fetch that brought it, into
// the result of ReceiveOne.
func (b *Batch) one(err error) (*Delivery, error) {
	switch {
	case err != nil:
		return nil, err
	case len(b.Deliveries) > 0:
		return b.Deliveries[0], nil
	}
	return nil, b.Rejected[0] // a batch of a Fetch that did not fail has one or the other
}

// All returns the messages of the queue one by one until ctx is done. It settles and
// skips rejected messages, as Receive does. While receiving is paused, or the key
// provider or the replay store does not answer, it waits. Any other error ends it. The
// loop must settle each delivery; when the loop ends, All releases those that it fetched
// and the loop did not reach.
func (r *Receiver) All(ctx context.Context) iter.Seq2[*Delivery, error] {
	return all(ctx, r.options.Prefetch, r.Receive)
}

func all(ctx context.Context, prefetch int, receive func(context.Context, int) ([]*Delivery, error)) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		var fetched []*Delivery
		defer func() { _ = release(ctx, fetched) }()
		for {
			batch, err := receive(ctx, prefetch)
			switch {
			case errors.Is(err, ErrNoMessage), errors.Is(err, ErrReceivingPaused), errors.Is(err, ErrKeyProvider), errors.Is(err, ErrReplayStore):
				continue // Receive has waited, or rejected all that came
			case err != nil:
				yield(nil, err)
				return
			}
			fetched = batch
			for len(fetched) > 0 {
				d := fetched[0]
				fetched = fetched[1:]
				if d.expired(time.Now()) {
					_ = release(ctx, []*Delivery{d}) // another receiver has it by now
					continue
				}
				if !yield(d, nil) {
					return
				}
			}
		}
	}
}

// release gives back deliveries of one receiver that the application never saw. Its error is
// that of the first one that could not be given back, whose lock runs out.
func release(ctx context.Context, batch []*Delivery) (err error) {
	if len(batch) == 0 {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	releaseClaims(ctx, batch)
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	// The last first, so that a broker that puts them back at the head keeps
	// their order.
	for i := len(batch) - 1; i >= 0; i-- {
		err = cmp.Or(batch[i].Release(ctx, 0), err)
	}
	return err
}

// releaseClaims ends the claims of such deliveries with one call, so that a store that
// hangs is waited for once and leaves the broker its time.
func releaseClaims(ctx context.Context, batch []*Delivery) {
	var ended []replay.Finish
	for _, d := range batch {
		if !d.claim.none() {
			ended = append(ended, d.claim.ends(replay.Released))
			d.claim = claim{} // no other goroutine has the delivery
		}
	}
	batch[0].r.finishAll(ctx, ended)
}
