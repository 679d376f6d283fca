package kvkeys

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := newPair()
	var err error
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		err = &net.OpError{Op: "dial", Net: "pipe", Err: errors.New("connection refused")}
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, errors.Join(err, client.Close(), server.Close())
}

func (l *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
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
	open *atomic.Int64 // ends of the pair

	mu     sync.Mutex
	more   *sync.Cond
	queue  []byte
	closed bool
}

// newPair starts a goroutine for each end. They end once both are closed.
func newPair() (client, server *buffered) {
	x, y := net.Pipe()
	open := new(atomic.Int64)
	open.Store(2)
	client, server = &buffered{Conn: x, open: open}, &buffered{Conn: y, open: open}
	for _, b := range []*buffered{client, server} {
		b.more = sync.NewCond(&b.mu)
		go b.pump()
	}
	return client, server
}

// pump writes until Close, and then what is left, as a socket does.
func (b *buffered) pump() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		switch {
		case len(b.queue) > 0:
			part := b.queue
			b.queue = nil
			b.mu.Unlock()
			_, err := b.Conn.Write(part)
			b.mu.Lock()
			if err != nil {
				return
			}
		case b.closed:
			_ = b.Conn.Close() // tells the other end that there is no more
			return
		default:
			b.more.Wait()
		}
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

// A write does not wait, so no deadline is for it: crypto/tls sets one that is over after its
// farewell, which must not end what is still under way.
func (b *buffered) SetWriteDeadline(time.Time) error { return nil }
func (b *buffered) SetDeadline(t time.Time) error    { return b.SetReadDeadline(t) }

// Close ends the reads of this end. The other end reads what is left until it is closed, too.
func (b *buffered) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil
	}
	b.closed = true
	b.more.Signal()
	if b.open.Add(-1) == 0 {
		return b.Conn.Close()
	}
	return b.SetReadDeadline(time.Now())
}
