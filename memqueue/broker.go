package memqueue

import (
	"context"
	"fmt"
	"sync"

	"github.com/queue-runtime/queue/driver"
)

// Broker is a broker and, as a driver.Broker, a connection to it.
type Broker struct {
	options Options
	conn    *conn // its own

	mu     sync.Mutex // guards what follows; taken after no other lock
	closed bool
	stores map[string]*store
	conns  map[*conn]struct{}
}

var _ driver.Broker = (*Broker)(nil)

// New returns a broker with the queues of o, which may be nil. Invalid options
// are reported by Open.
func New(o *Options) *Broker {
	b := &Broker{stores: make(map[string]*store), conns: make(map[*conn]struct{})}
	if o != nil {
		b.options = *o
	}
	b.conn = b.connect()
	return b
}

func (b *Broker) connect() *conn {
	c := &conn{broker: b, handles: make(map[closer]struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.closed = b.closed
	b.conns[c] = struct{}{}
	return c
}

// Declare makes a queue with settings of its own, as Options.Queues does. It
// fails when the queue exists.
func (b *Broker) Declare(queue string, o QueueOptions) error {
	if err := driver.CheckName(queue); err != nil {
		return err
	}
	cfg, err := o.resolve()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return &driver.Error{Kind: driver.Closed}
	}
	_, declared := b.options.Queues[queue]
	if declared || b.stores[queue] != nil {
		return fmt.Errorf("memqueue: queue %q exists", queue)
	}
	b.stores[queue] = newStore(queue, cfg)
	return nil
}

// Connect returns another connection, as another process would have. Its Close
// ends what was opened through it, and nothing else.
func (b *Broker) Connect() driver.Broker { return b.connect() }

// Open returns the queue of that name, and makes it if Options allow that. A
// name is what driver.CheckName takes.
func (b *Broker) Open(ctx context.Context, queue string, o *driver.QueueOptions) (driver.Queue, error) {
	return b.conn.Open(ctx, queue, o)
}

// Close ends the broker and all connections to it. What it holds can still be
// read by Stored.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	b.closed = true
	conns := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	stores := make([]*store, 0, len(b.stores))
	for _, s := range b.stores {
		stores = append(stores, s)
	}
	b.mu.Unlock()
	for _, c := range conns {
		_ = c.Close(ctx) // returns nil
	}
	for _, s := range stores {
		s.close()
	}
	return nil
}

// store returns the queue of that name; if it does not exist yet, and may,
// it is made if create is set.
func (b *Broker) store(name string, create bool) (*store, error) {
	if err := driver.CheckName(name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.stores[name]; s != nil {
		return s, nil
	}
	cfg, declared := b.options.Queues[name]
	switch {
	case !declared && (b.options.DeclaredOnly || !create):
		return nil, driver.Errorf(driver.NotFound, "queue %q does not exist", name)
	case !declared:
		cfg = b.options.Default
	}
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	if b.closed {
		return nil, &driver.Error{Kind: driver.Closed}
	}
	s := newStore(name, cfg)
	b.stores[name] = s
	return s, nil
}

// closer is something that a connection has opened.
type closer interface{ shut() }

// conn is a connection.
type conn struct {
	broker *Broker

	mu      sync.Mutex // guards what follows; never held while a store is locked
	closed  bool
	handles map[closer]struct{}
}

func (c *conn) Open(ctx context.Context, queue string, o *driver.QueueOptions) (driver.Queue, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.isClosed() {
		return nil, &driver.Error{Kind: driver.Closed}
	}
	s, err := c.broker.store(queue, true)
	if err != nil {
		return nil, err
	}
	h := &handle{
		conn:     c,
		caps:     s.cfg.capabilities(),
		source:   newSource(s, &s.active),
		sessions: make(map[*sessionHandle]struct{}),
	}
	if o != nil && o.Lock != 0 {
		if err := checkLock(o.Lock); err != nil {
			return nil, err
		}
		h.caps.Lock, h.source.lock = o.Lock, o.Lock
	}
	if err := c.keep(h); err != nil {
		return nil, err
	}
	return h, nil
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// keep makes h the connection's to close.
func (c *conn) keep(h closer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return &driver.Error{Kind: driver.Closed}
	}
	c.handles[h] = struct{}{}
	return nil
}

func (c *conn) forget(h closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.handles, h)
}

func (c *conn) Close(context.Context) error {
	c.mu.Lock()
	c.closed = true
	handles := c.handles
	c.handles = make(map[closer]struct{})
	c.mu.Unlock()
	for h := range handles {
		h.shut()
	}
	c.broker.mu.Lock()
	defer c.broker.mu.Unlock()
	delete(c.broker.conns, c)
	return nil
}
