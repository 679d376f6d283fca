package sbqueue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

// How long a settlement may take: over the link that the message came by, and
// then, where that is dead, over the management link by the lock token.
const (
	settleLink       = 3 * time.Second
	settleManagement = 5 * time.Second
	settleParallel   = 16
	renewTimeout     = 10 * time.Second

	// leastWait is what a Receive without waiting gives the broker to answer.
	leastWait = 500 * time.Millisecond
)

// receiving is what the SDK's receivers for queues and for sessions share.
type receiving interface {
	ReceiveMessages(context.Context, int, *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
	CompleteMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.CompleteMessageOptions) error
	AbandonMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.AbandonMessageOptions) error
	DeadLetterMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.DeadLetterOptions) error
	Close(context.Context) error
}

// source receives from one link and settles what came by it.
type source struct {
	q    *queue
	r    receiving
	dead bool // of the dead-letter queue

	turn chan struct{} // one token: the SDK allows one ReceiveMessages at a time
	over context.Context
	end  context.CancelFunc

	mu   sync.Mutex // guards what follows
	held map[*receipt]struct{}
}

// receipt is the driver's handle of a delivery.
type receipt struct {
	m       *azservicebus.ReceivedMessage
	d       *driver.Delivery
	settled bool // guarded by the source's mu
	// lost is set once the broker has said that the lock is over: the SDK takes
	// a delivery that was answered for settled, and answers nil the next time.
	lost bool // guarded by the source's mu
}

func newSource(q *queue, r receiving, dead bool) *source {
	s := &source{q: q, r: r, dead: dead, turn: make(chan struct{}, 1), held: make(map[*receipt]struct{})}
	s.over, s.end = context.WithCancel(context.Background())
	return s
}

// receive returns what came within wait.
func (s *source) receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if max < 1 {
		return nil, driver.Errorf(driver.Invalid, "a Receive of %d messages", max)
	}
	if wait < leastWait {
		wait = leastWait
	}
	rctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	unhook := context.AfterFunc(s.over, cancel)
	defer unhook()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-rctx.Done():
		return nil, s.ended(ctx)
	}
	for {
		messages, err := s.r.ReceiveMessages(rctx, max, nil)
		if len(messages) > 0 {
			return s.take(messages), nil
		}
		if rctx.Err() != nil {
			return nil, s.ended(ctx)
		}
		if err != nil {
			return nil, classify(ctx, err)
		}
		// The link was detached: the next call makes a new one.
	}
}

// ended is the outcome of a wait that brought nothing.
func (s *source) ended(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case s.over.Err() != nil:
		return errClosed()
	}
	return nil
}

func (s *source) take(messages []*azservicebus.ReceivedMessage) []*driver.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*driver.Delivery, len(messages))
	for i, m := range messages {
		d := incoming(m, s.q.name, s.dead)
		r := &receipt{m: m, d: d}
		d.Receipt = r
		s.held[r] = struct{}{}
		out[i] = d
	}
	return out
}

// settle settles each on its own, several at once: each is a round trip.
func (s *source) settle(ctx context.Context, all []driver.Settlement) []error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	slot := make(chan struct{}, settleParallel)
	for i := range all {
		slot <- struct{}{}
		wg.Go(func() {
			defer func() { <-slot }()
			errs[i] = s.settleOne(ctx, &all[i])
		})
	}
	wg.Wait()
	return errs
}

// settleInOrder is settle one by one: for sessions, whose messages go back in
// the order in which they are given back.
func (s *source) settleInOrder(ctx context.Context, all []driver.Settlement) []error {
	errs := make([]error, len(all))
	for i := range all {
		errs[i] = s.settleOne(ctx, &all[i])
	}
	return errs
}

func (s *source) settleOne(ctx context.Context, x *driver.Settlement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, ok := x.Delivery.Receipt.(*receipt)
	if !ok {
		return driver.Errorf(driver.Invalid, "the delivery is of another driver")
	}
	if s.over.Err() != nil {
		return errClosed()
	}
	if x.Kind == driver.MoveToDeadLetter && s.dead {
		return driver.Unsupported("dead-lettering a dead letter")
	}
	if x.Kind == driver.Abandon && x.Delay > 0 && s.q.caps.AbandonDelay == driver.None {
		return driver.Unsupported("a delay on abandon in a session")
	}
	s.mu.Lock()
	if r.settled {
		s.mu.Unlock()
		return &driver.Error{Kind: driver.Settled}
	}
	_, mine := s.held[r]
	mine = mine && !r.lost
	r.settled = mine
	s.mu.Unlock()
	if !mine {
		return &driver.Error{Kind: driver.LockLost}
	}
	err := s.carryOut(ctx, x, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		delete(s.held, r)
	} else {
		r.settled = false
		r.lost = driver.KindOf(err) == driver.LockLost
	}
	return err
}

