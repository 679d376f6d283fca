// Package freeport finds ports of 127.0.0.1 for servers that have to be told one. It reserves
// them, also from other processes that use this package: a port that the system gave and took
// back is soon another's on a machine that runs many tests at a time.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	// most and below are the ports of this package: no more than most, and below those that
	// systems hand out by themselves, to servers that ask for any and to clients (32768 and
	// above on Linux, 49152 elsewhere).
	most, below = 12000, 32000
	// reserved is another address of this machine. Who listens at a port there has the port
	// of 127.0.0.1, until the listener is closed or the process ends.
	reserved = "127.77.0.1"
	attempts = 1000
)

// Take returns a port, and what gives it back when its server has ended.
func Take() (port int, release func(), err error) {
	least, end := ports(handedOut())
	for range attempts {
		port := least + rand.IntN(end-least) //nolint:gosec // G404: not a secret
		mine, err := listen(reserved, port)
		if err != nil && canReserve() {
			continue // another has it
		}
		free, err := listen("127.0.0.1", port)
		if err != nil {
			if mine != nil {
				_ = mine.Close()
			}
			continue
		}
		return port, func() {
			if mine != nil {
				_ = mine.Close()
			}
		}, free.Close()
	}
	return 0, nil, errors.New("no port is free: " + fmt.Sprint(least, " to ", end))
}

// handedOut returns the first port that this system hands out by itself, 0 if it does not say.
func handedOut() (first int) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range") // Linux; others have fixed ones
	if err != nil {
		return 0
	}
	_, _ = fmt.Sscan(string(text), &first) // what is no number tells nothing
	return first
}

// ports returns the ports to choose from, which are below the first that the system hands out.
// Sandboxes begin at 16000. If it hands out nearly all, some of its own have to do.
func ports(first int) (least, end int) {
	const unprivileged, enough = 1024, 4000
	end = below
	if first > unprivileged+enough {
		end = min(end, first)
	}
	return max(unprivileged, end-most), end
}

// canReserve reports whether this system has the address at which ports are reserved.
func canReserve() bool {
	l, err := listen(reserved, 0)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func listen(host string, port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))) //nolint:noctx // ends at once
}
