package redisreplay_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/faultproxy"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// usedMemory returns what the server says that it uses, in bytes.
func usedMemory(t testing.TB, s *redispeer.Server) int64 {
	t.Helper()
	text, err := s.Do(t.Context(), "INFO", "memory")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("INFO memory has no used_memory")
	return 0
}

// TestMemoryIsFlat: under steady traffic the server's memory does not grow but for parked
// records, and Stats.Bytes is about right. 10^6 messages with QRT_SOAK=1, 20,000 else.
func TestMemoryIsFlat(t *testing.T) {
	seconds, recent := 20, 4000
	if os.Getenv("QRT_SOAK") == "1" {
		seconds, recent = 1000, 0
	}
	server := redispeer.New(t, nil)
	empty := usedMemory(t, server)
	synctest.Test(t, func(t *testing.T) {
		o := redisreplay.Options{Fsync: redisreplay.FsyncNever, Bounds: replay.Bounds{Recent: recent}}
		s, err := redisreplay.OpenWithClock(context.Background(), server.URL(), o, clock{})
		if err != nil {
			t.Fatal(err)
		}
		closing(t, s)
		x := &replaytest.Traffic{Store: s}
		const steps = 10
		for range steps {
			x.Run(t, seconds/steps)
			n, err := s.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			used := usedMemory(t, server) - empty
			t.Logf("%8d handled: %7.1f KiB, %5.2f bytes each; Stats says %7.1f KiB: %d records, %d recent, %d intervals",
				x.Handled, float64(used)/1024, float64(used)/float64(x.Handled), float64(n.Bytes)/1024, n.Records, n.Recent, n.Intervals)
			if n.Streams != 20 || n.Recent > int64(n.Capacity.Recent)+2000 {
				t.Errorf("stats %+v, want 20 streams within their bounds", n)
			}
			// The scripts, connections and buffers are some hundred KiB.
			if n.Bytes > 3*used || used > 3*n.Bytes+1<<20 {
				t.Errorf("the server uses %d bytes, Stats says %d", used, n.Bytes)
			}
		}
		x.CheckAccounts(t)
	})
}

// BenchmarkStore is what a message costs a receiver, Begin and Finish, in batches of 1 and
// 32, with the store beside it and 5 ms away (2.5 ms in each direction).
func BenchmarkStore(b *testing.B) {
	for _, delay := range []time.Duration{0, 2500 * time.Microsecond} {
		for _, fsync := range []string{"never", "always"} {
			for _, size := range []int{1, 32} {
				b.Run(fmt.Sprint("away=", 2*delay, "/fsync=", fsync, "/batch=", size), func(b *testing.B) {
					settings := durable
					if fsync == "never" {
						settings = nil
					}
					s := open(b, "redis://"+behind(b, redispeer.New(b, settings), delay)+"/?fsync="+fsync, redisreplay.Options{})
					n := uint64(1)
					for b.Loop() {
						handle(b, s, messages(1, n, size)...)
						n += uint64(size) //nolint:gosec // G115: small
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/message")
				})
			}
		}
	}
}

// behind returns the address of a server that is so far away.
func behind(b *testing.B, server *redispeer.Server, delay time.Duration) string {
	if delay == 0 {
		return server.Address()
	}
	p, err := faultproxy.NewTCP(server.Address(), nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.Close() })
	p.Away(delay)
	return p.Addr()
}

// BenchmarkReceivers is 8 receivers in 4 Stores that handle the messages of one stream in
// batches of 32, as a queue with one sender has them: the worst case, because all write
// the same pages. It reports how many requests a call takes.
func BenchmarkReceivers(b *testing.B) {
	for _, delay := range []time.Duration{0, 2500 * time.Microsecond} {
		for _, senders := range []uint64{1, 8} {
			b.Run(fmt.Sprint("away=", 2*delay, "/senders=", senders), func(b *testing.B) {
				server := redispeer.New(b, nil)
				address := behind(b, server, delay)
				var next atomic.Uint64
				var wg sync.WaitGroup
				before := calls(b, server, "evalsha")
				b.ResetTimer()
				for range processes {
					s := open(b, "redis://"+address+"/?fsync=never", redisreplay.Options{})
					for range receiversEach {
						wg.Go(func() {
							for {
								n := next.Add(1) - 1
								if n >= uint64(b.N) { //nolint:gosec // G115: not negative
									return
								}
								handle(b, s, messages(byte(n%senders), 1+n/senders*32, 32)...)
							}
						})
					}
				}
				wg.Wait()
				b.ReportMetric(float64(calls(b, server, "evalsha")-before)/float64(2*b.N), "requests/call")
				b.ReportMetric(float64(b.N*32)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}
