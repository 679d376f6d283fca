// Package freeport finds ports of 127.0.0.1 for servers that have to be told one. It reserves
// them, also from other processes that use this package: a port that the system gave and took
// back is soon another's on a machine that runs many tests at a time.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
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

// Take returns a port, and what gives it back when its server has ended. The server has the
// ports too that are higher than that one by each of others.
func Take(others ...int) (port int, release func(), err error) {
	least, end := ports(handedOut())
	span := end - least - slices.Max(append(others, 0))
	if span <= 0 {
		return 0, nil, fmt.Errorf("no port from %d to %d has others at a distance of %d", least, end, others)
	}
	reserves := canReserve()
	for range attempts {
		port := least + rand.IntN(span) //nolint:gosec // G404: not a secret
		if release, ok := take(port, reserves); ok {
			for _, distance := range others {
				var more func()
				if more, ok = take(port+distance, reserves); !ok {
					break
				}
				first := release
				release = func() { first(); more() }
			}
			if ok {
				return port, release, nil
			}
			release()
		}
	}
	return 0, nil, fmt.Errorf("no port from %d to %d is free", least, end)
}

// take takes one port if it is free.
func take(port int, reserves bool) (release func(), ok bool) {
	release = func() {}
	if reserves {
		mine, err := listen(reserved, port)
		if err != nil {
			return nil, false // another has it
		}
		release = func() { _ = mine.Close() }
	}
	free, err := listen("127.0.0.1", port)
	if err != nil {
		release()
		return nil, false
	}
	_ = free.Close() // its server listens there next
	return release, true
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
