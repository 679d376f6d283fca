package kvkeys

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
)

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return newBuffered(client), nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: errors.New("connection refused")}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return newBuffered(c), nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipes) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// buffered is an end of a pipe whose writes do not wait for the other end, as those
// of a socket do not. Else both ends could wait for the other to read their farewell,
// httptest with its mutex held, for which no bubble's time passes.
type buffered struct {
	net.Conn

	mu     sync.Mutex
	more   *sync.Cond
	queue  []byte
	closed bool
}

// newBuffered starts a goroutine that ends with Close.
func newBuffered(c net.Conn) *buffered {
	b := &buffered{Conn: c}
	b.more = sync.NewCond(&b.mu)
	go b.pump()
	return b
}

func (b *buffered) pump() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed {
		if len(b.queue) == 0 {
			b.more.Wait()
			continue
		}
		part := b.queue
		b.queue = nil
		b.mu.Unlock()
		_, err := b.Conn.Write(part)
		b.mu.Lock()
		b.closed = b.closed || err != nil
	}
}

func (b *buffered) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, net.ErrClosed
	}
	b.queue = slices.Concat(b.queue, p)
	b.more.Signal()
	return len(p), nil
}

func (b *buffered) Close() error {
	b.mu.Lock()
	b.closed = true
	b.more.Signal()
	b.mu.Unlock()
	return b.Conn.Close()
}
