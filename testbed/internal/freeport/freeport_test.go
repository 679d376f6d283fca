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

// TestOthers: the other ports of a server are reserved with its first one, and given back with
// it.
func TestOthers(t *testing.T) {
	if !canReserve() {
		t.Skip("this system has no second address of loopback")
	}
	port, release, err := Take(7, 10000)
	if err != nil {
		t.Fatal(err)
	}
	if _, end := ports(handedOut()); port+10000 >= end {
		t.Errorf("port %d has another one that the system hands out", port)
	}
	for _, p := range []int{port, port + 7, port + 10000} {
		if _, ok := take(p, true); ok {
			t.Errorf("port %d was taken twice", p)
		}
	}
	release()
	for _, p := range []int{port, port + 7, port + 10000} {
		again, ok := take(p, true)
		if !ok {
			t.Errorf("port %d was not given back", p)
			continue
		}
		again()
	}
	if _, _, err := Take(1 << 16); err == nil {
		t.Error("a distance that no two ports have: no error")
	}
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
