package faultproxy

import (
	"context"
	"net"
	"sync"
)

// TCP is a proxy in front of one server.
type TCP struct {
	listener net.Listener
	server   string
	faults   *Faults
	clock    Clock // nil: no times are changed

	ctx     context.Context // until Close
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// chunk is how many bytes a connection passes on at a time. It is small, so that a cut
// falls into the middle of messages.
const chunk = 4 << 10

// NewTCP starts a proxy in front of the server at that address, on 127.0.0.1 and a free
// port. With a clock, which may be nil, the server tells a wrong time now and then.
func NewTCP(server string, f *Faults, clock Clock) (*TCP, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &TCP{listener: l, server: server, faults: f, clock: clock}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.running.Go(p.accept)
	return p, nil
}

// Addr is the address of the proxy.
func (p *TCP) Addr() string { return p.listener.Addr().String() }

// Close ends every connection, and waits for all that runs.
func (p *TCP) Close() error {
	p.cancel()
	err := p.listener.Close()
	p.running.Wait()
	return err
}

func (p *TCP) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
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
	server, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	c := &passing{client: client, server: server, silent: make(chan struct{})}
	stop := context.AfterFunc(p.ctx, c.end)
	defer stop()
	defer c.end()
	var both sync.WaitGroup
	both.Go(func() { p.pass(c, client, server) })
	both.Go(func() { p.pass(c, server, client) })
	both.Wait()
}

// end closes both sides.
func (c *passing) end() {
	_ = c.client.Close()
	_ = c.server.Close()
}

// pass passes on what comes from one side.
func (p *TCP) pass(c *passing, from, to net.Conn) {
	b := make([]byte, chunk)
	for {
		n, err := from.Read(b)
		select {
		case <-c.silent: // what comes is swallowed, until a side gives up
			if err != nil {
				return
			}
			continue
		default:
		}
		if n > 0 && !p.step(c, from, to, b[:n]) {
			return
		}
		if err != nil {
			closeWrite(to) // as the other side did
			return
		}
	}
}

// step passes on one chunk, and reports whether the direction goes on.
func (p *TCP) step(c *passing, from, to net.Conn, b []byte) bool {
	kinds := []Fault{Delay, Delay, Delay, Drop, Cut, HalfClose, Silence}
	if p.clock != nil && from == c.server {
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
		for { // what comes is swallowed
			if _, err := from.Read(b); err != nil {
				return false
			}
		}
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
