package replay_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
)

// heap returns the bytes in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // G115: far below
}

// TestMemoryIsFlat: under steady traffic a Memory takes less than 64 MiB, and does
// not grow but for its parked records. 10^8 messages with QRT_SOAK=1, 10^6 else,
// 10^5 under the race detector.
func TestMemoryIsFlat(t *testing.T) {
	seconds := 1000 / slowdown
	if os.Getenv("QRT_SOAK") == "1" {
		seconds = 100_000
	}
	synctest.Test(t, func(t *testing.T) {
		m, err := replay.NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		x := &replaytest.Traffic{Store: m}
		x.Run(t, 1) // with everything that the traffic itself keeps
		before := heap()
		var last replay.Stats
		var lastHeap int64
		const steps = 10
		for step := 1; step <= steps; step++ {
			x.Run(t, seconds/steps)
			s, err := m.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			now := heap() - before
			t.Logf("%9d handled: %4.1f MiB of heap, Stats %4.1f MiB: %d records, %d recent, %d intervals",
				x.Handled, float64(now)/(1<<20), float64(s.Bytes)/(1<<20), s.Records, s.Recent, s.Intervals)
			// 20 senders with 1,000 messages on their way, and what is parked.
			if s.Streams != 20 || s.Recent > replay.DefaultRecent+64 || s.Intervals > 20*1024 || now > 64<<20 {
				t.Errorf("%+v, %d bytes of heap", s, now)
			}
			if parked := s.Records - last.Records; step > steps/2 && now-lastHeap > 300*parked+4<<20 {
				t.Errorf("grew by %d bytes with %d records more", now-lastHeap, parked)
			}
			last, lastHeap = s, now
		}
		x.CheckAccounts(t)
		runtime.KeepAlive(x)
	})
}

// TestManyStreams: a million streams of one message fill nothing, and go when they
// are old. 10^4 unless QRT_SOAK=1.
func TestManyStreams(t *testing.T) {
	n := 10_000
	if os.Getenv("QRT_SOAK") == "1" {
		n = 1_000_000
	}
	synctest.Test(t, func(t *testing.T) {
		m, err := replay.NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		before := heap()
		one := func(i int) {
			now := time.Now()
			id := replay.Identity{Sender: "function", Sequence: 1}
			binary.BigEndian.PutUint64(id.Stream[:], uint64(now.UnixMilli())<<16) //nolint:gosec // G115: after 1970
			binary.BigEndian.PutUint64(id.Stream[8:], uint64(i))                  //nolint:gosec // G115: counts up from 0
			r := replay.Request{
				ID: id, Token: replay.NewToken(), SealedAt: now, FreshUntil: now.Add(time.Minute), Now: now,
				RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Minute,
			}
			c, err := m.Begin(t.Context(), "group", []replay.Request{r})
			if err != nil || c[0].Err != nil {
				t.Fatal(i, c, err)
			}
			f, err := m.Finish(t.Context(), "group", []replay.Finish{{ID: id, Token: r.Token, Kind: replay.Consumed}})
			if err != nil || f[0].Err != nil {
				t.Fatal(i, f, err)
			}
		}
		fill := func(from int) {
			for i := range n {
				one(from + i)
				time.Sleep(replay.DefaultKeepStream / 2 / time.Duration(n)) // in a bubble
			}
		}
		fill(0)
		s, err := m.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		per, told := (heap()-before)/int64(n), s.Bytes/int64(n)
		t.Logf("%d streams: %d bytes each, %d by Stats, %.0f %% full", s.Streams, per, told, 100*s.Full())
		if s.Streams != int64(n) || per > told*23/20 || per > 320 || s.Full() > 0.7 {
			t.Errorf("%+v, %d bytes each", s, per)
		}
		for i := range 4 {
			fill((i + 1) * n)
		}
		if s, err = m.Stats(t.Context()); err != nil || s.Streams > int64(2*n)+64 {
			t.Errorf("%d streams after two and a half times KeepStream, %v", s.Streams, err)
		}
	})
}

func ExampleStats() {
	m, err := replay.NewMemory(nil)
	if err != nil {
		panic(err)
	}
	s, err := m.Stats(ctx)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d of %d records, %.0f %% full, shared: %v\n", s.Records, s.Capacity.Store.Records, 100*s.Full(), s.Shared)
	// Output: 0 of 1048576 records, 0 % full, shared: false
}
