package replay_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

var ctx = context.Background()

// BenchmarkMemory is what a message costs a receiver, Begin and Finish, in batches
// of 1 and 32.
func BenchmarkMemory(b *testing.B) {
	for _, size := range []int{1, 32} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			m, err := replay.NewMemory(nil)
			if err != nil {
				b.Fatal(err)
			}
			var requests []replay.Request
			var finishes []replay.Finish
			n := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				requests, finishes = requests[:0], finishes[:0]
				now := time.Now()
				for range size {
					n++
					id := replay.Identity{Sender: "sender", Sequence: n}
					binary.BigEndian.PutUint64(id.Stream[:], uint64(now.UnixMilli()>>30<<46)) //nolint:gosec // G115: after 1970
					r := replay.Request{
						ID: id, Token: replay.NewToken(), SealedAt: now, FreshUntil: now.Add(time.Minute), Now: now,
						RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Minute, Settled: n - 1,
					}
					requests = append(requests, r)
					finishes = append(finishes, replay.Finish{ID: id, Token: r.Token, Kind: replay.Consumed})
				}
				c, err := m.Begin(ctx, "group", requests)
				if err != nil || c[0].Err != nil {
					b.Fatal(c, err)
				}
				f, err := m.Finish(ctx, "group", finishes)
				if err != nil || f[0].Err != nil {
					b.Fatal(f, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/message")
		})
	}
}
