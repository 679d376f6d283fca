package redispeer

import (
	"context"
	"net"
	"sync"
	"time"
)

// Proxy passes connections on to an address. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	life     context.Context //nolint:containedctx // until Close
	stop     context.CancelFunc
	work     sync.WaitGroup

	mu    sync.Mutex // guards what follows
	to    string
	delay time.Duration
	cut   chan struct{} // closed while nothing is cut
	conns map[net.Conn]struct{}
}

// NewProxy starts a proxy on 127.0.0.1 and a free port. It ends with Close.
func NewProxy(to string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends with Close
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, to: to, cut: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	close(p.cut)
	p.life, p.stop = context.WithCancel(context.Background())
	p.work.Go(p.accept)
	return p, nil
}

// Address returns the host and port of the proxy.
func (p *Proxy) Address() string { return p.listener.Addr().String() }

// Port returns the port of the proxy.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Delay has everything arrive later by d, in both directions.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Redirect has new connections go to another address, and ends the others.
func (p *Proxy) Redirect(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = to
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// Cut stops everything that passes, without an error for either side, until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.cut:
		p.cut = make(chan struct{})
	default:
	}
}

// Heal ends a Cut.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.cut:
	default:
		close(p.cut)
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.stop()
	_ = p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.work.Wait()
}

// keep has Close end a connection. It reports whether the proxy is open.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.Err() != nil {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		if !p.keep(near) {
			return
		}
		p.work.Go(func() {
			var d net.Dialer
			p.mu.Lock()
			to := p.to
			p.mu.Unlock()
			far, err := d.DialContext(p.life, "tcp", to)
			if err != nil || !p.keep(far) {
				_ = near.Close()
				return
			}
			p.work.Go(func() { p.pass(near, far) })
			p.pass(far, near)
		})
	}
}

// piece is what was read, and when it is due.
type piece struct {
	b   []byte
	due time.Time
}

// pass passes bytes on from one side to the other.
func (p *Proxy) pass(from, to net.Conn) {
	defer func() { _, _ = from.Close(), to.Close() }()
	pieces := make(chan piece, 1024)
	p.work.Go(func() {
		defer close(pieces)
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			if n > 0 {
				p.mu.Lock()
				d := p.delay
				p.mu.Unlock()
				select {
				case pieces <- piece{append([]byte(nil), b[:n]...), time.Now().Add(d)}:
				case <-p.life.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	for x := range pieces {
		if !p.wait(x.due) {
			return
		}
		if _, err := to.Write(x.b); err != nil {
			return
		}
	}
}

// wait waits for a time and for the end of a Cut.
func (p *Proxy) wait(due time.Time) bool {
	if d := time.Until(due); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-p.life.Done():
			return false
		}
	}
	p.mu.Lock()
	cut := p.cut
	p.mu.Unlock()
	select {
	case <-cut:
		return true
	case <-p.life.Done():
		return false
	}
}
