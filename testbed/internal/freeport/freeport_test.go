package freeport

import (
	"net"
	"strconv"
	"testing"
)

// TestTake: ports that were taken are taken once, although nothing listens there yet.
func TestTake(t *testing.T) {
	if !canReserve() {
		t.Skip("this system has no second address of loopback")
	}
	taken := make(map[int]bool)
	for range 300 {
		port, release, err := Take()
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if taken[port] {
			t.Fatalf("port %d was taken twice", port)
		}
		taken[port] = true
	}
	port, release, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatalf("a port that was taken is not free: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	release()
	again, err := listen(reserved, port)
	if err != nil {
		t.Fatalf("a port that was given back: %v", err)
	}
	_ = again.Close()
}

// TestPorts: ports are below those that the system hands out by itself: a client would be given
// one while its server is started again.
func TestPorts(t *testing.T) {
	for _, c := range []struct{ first, least, end int }{
		{0, 20000, 32000},     // unknown
		{32768, 20000, 32000}, // Linux
		{49152, 20000, 32000},
		{16000, 4000, 16000}, // gVisor
		{10000, 1024, 10000}, // a busy server
		{1024, 20000, 32000}, // all of them
	} {
		if least, end := ports(c.first); least != c.least || end != c.end {
			t.Errorf("the system hands out %d and more: %d to %d, want %d to %d", c.first, least, end, c.least, c.end)
		}
	}
}
