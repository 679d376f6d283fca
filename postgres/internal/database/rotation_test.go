package database

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// logins is a server that asks for passwords in clear, notes them and refuses each.
func logins(t *testing.T) (address string, seen <-chan string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	passwords, over := make(chan string, 10), make(chan struct{})
	go func() {
		defer close(over)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			login(c, passwords)
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-over
	})
	return l.Addr().String(), passwords
}

// login speaks the part of PostgreSQL's protocol, version 3, up to a refusal. It notes the
// password before that: afterwards the client goes on.
func login(c net.Conn, passwords chan<- string) {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	read := func(tag int) ([]byte, error) {
		head := make([]byte, tag+4)
		if _, err := io.ReadFull(c, head); err != nil {
			return nil, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[tag:])-4)
		_, err := io.ReadFull(c, body)
		return body, err
	}
	if _, err := read(0); err != nil { // StartupMessage
		return
	}
	if _, err := c.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3}); err != nil { // AuthenticationCleartextPassword
		return
	}
	body, err := read(1) // PasswordMessage
	if err != nil {
		return
	}
	passwords <- string(bytes.TrimRight(body, "\x00"))
	refusal := []byte("SFATAL\x00VFATAL\x00C28P01\x00Mrefused\x00\x00")
	answer := append([]byte{'E'}, binary.BigEndian.AppendUint32(nil, uint32(len(refusal)+4))...) //nolint:gosec // G115: short
	_, _ = c.Write(append(answer, refusal...))
}

// A password that was rotated is used by the next connection, of the pool and of one beside
// it, and the last one that was read while the file cannot be read.
func TestRotatedPassword(t *testing.T) {
	address, seen := logins(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "passwords")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, "%s:%s:db:u:%s\n", host, port, password), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	c, err := ParseURL("postgres://u@"+address+"/db?sslmode=disable&passfile="+file, func(*Parameters) {})
	if err != nil {
		t.Fatal(err)
	}
	c.ConnConfig.ConnectTimeout = time.Minute
	Limit(c)
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	try := map[string]func(context.Context) error{
		"pool": func(ctx context.Context) error {
			_, err := pool.Exec(ctx, "SELECT 1")
			return err
		},
		"beside it": func(ctx context.Context) error {
			_, err := Connect(ctx, pool.Config())
			return err
		},
	}
	for _, change := range []struct {
		what, want string
		make       func()
	}{
		{"as it was", "first", func() {}},
		{"rotated", "second", func() { write("second") }},
		{"the file is gone", "second", func() {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		change.make()
		for name, call := range try {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if err := call(ctx); err == nil {
				t.Errorf("%s, %s: connected to a server that refuses", name, change.what)
			}
			cancel()
			select {
			case got := <-seen:
				if got != change.want {
					t.Errorf("%s, %s: logged in with %q, want %q", name, change.what, got, change.want)
				}
			default:
				t.Errorf("%s, %s: no login", name, change.what)
			}
		}
	}
}
