package redisreplay_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/queue-runtime/queue/testbed/redispeer"
)

// eventually returns when f returns nil, within minutes.
func eventually(t testing.TB, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within 3 minutes: %v", err)
		}
	}
}

// restart kills a server and starts it again.
func restart(t testing.TB, s *redispeer.Server) {
	t.Helper()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
}

// evalText runs a script and returns the first line of the answer.
func evalText(t testing.TB, s *redispeer.Server, script string) (string, error) {
	t.Helper()
	return send(t, s, "EVAL", script, "0")
}

// send sends a command of any bytes, and returns the first line of the answer.
func send(t testing.TB, s *redispeer.Server, arguments ...string) (string, error) {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", s.Address())
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(arguments))
	for _, a := range arguments {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := c.Write([]byte(b.String())); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// offset returns a number of INFO replication.
func offset(t testing.TB, s *redispeer.Server, name string) string {
	t.Helper()
	text, err := s.Do(t.Context(), "INFO", "replication")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name); ok {
			return v
		}
	}
	return ""
}

// slotKeys returns the keys of a slot.
func slotKeys(t testing.TB, s *redispeer.Server, slot string) []string {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: s.Address(), Protocol: 2, DisableIdentity: true})
	defer func() { _ = c.Close() }()
	n, err := strconv.Atoi(slot)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := c.ClusterGetKeysInSlot(t.Context(), n, 1000).Result()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
