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
