package dialing

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// Dial is the dial function of a network, such as [net.Dialer.DialContext].
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Limited returns a Dial whose attempts count for the process, by address. A server is
// reached when it has sent a byte: in front of one that is away there may be another that
// takes connections.
func Limited(dial Dial) Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		a, err := To(network + " " + address).Begin(ctx)
		if err != nil {
			return nil, err
		}
		defer a.End()
		began := time.Now()
		c, err := dial(ctx, network, address)
		if err != nil {
			// A caller that leaves after a moment says nothing about the server.
			if ctx.Err() == nil || time.Since(began) >= longDial {
				a.Failed(err)
			}
			return nil, err
		}
		return &conn{Conn: c, a: a}, nil
	}
}

// longDial is how long a server that is there never takes to take a connection, as a rule.
const longDial = time.Second

// conn tells its attempt what became of it.
type conn struct {
	net.Conn
	a      *Attempt
	asked  atomic.Bool // something was written
	judged atomic.Bool // the attempt knows
}

func (c *conn) Write(b []byte) (int, error) {
	c.asked.Store(true)
	return c.Conn.Write(b)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.judged.Load() {
		return n, err
	}
	var t net.Error
	switch {
	case n > 0:
		if !c.judged.Swap(true) {
			c.a.Reached()
		}
	case err == nil, errors.Is(err, net.ErrClosed), errors.As(err, &t) && t.Timeout(), !c.asked.Load():
		// The client closed it, or a connection that was never used was closed.
	case !c.judged.Swap(true):
		c.a.Failed(err)
	}
	return n, err
}

// SyscallConn implements [syscall.Conn]: clients look whether an idle connection was closed.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
