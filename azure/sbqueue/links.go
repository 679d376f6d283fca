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

// connector has one caller connect what the others then share. In a sender or receiver
// without links the SDK makes them in each call that finds it so: of several at
// once, all but the last leak.
type connector struct {
	token chan struct{} // one token
	open  atomic.Bool
}

func newConnector() connector { return connector{token: make(chan struct{}, 1)} }

// pass has connect called, unless it has succeeded once.
func (g *connector) pass(ctx context.Context, connect func() error) error {
	select {
	case g.token <- struct{}{}:
		defer func() { <-g.token }()
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

	mu    sync.Mutex      // guards what follows
	c     closer          // nil until it is made
	life  context.Context // of its connection
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

// made says what the calls are of, and until when its connection lives.
func (l *lease) made(c closer, life context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.c, l.life = c, life
}

// connecting makes, if there is none yet, an object of the SDK over client, which lives until
// life ends, and its links.
type connecting func(ctx context.Context, client *azservicebus.Client, life context.Context) error

// connect runs f, which makes an object of the SDK and connects it, under the connector.
// While one call connects, the SDK blocks all others whatever their contexts say,
// including calls that make a sender or receiver. connect ends with ctx; f goes on, for
// connectTime at most, so that the next call finds what it has made.
func (l *lease) connect(ctx context.Context, g *connector, f connecting) error {
	return l.b.one(ctx, func() error {
		waiting, leave := context.WithTimeout(ctx, connectTime)
		defer leave()
		return l.connectAt(waiting, g, f)
	})
}

// connectAt calls f under the connector when it is its turn, unless ctx ends before. f ends
// with the connection, so that no turn is spent on one that was replaced.
func (l *lease) connectAt(ctx context.Context, g *connector, f connecting) error {
	if !l.take() {
		return errClosed()
	}
	defer l.leave()
	return l.b.linkTurn(ctx, neededLink, func() error {
		client, life := l.connection()
		bounded, cancel := context.WithTimeout(life, connectTime)
		defer cancel()
		return l.b.overLife(life, g.pass(bounded, func() error { return f(bounded, client, life) }))
	})
}

// connection returns the client to connect with, and the life of what is to be connected: an
// attempt before may have made it over a client that was replaced since.
func (l *lease) connection() (*azservicebus.Client, context.Context) {
	client, life := l.b.main.client()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c != nil {
		life = l.life
	}
	return client, life
}

// overLife is the error of connecting over a connection with this life: one that was replaced
// is told from the end of the Broker, because the next attempt finds another.
func (b *Broker) overLife(life context.Context, err error) error {
	if err != nil && life.Err() != nil && b.life.Err() == nil {
		return errNoAnswer
	}
	return err
}

// leave ends a call.
func (l *lease) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.over && l.users == 0 && l.c != nil {
		l.b.discard(l.life, l.c)
	}
}

// retire has it closed, in the background. It tells the broker, which may not answer.
func (l *lease) retire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over && l.users == 0 && l.c != nil {
		l.b.discard(l.life, l.c)
	}
	l.over = true
}

// close closes it now, if it is not in use.
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

// controlLink is the receiver of the SDK by which a queue's messages are settled and
// renewed, and looked at. It is another than the one that receives, whose links
// ReceiveMessages closes under the calls of others. That a message came by another
// receiver does not matter: the SDK settles over the AMQP link that it came by,
// never over a later one, whose delivery of that number would be another message.
type controlLink struct {
	r *azservicebus.Receiver // nil until it is connected
	connector
	lease
}

func (q *queue) newControlLink() *controlLink {
	return &controlLink{connector: newConnector(), lease: lease{b: q.b}}
}

// controlCall bounds a request over the control link, which the broker answers at once.
const controlCall = 3 * time.Second

// at makes a call over the control link, and again if the links are dead or the broker does
// not answer.
func (s *source) at(ctx context.Context, call func(context.Context, *azservicebus.Receiver) error) error {
	return persist(ctx, s.over, func() error { return s.once(ctx, call) })
}

