package faultproxy

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/queue-runtime/queue/backoff"
)

// TCP is a proxy in front of one server. It draws what goes wrong, and does what it is told
// besides. It is safe for concurrent use.
type TCP struct {
	listener net.Listener
	faults   *Faults // nil: none are drawn
	clock    Clock   // nil: no times are changed

	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows
	server  string
	taken   int
	away    time.Duration
	flowing chan struct{} // closed unless the proxy is stalled
	open    map[*passing]struct{}
}

// chunk is how many bytes a connection passes on at a time. It is small, so that a cut
// falls into the middle of messages.
const chunk = 4 << 10

// NewTCP starts a proxy in front of the server at that address, on 127.0.0.1 and a free
// port. Nil for f means that nothing goes wrong by itself. With a clock, which may be nil,
// the server tells a wrong time now and then. The proxy ends with Close.
func NewTCP(server string, f *Faults, clock Clock) (*TCP, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &TCP{listener: l, server: server, faults: f, clock: clock, flowing: make(chan struct{}), open: make(map[*passing]struct{})}
	close(p.flowing)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Addr is the address of the proxy.
func (p *TCP) Addr() string { return p.listener.Addr().String() }

// Port is the port of the proxy.
func (p *TCP) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Close ends every connection, and waits for all that runs.
func (p *TCP) Close() error {
	p.cancel()
	err := p.listener.Close()
	p.running.Wait()
	return err
}

// Away has everything arrive later by d, in each direction. What follows does not wait for
// it: the server is far away, and the line is as wide as before.
func (p *TCP) Away(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = d
}

// Server is where new connections go.
func (p *TCP) Server() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server
}

// Redirect has new connections go to another server, and ends the others.
func (p *TCP) Redirect(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = server
	for c := range p.open {
		c.end()
	}
}

// Taken returns how many connections clients have opened since the last call.
func (p *TCP) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.taken
	p.taken = 0
	return n
}

// Stall stops everything that passes, without an error for either side, until Resume.
func (p *TCP) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
		p.flowing = make(chan struct{})
	default:
	}
}

// Resume ends a Stall: what was held goes on.
func (p *TCP) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flowing:
	default:
		close(p.flowing)
	}
}

func (p *TCP) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.taken++
		p.mu.Unlock()
		if p.faults.draw(Refuse) == Refuse {
			_ = client.Close()
			continue
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// passing is one connection, to the client and to the server.
type passing struct {
	client, server net.Conn
	silent         chan struct{} // closed: nothing passes any more
	silence        sync.Once
}

func (p *TCP) serve(client net.Conn) {
	p.mu.Lock()
	to := p.server
	p.mu.Unlock()
	server, err := new(net.Dialer).DialContext(p.ctx, "tcp", to)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &passing{client: client, server: server, silent: make(chan struct{})}
	stop := context.AfterFunc(p.ctx, c.end)
	defer stop()
	defer c.end()
	if !p.enter(c, to) {
		return
	}
	defer p.leave(c)
	var both sync.WaitGroup
	both.Go(func() { p.pass(c, client, server) })
	both.Go(func() { p.pass(c, server, client) })
	both.Wait()
}

// enter has Redirect end a connection. It reports whether that was not due meanwhile.
func (p *TCP) enter(c *passing, to string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = struct{}{}
	return p.server == to
}

func (p *TCP) leave(c *passing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

// end closes both sides.
func (c *passing) end() {
	_ = c.client.Close()
	_ = c.server.Close()
}

// piece is what was read, and when it may go on.
type piece struct {
	b   []byte
	due time.Time
}

// underWay bounds the pieces that are on their way in one direction.
const underWay = 1024

// pass passes on what comes from one side.
func (p *TCP) pass(c *passing, from, to net.Conn) {
	pieces, over := make(chan piece, underWay), make(chan struct{})
	p.running.Go(func() { p.read(from, pieces, over) })
	defer close(over)
	for x := range pieces {
		if !p.hold(x.due) {
			return
		}
		select {
		case <-c.silent: // what comes is swallowed, until a side gives up
			continue
		default:
		}
		if !p.step(c, pieces, to, x.b) {
			return
		}
	}
	select {
	case <-c.silent:
	default:
		closeWrite(to) // as the other side did
	}
}

// read reads what comes from one side, until that ends or over is closed.
func (p *TCP) read(from net.Conn, pieces chan<- piece, over <-chan struct{}) {
	defer close(pieces)
	for {
		b := make([]byte, chunk)
		n, err := from.Read(b)
		if n > 0 {
			p.mu.Lock()
			away := p.away
			p.mu.Unlock()
			select {
			case pieces <- piece{b[:n], time.Now().Add(away)}:
			case <-over:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hold waits until a piece is due, and while the proxy is stalled. It reports whether the
// proxy is open.
func (p *TCP) hold(due time.Time) bool {
	if !backoff.Sleep(p.ctx, time.Until(due)) {
		return false
	}
	p.mu.Lock()
	flowing := p.flowing
	p.mu.Unlock()
	select {
	case <-flowing:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// step passes on one piece, and reports whether the direction goes on.
func (p *TCP) step(c *passing, pieces <-chan piece, to net.Conn, b []byte) bool {
	kinds := []Fault{Delay, Delay, Delay, Drop, Cut, HalfClose, Silence}
	if p.clock != nil && to == c.client {
		kinds = append(kinds, WrongClock, WrongClock, WrongClock)
	}
	switch p.faults.draw(kinds...) {
	case Delay:
		if !p.faults.pause(p.ctx) {
			return false
		}
	case Drop:
		c.end()
		return false
	case Cut:
		_, _ = to.Write(b[:len(b)/2])
		c.end()
		return false
	case HalfClose:
		closeWrite(to)
		for range pieces { // what comes is swallowed
		}
		return false
	case Silence:
		c.silence.Do(func() { close(c.silent) })
		return true
	case WrongClock:
		by := wrongBy
		if p.faults.below(2) == 0 {
			by = -by
		}
		p.clock(b, by)
	case None, LoseAnswer, Refuse, Reorder:
	}
	_, err := to.Write(b)
	return err == nil
}

func closeWrite(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
