package redisreplay_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// TestHandlesAreBounded: what processes that were killed have left behind goes when there is
// much of it, and what a Store has of its own when it is closed.
func TestHandlesAreBounded(t *testing.T) {
	const killed = 70_000
	server := redispeer.Shared(t)
	o := patient
	o.Prefix = prefix()
	s, err := redisreplay.Open(t.Context(), server.URL(), &o)
	if err != nil {
		t.Fatal(err)
	}
	key := "{" + o.Prefix + "}:store"
	if got, err := send(t, server, "EVAL", `
		for i = 1, ARGV[1] do redis.call('HSET', KEYS[1], '@' .. i, i) end
		redis.call('HSET', KEYS[1], 'handles', 65536, 'change', ARGV[1])
		return redis.call('HLEN', KEYS[1])`, "1", key, "70000"); err != nil {
		t.Fatal(got, err)
	}
	count := func() int {
		t.Helper()
		got, err := send(t, server, "EVAL", `
			local n = 0
			for _, f in ipairs(redis.call('HKEYS', KEYS[1])) do
				if string.sub(f, 1, 1) == '@' then n = n + 1 end
			end
			return n`, "1", key)
		if err != nil {
			t.Fatal(got, err)
		}
		n, err := strconv.Atoi(strings.TrimPrefix(got, ":"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 3 {
		if err := s.Probe(t.Context(), group); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(); n != killed/2+1 {
		t.Errorf("%d handles, want the newer half and one", n)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != killed/2 {
		t.Errorf("%d handles after Close, want %d", n, killed/2)
	}
}