// carryOut settles at the broker.
func (s *source) carryOut(ctx context.Context, x *driver.Settlement, r *receipt) error {
	switch x.Kind {
	case driver.Complete:
		return s.twice(ctx, r, func(ctx context.Context, m *azservicebus.ReceivedMessage) error {
			return s.r.CompleteMessage(ctx, m, nil)
		})
	case driver.Abandon:
		if x.Delay > 0 {
			return s.postpone(ctx, x.Delay, r)
		}
		return s.twice(ctx, r, func(ctx context.Context, m *azservicebus.ReceivedMessage) error {
			return s.r.AbandonMessage(ctx, m, nil)
		})
	case driver.MoveToDeadLetter:
		return s.bury(ctx, r, x.Reason, x.Description)
	}
	return driver.Errorf(driver.Invalid, "settlement of kind %d", x.Kind)
}

func (s *source) bury(ctx context.Context, r *receipt, reason, description string) error {
	o := &azservicebus.DeadLetterOptions{
		Reason: &reason, ErrorDescription: &description,
		PropertiesToModify: map[string]any{propertyQueue: s.q.name, propertyAt: time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00")},
	}
	return s.twice(ctx, r, func(ctx context.Context, m *azservicebus.ReceivedMessage) error {
		return s.r.DeadLetterMessage(ctx, m, o)
	})
}

// postpone schedules a copy and completes the original: a crash in between leaves
// both. The count goes on in the copy, and ends where the broker's own would.
func (s *source) postpone(ctx context.Context, delay time.Duration, r *receipt) error {
	if r.d.Count >= s.q.settings.MaxDeliveries {
		return s.bury(ctx, r, "max_deliveries", "delivered as often as the queue allows")
	}
	// The copy must not outlive what it is a copy of: first find out that the
	// message is still this receiver's.
	if err := s.renewOne(ctx, r); err != nil {
		return err
	}
	again := r.d.Message
	again.NotBefore = time.Now().Add(delay)
	// Another identity for the broker, which would drop it as a repeat.
	again.DedupID = copyID(r.d)
	m, err := outgoing(&again, r.d.Count)
	if err != nil {
		return err
	}
	if again.TTL > 0 && !r.d.EnqueuedAt.IsZero() {
		left := max(again.TTL-time.Since(r.d.EnqueuedAt), time.Second)
		m.TimeToLive = &left
	}
	if err := s.q.sender.SendMessage(ctx, m, nil); err != nil {
		return classify(ctx, err)
	}
	return s.twice(ctx, r, func(ctx context.Context, m *azservicebus.ReceivedMessage) error {
		return s.r.CompleteMessage(ctx, m, nil)
	})
}

// twice settles over the link that the message came by and, where that is dead,
// by its lock token over the management link.
func (s *source) twice(ctx context.Context, r *receipt, settle func(context.Context, *azservicebus.ReceivedMessage) error) error {
	first, cancel := context.WithTimeout(ctx, settleLink)
	err := settle(first, r.m)
	cancel()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = classify(ctx, err)
	switch driver.KindOf(err) {
	case driver.Unavailable, driver.Closed, driver.Other:
	default:
		return err
	}
	if s.over.Err() != nil {
		return errClosed()
	}
	second, cancel := context.WithTimeout(ctx, settleManagement)
	defer cancel()
	if err := settle(second, &azservicebus.ReceivedMessage{LockToken: r.m.LockToken}); err != nil {
		return classify(ctx, err)
	}
	return nil
}

// renewOne extends the lock of one message, where the source has such locks.
func (s *source) renewOne(ctx context.Context, r *receipt) error {
	queue, ok := s.r.(*azservicebus.Receiver)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	return classify(ctx, queue.RenewMessageLock(ctx, r.m, nil))
}

// release gives everything back that is held, and forgets it.
func (s *source) release(ctx context.Context) {
	s.mu.Lock()
	held := make([]*receipt, 0, len(s.held))
	for r := range s.held {
		if !r.settled && !r.lost {
			held = append(held, r)
		}
		r.settled = true
	}
	clear(s.held)
	s.mu.Unlock()
	// The latest first, so that the earliest is where it was.
	slices.SortFunc(held, func(a, b *receipt) int { return int(sequence(b.m) - sequence(a.m)) })
	ctx, cancel := context.WithTimeout(ctx, settleManagement)
	defer cancel()
	for _, r := range held {
		if err := s.r.AbandonMessage(ctx, r.m, nil); errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return // their locks run out
		}
	}
}

func sequence(m *azservicebus.ReceivedMessage) int64 {
	if m.SequenceNumber == nil {
		return 0
	}
	return *m.SequenceNumber
}
