package sbqueue

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

const (
	// minWait is what a Receive without waiting gives the broker to answer; in a
	// session that has answered it is a few times as long as that took, and no
	// less than quickWait.
	minWait        = 500 * time.Millisecond
	minSessionWait = 50 * time.Millisecond
	// awayPause is before the attempt of a Receive that follows one which did not reach the
	// broker: callers may ask again at once.
	awayPause = 900 * time.Millisecond
	// maxReceive is within what the SDK takes for credit.
	maxReceive = 1000
	// receiveBatch is how many messages are worth a link of their own: a call brings what
	// comes within one round trip and 20 ms.
	receiveBatch = 32
)

// receiving is what the SDK's receivers for queues and for sessions share.
type receiving interface {
	ReceiveMessages(context.Context, int, *azservicebus.ReceiveMessagesOptions) ([]*azservicebus.ReceivedMessage, error)
	CompleteMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.CompleteMessageOptions) error
	AbandonMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.AbandonMessageOptions) error
	DeadLetterMessage(context.Context, *azservicebus.ReceivedMessage, *azservicebus.DeadLetterOptions) error
	Close(context.Context) error
}

// link is one receiver of the SDK, for as long as its first AMQP link lives. On a
// queue nothing but ReceiveMessages is called on it, see controlLink.
type link struct {
	r     receiving
	up    context.Context // ends when the AMQP link is known to be dead
	down  context.CancelFunc
	limit rolling // of settling over it
	used  bool    // by an earlier Receive
	lease
}

// newLink returns the link of a queue.
func (q *queue) newLink() *link {
	l := &link{lease: lease{b: q.b}}
	l.up, l.down = context.WithCancel(context.Background())
	return l
}

// source receives, and settles what it received.
type source struct {
	q    *queue
	dead bool // of the dead-letter queue

	// again makes a new receiver of the SDK. The SDK makes a dead link anew by
	// itself, but not if its condition counts as passing (server-busy,
	// timeout): then ReceiveMessages returns nothing at once, for ever. Nil in a
	// session, which is lost with its link.
	again func(*azservicebus.Client) (*azservicebus.Receiver, error)
	// lose is called when the link of a session is dead. Nil on a queue.
	lose func()

	link      *link         // of a session
	links     *linkPool     // of a queue
	watchOnce sync.Once     // begins to watch
	waiting   atomic.Int64  // calls of Receive, of a queue
	away      atomic.Bool   // the last Receive of a queue ended without reaching the broker
	turns     chan struct{} // a token for each call of Receive: the SDK allows one at a time over a link
	over      context.Context
	end       context.CancelFunc

	mu          sync.Mutex    // guards what follows
	unreadable  time.Time     // until when messages are asked for one by one
	answer      time.Duration // how long the session's first messages took; 0: none came
	controlLink *controlLink  // nil in a session
	held        map[*receipt]struct{}
	doubles     doubles // of copies
}

// receipt is a delivery and the driver's handle of it.
type receipt struct {
	driver.Delivery
	m        *azservicebus.ReceivedMessage // not written to: the SDK reads it in several goroutines
	received time.Time                     // by this machine's clock
	link     *link
	// single is the memory of what Receive returns if this is all that came.
	single [1]*driver.Delivery

	// Only the call that settles uses these.
	copyID  string // the message ID of the copy that an abandon with a delay makes
	removed bool   // it was completed

	// The source's mu guards what follows.
	copies   int  // how often the copy was sent: more than once if an answer was missing
	settled  bool // or being settled
	settling bool // it is being settled
	// unanswered: a settlement outlasted the call that began it.
	unanswered bool
	// lost is set once the broker has said that the lock is over: the SDK takes
	// a delivery that was answered for settled, and answers nil the next time.
	lost bool
}

// What a source is of.
const (
	ofMessages    = false
	ofDeadLetters = true
)

func newSource(q *queue, dead bool, calls int) *source {
	s := &source{q: q, dead: dead, turns: make(chan struct{}, calls), held: make(map[*receipt]struct{})}
	s.over, s.end = context.WithCancel(context.Background())
	return s
}

// newQueueSource returns the source of a queue or of its dead letters.
func newQueueSource(q *queue, dead bool) *source {
	o := &azservicebus.ReceiverOptions{}
	if dead {
		o.SubQueue = azservicebus.SubQueueDeadLetter
	}
	s := newSource(q, dead, maxLinks)
	s.again = func(client *azservicebus.Client) (*azservicebus.Receiver, error) {
		return client.NewReceiverForQueue(q.name, o)
	}
	s.links = &linkPool{s: s, make: s.again}
	s.controlLink = q.newControlLink()
	return s
}

