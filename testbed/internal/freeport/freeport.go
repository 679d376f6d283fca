// Package freeport finds ports of 127.0.0.1 for servers that have to be told one. It reserves
// them, also from other processes that use this package: a port that the system gave and took
// back is soon another's on a machine that runs many tests at a time.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	// least and most are below the ports that systems hand out by themselves, to servers that
	// ask for any and to clients (32768 and above on Linux, 49152 elsewhere).
	least, most = 20000, 32000
	// reserved is another address of this machine. Who listens at a port there has the port
	// of 127.0.0.1, until the listener is closed or the process ends.
	reserved = "127.77.0.1"
	attempts = 1000
)

// Take returns a port, and what gives it back when its server has ended.
func Take() (port int, release func(), err error) {
	for range attempts {
		port := least + rand.IntN(most-least) //nolint:gosec // G404: not a secret
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
	return 0, nil, errors.New("no port is free: " + fmt.Sprint(least, " to ", most))
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
