package dialing

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// made counts the servers that tests connect to.
var made atomic.Int64

// server is the address of a server of its own: the process remembers what it knows of each,
// and a bubble must not meet what another one has left.
func server(t *testing.T) string {
	t.Helper()
	return fmt.Sprint(t.Name(), " ", made.Add(1))
}

// TestLimited: a server that takes connections and says nothing, or refuses them, is
// connected to rarely; one that has said a byte is not waited for.
func TestLimited(t *testing.T) {
	for name, x := range map[string]struct {
		dial  func() (net.Conn, error)
		fewer bool
	}{
		"refuses":          {func() (net.Conn, error) { return nil, errRefused }, true},
		"takes and closes": {func() (net.Conn, error) { return silent(0), nil }, true},
		"answers":          {func() (net.Conn, error) { return silent(1), nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dials := 0
				dial := Limited(func(context.Context, string, string) (net.Conn, error) { dials++; return x.dial() })
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				address := server(t)
				tries := 0
				for ; ctx.Err() == nil && tries < 1000; tries++ {
					if c, err := dial(ctx, "tcp", address); err == nil {
						_, _ = c.Write([]byte("hello")) // what comes of it, Read tells
						_, _ = io.ReadAll(c)
						_ = c.Close()
					}
				}
				if few := dials <= 25; few != x.fewer || dials == 0 {
					t.Errorf("%d attempts for %d calls in 10 s", dials, tries)
				}
			})
		})
	}
}

// TestLimitedUnused: a connection that was not used, or is closed by its client, says
// nothing about the server.
func TestLimitedUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		address := server(t)
		client, remote := net.Pipe()
		dial := Limited(func(context.Context, string, string) (net.Conn, error) { return client, nil })
		c, err := dial(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = remote.Close()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection that was closed is read from")
		}
		gone, cancel := context.WithCancel(t.Context())
		leaving := Limited(func(ctx context.Context, _, _ string) (net.Conn, error) {
			cancel()
			return nil, ctx.Err()
		})
		if _, err := leaving(gone, "tcp", address); err == nil {
			t.Error("a dial that was given up has a connection")
		}
		if l := To("tcp " + address); l.failures != 0 || l.under != 0 {
			t.Errorf("%d failures, %d attempts under way; want none", l.failures, l.under)
		}
	})
}

// silent is a connection to a server that says n bytes and closes.
type silence struct {
	net.Conn
	left int
}

func silent(n int) net.Conn { return &silence{left: n} }

func (s *silence) Write(b []byte) (int, error) { return len(b), nil }
func (s *silence) Close() error                { return nil }
func (s *silence) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	s.left--
	return copy(b, "x"), nil
}
