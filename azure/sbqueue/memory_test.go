package sbqueue_test

import (
	"context"
	"net"
	"sync"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// memoryListener accepts connections in memory: in a bubble of testing/synctest time goes on
// while both ends of them wait.
type memoryListener struct {
	dialled chan net.Conn
	closing sync.Once
	closed  chan struct{}
}

func newMemoryListener() *memoryListener {
	return &memoryListener{dialled: make(chan net.Conn), closed: make(chan struct{})}
}

// connect is sbqueue.FromConnectionString over connections to l.
func (l *memoryListener) connect(connection string, o *sbqueue.Options) (*sbqueue.Broker, error) {
	return sbqueue.OverConnections(connection, o, l.dial)
}

func (l *memoryListener) dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.dialled <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.dialled:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *memoryListener) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *memoryListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5672} }

// inMemory has an emulator listen in memory, and a relay before it.
func inMemory() *sbemulator.Options { return &sbemulator.Options{Listener: newMemoryListener()} }
