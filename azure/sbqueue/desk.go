package sbqueue

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
)

// gate has one caller connect what the others then share. In a sender or receiver
// without links the SDK makes them in each call that finds it so: of several at
// once, all but the last leak.
type gate struct {
	turn chan struct{} // one token
	open atomic.Bool
}

func newGate() gate { return gate{turn: make(chan struct{}, 1)} }

// pass has connect called, unless it has succeeded once.
func (g *gate) pass(ctx context.Context, connect func() error) error {
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if g.open.Load() {
		return nil
	}
	err := connect()
	g.open.Store(err == nil)
	return err
}

// lease counts the calls of a sender or receiver of the SDK, so that the last of
// them closes it: a call that is retried on one that is closed makes its links
// anew, and nothing ends them.
type lease struct {
	b *Broker

	mu    sync.Mutex // guards what follows
	c     closer     // nil until it is made
	users int
	over  bool
}

// take begins a call; false when it is over.
func (l *lease) take() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.users++
	}
	return !l.over
}

// made says what the calls are of.
func (l *lease) made(c closer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.c = c
}

// connect has f make what the SDK has, and connect it, by the gate. While one
// connects, the SDK keeps all others waiting whatever their contexts say, and also
// those who make a sender or receiver: this ends with ctx, and f some time later.
func (l *lease) connect(ctx context.Context, g *gate, f func(context.Context) error) error {
	errs, _ := l.b.each(ctx, 1, 1, func(int) error {
		if !l.take() {
			return errClosed()
		}
		defer l.leave()
		bounded, cancel := context.WithTimeout(ctx, connectTime)
		defer cancel()
		return g.pass(bounded, func() error { return f(bounded) })
	})
	return errs[0]
}

// leave ends a call.
func (l *lease) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.over && l.users == 0 && l.c != nil {
		l.b.discard(l.c)
	}
}

// retire has it closed, in the background. It tells the broker, who may not answer.
func (l *lease) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over && l.users == 0 && l.c != nil {
		l.b.discard(l.c)
	}
	l.over = true
}

// close closes it now, where it is not in use.
func (l *lease) close(ctx context.Context) error {
	l.mu.Lock()
	now, c := !l.over && l.users == 0, l.c
	l.over = true
	l.mu.Unlock()
	if !now || c == nil {
		return nil
	}
	return c.Close(ctx)
}

// desk is the receiver of the SDK by which a queue's messages are settled and
// renewed, and looked at. It is another than the one that receives, whose links
// ReceiveMessages closes under the calls of others. That a message came by another
// receiver does not matter: the SDK settles over the AMQP link that it came by,
// never over a later one, whose delivery of that number would be another message.
type desk struct {
	r *azservicebus.Receiver // nil until the gate is open
	gate
	lease
}

func (q *queue) newDesk() *desk { return &desk{gate: newGate(), lease: lease{b: q.b}} }

// at makes a call by the desk, and again where the links are dead.
func (s *source) at(ctx context.Context, call func(*azservicebus.Receiver) error) error {
	return persist(ctx, s.over, func() error { return s.once(ctx, call) })
}

// once makes a call by the desk. A desk whose links may be dead for good is
// replaced.
func (s *source) once(ctx context.Context, call func(*azservicebus.Receiver) error) error {
	d, ok := s.takeDesk()
	if !ok {
		return errClosed()
	}
	defer d.leave()
	var err error
	if !d.open.Load() {
		err = d.connect(ctx, &d.gate, func(ctx context.Context) (err error) {
			d.r, err = s.attach(ctx, &d.lease, d.r)
			return err
		})
	}
	if err == nil {
		err = call(d.r)
	}
	if isStuck(err) || isDead(err) {
		s.replaceDesk(d)
	}
	return err
}

// attach makes a receiver, where r is none yet, and its links: there is nothing
// behind the last number.
func (s *source) attach(ctx context.Context, l *lease, r *azservicebus.Receiver) (*azservicebus.Receiver, error) {
	if r == nil {
		var err error
		if r, err = s.again(); err != nil {
			return nil, err
		}
		l.made(r)
	}
	last := int64(math.MaxInt64)
	_, err := r.PeekMessages(ctx, 1, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &last})
	return r, err
}

// prepare connects the desk in the background: that takes some round trips, which
// the first renewal of a lock might not have the time for.
func (s *source) prepare() {
	if !s.q.b.begin(1) {
		return
	}
	go func() {
		defer s.q.b.calls.Done()
		ctx, cancel := context.WithTimeout(s.over, connectTime)
		defer cancel()
		_ = s.once(ctx, func(*azservicebus.Receiver) error { return nil }) // the next call tries again
	}()
}

// takeDesk begins a call; false when the source is closed.
func (s *source) takeDesk() (*desk, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.desk, s.desk.take()
}

func (s *source) replaceDesk(dead *desk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.desk != dead || s.over.Err() != nil {
		return
	}
	s.desk = s.q.newDesk()
	dead.retire()
}

// outlet is the SDK's sender of a queue.
type outlet struct {
	s *azservicebus.Sender // nil until the gate is open
	gate
	lease
}

func (q *queue) newOutlet() *outlet { return &outlet{gate: newGate(), lease: lease{b: q.b}} }

// sending is a call of the sender.
type sending func(context.Context, *azservicebus.Sender) error

// uploadRate is what a line carries at least, in bytes a second: a transfer of 1 MiB
// gets 16 s more.
const uploadRate = 64 << 10

// transmit makes a call of the sender that sends so many bytes, and again if its link is
// dead.
func (q *queue) transmit(ctx context.Context, bytes int, call sending) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	limit := callLimit + time.Duration(bytes)*time.Second/uploadRate
	return q.source.fault(ctx, persist(ctx, q.source.over, func() error { return q.transmitOnce(ctx, limit, call) }))
}

// transmitOnce makes a call of the sender. A sender whose link may be dead for
// good is replaced.
func (q *queue) transmitOnce(ctx context.Context, limit time.Duration, call sending) error {
	q.mu.Lock()
	o := q.outlet
	ok := o.take()
	q.mu.Unlock()
	if !ok {
		return errClosed()
	}
	defer o.leave()
	var err error
	if !o.open.Load() {
		err = o.connect(ctx, &o.gate, func(ctx context.Context) error {
			if o.s == nil {
				s, err := q.b.client().NewSender(q.name, nil)
				if err != nil {
					return err
				}
				o.s = s
				o.made(s)
			}
			_, err := o.s.NewMessageBatch(ctx, nil) // which needs the link's limit
			return err
		})
	}
	if err == nil {
		err = q.b.bounded(ctx, limit, func(ctx context.Context) error { return call(ctx, o.s) })
	}
	if isStuck(err) || isDead(err) || errors.Is(err, errSilent) {
		q.replaceOutlet(o)
	}
	return err
}

func (q *queue) replaceOutlet(dead *outlet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.outlet != dead || q.source.over.Err() != nil {
		return
	}
	q.outlet = q.newOutlet()
	dead.retire()
}
