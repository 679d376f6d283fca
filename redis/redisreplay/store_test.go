package redisreplay_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

func TestMain(m *testing.M) {
	logging.Disable() // servers that are away are what these tests are about
	if rawURL := os.Getenv(receiverVariable); rawURL != "" {
		if err := receivers(rawURL, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "receivers:", err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	redispeer.StopShared()
	os.Exit(code)
}

// clock has the server's clock follow that of a bubble: it sets a key before each request.
type clock struct{}

func (clock) DialHook(next redis.DialHook) redis.DialHook { return next }

func (clock) set(ctx context.Context) redis.Cmder {
	return redis.NewCmd(ctx, "SET", "test-clock", time.Now().UnixMilli())
}

func (c clock) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "eval" {
			if err := next(ctx, c.set(ctx)); err != nil {
				return err
			}
		}
		return next(ctx, cmd)
	}
}

func (c clock) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return next(ctx, append([]redis.Cmder{c.set(ctx)}, cmds...))
	}
}

// stores counts the stores of this test binary, so that each has keys of its own.
var stores atomic.Int64

func prefix() string { return fmt.Sprint("store-", stores.Add(1)) }

func closing(t testing.TB, s *redisreplay.Store) *redisreplay.Store {
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// patient waits for replicas for as long as a machine under load may take, and does not
// ask what a crash loses.
var patient = redisreplay.Options{Fsync: redisreplay.FsyncNever, ReplicaTimeout: 5 * time.Second, Timeout: 20 * time.Second}

// open opens a store.
func open(t testing.TB, rawURL string, o redisreplay.Options) *redisreplay.Store {
	t.Helper()
	s, err := redisreplay.Open(context.Background(), rawURL, &o)
	if err != nil {
		t.Fatal(err)
	}
	return closing(t, s)
}

// fixture returns handles on a store of its own on the shared server. In a bubble the
// server's clock is that of the bubble.
func fixture(t testing.TB, b replay.Bounds) replaytest.Fixture {
	server := redispeer.Shared(t)
	o := redisreplay.Options{Prefix: prefix(), Bounds: b, Fsync: redisreplay.FsyncNever}
	u, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	plain := redis.NewClient(&redis.Options{Addr: u.Host, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = plain.Close() })
	ctx := context.Background()
	keys := func() []string {
		list, err := plain.Keys(ctx, "{"+o.Prefix+"}:*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	return replaytest.Fixture{
		Open: func(time.Duration) replay.Store {
			s, err := redisreplay.OpenWithClock(ctx, server.URL(), o, clock{})
			if err != nil {
				t.Fatal(err)
			}
			return closing(t, s)
		},
		Lose: func() {
			for _, k := range keys() {
				if err := plain.Del(ctx, k).Err(); err != nil {
					t.Fatal(err)
				}
			}
		},
		Backup: func() (restore func()) {
			saved := make(map[string]string)
			for _, k := range keys() {
				v, err := plain.Dump(ctx, k).Result()
				if err != nil {
					t.Fatal(err)
				}
				saved[k] = v
			}
			return func() {
				for _, k := range keys() {
					_ = plain.Del(ctx, k)
				}
				for k, v := range saved {
					if err := plain.RestoreReplace(ctx, k, 0, v).Err(); err != nil {
						t.Fatal(err)
					}
				}
			}
		},
	}
}

func TestStore(t *testing.T) {
	redispeer.Shared(t)
	replaytest.Run(t, replaytest.Options{New: fixture, Schedules: 60})
}
