package sqlitereplay_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

// TestFileIsFlat: under steady traffic the file takes less than 128 MiB, and does
// not grow but for its parked records. 10^7 messages with QRT_SOAK=1, 10^5 else.
func TestFileIsFlat(t *testing.T) {
	seconds, recent := 100, 20_000
	if os.Getenv("QRT_SOAK") == "1" {
		seconds, recent = 10_000, 0
	}
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "replay.db")
		s := open(t, path, &sqlitereplay.Options{Normal: true, Bounds: replay.Bounds{Recent: recent}})
		x := &replaytest.Traffic{Store: s}
		var last replay.Stats
		const steps = 10
		for step := 1; step <= steps; step++ {
			x.Run(t, seconds/steps)
			n, err := s.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%8d handled: %5.1f MiB: %d records, %d recent, %d intervals",
				x.Handled, float64(n.Bytes)/(1<<20), n.Records, n.Recent, n.Intervals)
			if n.Streams != 20 || n.Recent > int64(n.Capacity.Recent)+2000 || n.Intervals > 20*1024 || n.Bytes > 128<<20 {
				t.Errorf("stats %+v, want 20 streams within their bounds", n)
			}
			if parked := n.Records - last.Records; step > steps/2 && n.Bytes-last.Bytes > 400*parked+2<<20 {
				t.Errorf("grew by %d bytes with %d records more", n.Bytes-last.Bytes, parked)
			}
			last = n
		}
		x.CheckAccounts(t)
	})
}

// BenchmarkStore is what a message costs a receiver, Begin and Finish, in batches
// of 1 and 32.
func BenchmarkStore(b *testing.B) {
	for _, normal := range []bool{false, true} {
		for _, size := range []int{1, 32} {
			b.Run(fmt.Sprint("normal=", normal, "/batch=", size), func(b *testing.B) {
				s := open(b, filepath.Join(b.TempDir(), "replay.db"), &sqlitereplay.Options{Normal: normal})
				ctx, n := context.Background(), uint64(0)
				for b.Loop() {
					var r []replay.Request
					var f []replay.Finish
					now := time.Now()
					for range size {
						n++
						id := replay.Identity{Sender: "sender", Sequence: n}
						binary.BigEndian.PutUint64(id.Stream[:], 1_800_000_000_000<<16)
						q := replay.Request{
							ID: id, Token: replay.NewToken(), SealedAt: now, FreshUntil: now.Add(time.Minute), Now: now,
							RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Minute, Settled: n - 1,
						}
						r, f = append(r, q), append(f, replay.Finish{ID: id, Token: q.Token, Kind: replay.Consumed})
					}
					if c, err := s.Begin(ctx, "group", r); err != nil || c[0].Err != nil {
						b.Fatal(c, err)
					}
					if c, err := s.Finish(ctx, "group", f); err != nil || c[0].Err != nil {
						b.Fatal(c, err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/message")
			})
		}
	}
}

// TestManySenders: what the store remembers of the file is bounded.
func TestManySenders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "replay.db")
	s := open(t, path, &sqlitereplay.Options{Normal: true})
	const batch = 500
	largest := 0
	for first := 0; first < 2*sqlitereplay.CacheLimit; first += batch {
		all := make([]replay.Request, batch)
		for i := range all {
			all[i] = request(1)
			all[i].ID.Sender = fmt.Sprint("sender", first+i)
		}
		c, err := s.Begin(t.Context(), "group", all)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c {
			if c[i].Err != nil {
				t.Fatal(c[i].Err)
			}
		}
		largest = max(largest, s.CacheSize())
	}
	checkCache := func(what string, largest, call int) {
		t.Helper()
		if limit := sqlitereplay.CacheLimit + call; largest < sqlitereplay.CacheLimit/2 || largest > limit {
			t.Errorf("%s: %d entries were remembered, want some and at most %d", what, largest, limit)
		}
	}
	checkCache("messages", largest, 4*batch)

	// Sweeps look at the senders in turn, and find nothing to do.
	sweeping := open(t, path, &sqlitereplay.Options{Normal: true})
	largest = 0
	for n := range 2 * sqlitereplay.CacheLimit {
		sweeping.Shift(time.Duration(n) * sqlitereplay.SweepTime)
		if err := sweeping.Probe(t.Context(), "group"); err != nil {
			t.Fatal(err)
		}
		largest = max(largest, sweeping.CacheSize())
	}
	checkCache("sweeps", largest, batch)

	groups := open(t, path, &sqlitereplay.Options{Normal: true})
	largest = 0
	for n := range 2 * sqlitereplay.CacheLimit {
		if err := groups.Probe(t.Context(), fmt.Sprint("group", n)); err != nil {
			t.Fatal(err)
		}
		largest = max(largest, groups.CacheSize())
	}
	checkCache("groups", largest, 1)
}