// takeLink returns a link for one call of Receive.
func (s *source) takeLink(ctx context.Context) (*link, error) {
	if s.lose != nil {
		return s.link, nil
	}
	return s.links.take(ctx)
}

// putLink has other calls use a link.
func (s *source) putLink(l *link) {
	if s.lose == nil {
		l.used = true
		s.links.put(l)
	}
}

// broken notes that l is dead.
func (s *source) broken(l *link) {
	if s.lose != nil {
		l.down()
		s.lose()
		return
	}
	s.links.drop(l)
}

// receive returns what came within wait.
func (s *source) receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if max < 1 {
		return nil, driver.Errorf(driver.Invalid, "a Receive of %d messages", max)
	}
	if least := s.least(); wait < least {
		wait = least
	}
	rctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	deadline, _ := rctx.Deadline()
	select {
	case s.turns <- struct{}{}:
		defer func() { <-s.turns }()
	case <-rctx.Done():
		return nil, s.ended(ctx)
	case <-s.over.Done():
		return nil, errClosed()
	}
	defer context.AfterFunc(s.over, cancel)()
	if s.lose == nil {
		s.watchOnce.Do(s.watch)
		s.waiting.Add(1)
		defer s.waiting.Add(-1)
	}
	losses := 0
	if s.away.Load() {
		// One attempt a call, and no more than about one a second.
		losses = len(pauses)
		if !sleep(rctx, s.over, min(awayPause, wait/2)) {
			return nil, s.ended(ctx)
		}
	}
	for {
		if s.over.Err() != nil {
			return nil, errClosed()
		}
		l, messages, err := s.receiveOnce(rctx, max)
		if len(messages) > 0 || err == nil || !isLost(err) {
			s.away.Store(false)
		}
		if len(messages) > 0 {
			if s.lose == nil {
				s.q.b.main.heard()
			}
			out := s.take(l, messages)
			s.putLink(l)
			if s.over.Err() != nil {
				return nil, errClosed() // Close gives them back
			}
			if len(out) > 0 || rctx.Err() != nil {
				return out, nil
			}
			continue // all were doubles
		}
		if rctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) && !time.Now().Before(deadline) {
			if l != nil {
				s.putLink(l)
			}
			return nil, s.ended(ctx) // a dialer's timer may be before the context's
		}
		// Without an error it says no more than that the link was detached.
		lost := err == nil || isLost(err)
		again := false
		switch {
		case l == nil: // none could be made
		case lost, isStuck(err), isDead(err):
			again = l.used && s.lose == nil
			s.broken(l)
		default:
			s.putLink(l)
		}
		switch {
		case again:
			continue // over another link, which then says what is wrong
		case !lost:
			return nil, s.fault(ctx, err)
		case s.lose != nil:
			return nil, &driver.Error{Kind: driver.SessionLost}
		case losses == len(pauses):
			if err == nil {
				err = errDetached
			}
			s.away.Store(s.lose == nil)
			return nil, s.fault(ctx, err)
		}
		if losses > 0 && !sleep(rctx, s.over, pauses[losses]) {
			return nil, s.ended(ctx)
		}
		losses++
	}
}

// receiveOnce makes one call over a link, which is nil if there is none.
func (s *source) receiveOnce(ctx context.Context, max int) (l *link, all []*azservicebus.ReceivedMessage, err error) {
	for {
		if l, err = s.takeLink(ctx); err != nil {
			return nil, nil, err
		}
		if l.lease.take() {
			break
		}
		if s.lose != nil {
			return nil, nil, &driver.Error{Kind: driver.SessionLost}
		}
	}
	defer l.leave()
	all, err = s.fetch(ctx, l, min(max, maxReceive))
	return l, all, err
}

// least is the shortest time in which the broker can say that there is nothing.
// Its silence is all that a session's end is known by, and many sessions are short.
func (s *source) least() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lose == nil || s.answer == 0 {
		return minWait
	}
	return min(minWait, max(minSessionWait, 4*s.answer))
}

// answered notes how long the broker took with the first messages of a session,
// which as a rule were there already.
func (s *source) answered(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answer == 0 {
		s.answer = took
	}
}