// once makes a call over the control link, and replaces one that may be dead for good.
func (s *source) once(ctx context.Context, call func(context.Context, *azservicebus.Receiver) error) error {
	d, ok := s.takeControlLink()
	if !ok {
		return errClosed()
	}
	defer d.leave()
	began := time.Now()
	var err error
	if !d.open.Load() {
		err = d.connect(ctx, &d.connector, s.attached(d))
	}
	if err == nil {
		attempt, cancel := context.WithTimeout(ctx, controlCall)
		if err = call(attempt, d.r); err != nil && attempt.Err() != nil && ctx.Err() == nil {
			err = errNoAnswer
		}
		cancel()
	}
	if gone := s.q.b.main.note(began, err); gone || isStuck(err) || isDead(err) {
		s.replaceControlLink(d)
	}
	return err
}

// attached makes the receiver of d, if it has none yet, and its links.
func (s *source) attached(d *controlLink) connecting {
	return func(ctx context.Context, client *azservicebus.Client, life context.Context) error {
		if d.r == nil {
			r, err := s.again(client)
			if err != nil {
				return err
			}
			d.r = r
			d.made(r, life)
		}
		return askNothing(ctx, d.r)
	}
}

// connectControlLink connects the control link, when it is its turn.
func (s *source) connectControlLink() error {
	d, ok := s.takeControlLink()
	if !ok {
		return errClosed()
	}
	defer d.leave()
	if d.open.Load() {
		return nil
	}
	err := d.connectAt(s.over, &d.connector, s.attached(d))
	if isStuck(err) || isDead(err) {
		s.replaceControlLink(d)
	}
	return err
}

// askNothing makes a request that changes nothing: there is nothing behind the last number.
func askNothing(ctx context.Context, r *azservicebus.Receiver) error {
	last := int64(math.MaxInt64)
	_, err := r.PeekMessages(ctx, 1, &azservicebus.PeekMessagesOptions{FromSequenceNumber: &last})
	return err
}

const (
	// quietTime is how long a connection is quiet while a Receive waits, until the broker
	// is asked something: as long as it then takes to count as silent.
	quietTime = silentFor
	// watchEvery is how often that is looked at.
	watchEvery = quietTime / 4
)

// watch asks, while a Receive waits and nothing is heard, whether the broker is there: a
// Receive cannot tell an empty queue from a network that has fallen silent.
func (s *source) watch() {
	if !s.q.b.begin(1) {
		return
	}
	go func() {
		defer s.q.b.calls.Done()
		for sleep(s.over, s.over, watchEvery) {
			if s.waiting.Load() > 0 && s.q.b.main.quiet(quietTime) {
				_ = s.at(s.over, askNothing) // which replaces a connection that is silent
			}
		}
	}()
}

// takeControlLink begins a call; false when the source is closed.
func (s *source) takeControlLink() (*controlLink, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.controlLink, s.controlLink.take()
}

func (s *source) replaceControlLink(dead *controlLink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.controlLink != dead || s.over.Err() != nil {
		return
	}
	s.controlLink = s.q.newControlLink()
	dead.retire()
}

// sendLink is the SDK's sender of a queue.
type sendLink struct {
	s *azservicebus.Sender // nil until it is connected
	connector
	lease
}

func (q *queue) newSendLink() *sendLink {
	return &sendLink{connector: newConnector(), lease: lease{b: q.b}}
}

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
	o := q.sendLink
	ok := o.take()
	q.mu.Unlock()
	if !ok {
		return errClosed()
	}
	defer o.leave()
	began := time.Now()
	var err error
	if !o.open.Load() {
		err = o.connect(ctx, &o.connector, func(ctx context.Context, client *azservicebus.Client, life context.Context) error {
			if o.s == nil {
				s, err := client.NewSender(q.name, nil)
				if err != nil {
					return err
				}
				o.s = s
				o.made(s, life)
			}
			_, err := o.s.NewMessageBatch(ctx, nil) // which needs the link's limit
			return err
		})
	}
	if err == nil {
		err = q.b.bounded(ctx, limit, func(ctx context.Context) error { return call(ctx, o.s) })
	}
	if gone := q.b.main.note(began, err); gone || isStuck(err) || isDead(err) || errors.Is(err, errSilent) {
		q.replaceSendLink(o)
	}
	return err
}

func (q *queue) replaceSendLink(dead *sendLink) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sendLink != dead || q.source.over.Err() != nil {
		return
	}
	q.sendLink = q.newSendLink()
	dead.retire()
}
