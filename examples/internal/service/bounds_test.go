package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a net.Listener in memory, so that the time of a bubble is that of its
// connections.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// drip sends a byte a second until the other side has closed the connection, five
// minutes at most.
func drip(c net.Conn, b string) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range 300 {
		if _, err := io.WriteString(c, b); err != nil {
			return
		}
		<-tick.C
	}
}

// A slow client keeps its connection until its time-out, and no longer, whatever it is
// slow with.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	timeouts := Timeouts{Read: 8 * time.Second, Write: 17 * time.Second}
	const post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
	for _, c := range []struct {
		name  string
		slow  func(net.Conn)
		bound time.Duration
	}{
		{"says nothing", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, readHeaderTimeout},
		{"sends headers without end", func(c net.Conn) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nX: ")
			drip(c, "y")
		}, readHeaderTimeout},
		{"sends its body byte by byte", func(c net.Conn) {
			_, _ = io.WriteString(c, post)
			go func() { _, _ = io.Copy(io.Discard, c) }()
			drip(c, "y")
		}, timeouts.Read},
		{"does not read the answer", func(c net.Conn) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			drip(c, "\n")
		}, timeouts.Write},
		{"keeps an idle connection", func(c net.Conn) {
			_, _ = io.WriteString(c, "GET /short HTTP/1.1\r\nHost: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}, idleTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newPipes()
			s := serve("test", l, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if _, err := io.Copy(io.Discard, q.Body); err != nil {
					return
				}
				if q.URL.Path != "/short" {
					_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
				}
			}), timeouts, slog.New(slog.DiscardHandler))
			begin := time.Now()
			conn := l.dial()
			c.slow(conn)
			if took := time.Since(begin); took < c.bound || took > c.bound+2*time.Second {
				t.Errorf("who %s is cut off after %s, want %s", c.name, took, c.bound)
			}
			if err := errors.Join(conn.Close(), s.Close(context.Background())); err != nil {
				t.Error(err)
			}
			if err := <-s.Done(); !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// Headers take no more memory than they may.
func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]int{8 << 10: http.StatusOK, 32 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		synctest.Test(t, func(t *testing.T) {
			l := newPipes()
			s := serve("test", l, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), AdminTimeouts, slog.New(slog.DiscardHandler))
			c := l.dial()
			go func() { _, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("y", size)) }()
			a, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if a.StatusCode != want {
				t.Errorf("headers of %d bytes: %d, want %d", size, a.StatusCode, want)
			}
			if err := errors.Join(a.Body.Close(), c.Close(), s.Close(context.Background())); err != nil {
				t.Error(err)
			}
			if err := <-s.Done(); !errors.Is(err, http.ErrServerClosed) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}