// gatherWait is how long a session is asked for each further message.
const gatherWait = 20 * time.Millisecond

// fetch asks the SDK for messages. In a session it asks for one at a time: the SDK
// leaves the credit of what did not come in time with the broker, and gives back
// what comes by it between two calls. With more than one such credit the next call
// can meet a message whose predecessor is being given back, and so overtake it.
func (s *source) fetch(ctx context.Context, l *link, max int) ([]*azservicebus.ReceivedMessage, error) {
	if s.lose == nil {
		return s.ask(ctx, l.r, max)
	}
	begin := time.Now()
	all, err := s.ask(ctx, l.r, 1)
	if len(all) > 0 {
		s.answered(time.Since(begin))
	}
	for len(all) > 0 && len(all) < max {
		soon, cancel := context.WithTimeout(ctx, gatherWait)
		more, err := s.ask(soon, l.r, 1)
		cancel()
		switch {
		case len(more) > 0:
			all = append(all, more...)
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			return all, nil
		default:
			// The link is dead, and with it the session: what came is no longer
			// held, and the next call would attach again.
			return nil, err
		}
	}
	return all, err
}

// ask makes one call of ReceiveMessages. The SDK panics on a message whose sender gave
// a property that the broker uses another type, such as a DeadLetterReason that is a
// number. Everything that came with that message then waits for its lock to run out,
// so for that long messages are asked for one by one: the others arrive, and the
// broker dead-letters the one that cannot be read after its deliveries.
func (s *source) ask(ctx context.Context, r receiving, max int) (all []*azservicebus.ReceivedMessage, err error) {
	s.mu.Lock()
	if time.Now().Before(s.unreadable) {
		max = 1
	}
	s.mu.Unlock()
	err = readable(func() (err error) {
		all, err = r.ReceiveMessages(ctx, max, nil)
		return err
	})
	if errors.Is(err, errUnreadable) {
		s.mu.Lock()
		s.unreadable = time.Now().Add(2 * s.q.lock.duration)
		s.mu.Unlock()
	}
	return all, err
}

// readable makes a call that reads messages, and returns errUnreadable if it panics.
func readable(call func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errUnreadable
		}
	}()
	return call()
}

var errUnreadable = &driver.Error{Kind: driver.Unavailable, Err: errors.New("a message has a property of a type that the SDK cannot read: the broker dead-letters it after its deliveries")}

var errDetached = &driver.Error{Kind: driver.Unavailable, Err: errors.New("the broker detached the link several times in a row")}

// fault is classify for a call of this source.
func (s *source) fault(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	err = classify(ctx, err)
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return err
	case s.over.Err() != nil:
		return errClosed()
	case driver.KindOf(err) == driver.Closed:
		// Of a receiver or sender that was replaced meanwhile.
		return &driver.Error{Kind: driver.Unavailable, Err: err}
	}
	return err
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

func (s *source) take(l *link, messages []*azservicebus.ReceivedMessage) []*driver.Delivery {
	var out []*driver.Delivery
	if len(messages) > 1 {
		out = make([]*driver.Delivery, 0, len(messages))
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		r := &receipt{m: m, link: l, received: now}
		incoming(&r.Delivery, m, s.q.name, s.dead)
		if !r.Sealed {
			r.Body = bytes.Clone(r.Body) // the receiver's: m may be sent once more
		}
		r.LockedUntil = s.q.lock.end(now, r.LockedUntil)
		r.Receipt = r
		s.held[r] = struct{}{}
		if s.doubles.isHandled(r) {
			s.complete(r)
			continue
		}
		if other := s.doubles.arrive(r); other != nil {
			s.completeBeside(r, other)
			continue
		}
		if len(messages) == 1 {
			out = r.single[:0:1]
		}
		out = append(out, &r.Delivery)
	}
	return out
}

// shut ends the source: calls on it fail from now on.
func (s *source) shut() { s.end() }

// close gives back the held messages and closes the links.
func (s *source) close(ctx context.Context) error {
	s.shut()
	s.release(ctx)
	s.mu.Lock()
	d := s.controlLink
	s.mu.Unlock()
	var all []closer
	if s.link != nil {
		s.link.down()
		all = append(all, closing(s.link.close))
	}
	if s.links != nil {
		all = append(all, closing(s.links.close), closing(d.close))
	}
	return s.q.b.closeAll(ctx, all, closeQueue)
}
