package replay_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// TestVoidWithSlowHandler: 5 is given back, its sender takes it for failed, and it is tried again by a handler that
// takes longer than five minutes. Its page is apart until then, so that what is handled there afterwards counts.
func TestVoidWithSlowHandler(t *testing.T) {
	for _, slow := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s, err := replay.NewMemory(&replay.MemoryOptions{Bounds: replay.Bounds{KeepStream: 2 * time.Hour}})
			if err != nil {
				t.Fatal(err)
			}
			var stream [16]byte
			binary.BigEndian.PutUint64(stream[:], uint64(time.Now().Add(time.Second).UnixMilli())<<16)
			time.Sleep(2 * time.Second)
			request := func(n uint64) replay.Request {
				now := time.Now()
				return replay.Request{
					ID: replay.Identity{Sender: "sender", Stream: stream, Sequence: n}, Token: replay.NewToken(), SealedAt: now,
					FreshUntil: now.Add(time.Hour), Now: now, RetryWindow: 24 * time.Hour, Lease: time.Minute,
					MaxMessageAge: 10 * time.Minute, Settled: n - 1,
				}
			}
			begin := func(r replay.Request, want error) {
				t.Helper()
				if c, err := s.Begin(t.Context(), "group", []replay.Request{r}); err != nil || !errors.Is(c[0].Err, want) {
					t.Fatal(r.ID.Sequence, c, err)
				}
			}
			finish := func(r replay.Request, kind replay.FinishKind) {
				t.Helper()
				if f, err := s.Finish(t.Context(), "group", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: kind}}); err != nil || f[0].Err != nil {
					t.Fatal(r.ID.Sequence, f, err)
				}
			}
			handle := func(from, to uint64) {
				for n := from; n <= to; n++ {
					r := request(n)
					if n == 6 {
						r.Void = []replay.Range{{First: 5, Last: 5}}
					}
					begin(r, nil)
					finish(r, replay.Consumed)
				}
			}
			sweep := func(after time.Duration) {
				time.Sleep(after)
				for range 8 {
					if err := s.Probe(t.Context(), "group"); err != nil {
						t.Fatal(err)
					}
				}
			}
			handle(1, 4)
			five := request(5)
			begin(five, nil)
			finish(five, replay.Released)
			handle(6, 19) // 20 is late
			handle(21, 300)
			sweep(10 * time.Minute)
			stale := request(301) // is rejected as too old, so that the interval before it ends
			stale.Now = stale.FreshUntil.Add(time.Hour)
			begin(stale, replay.ErrNotFresh)
			five.Token, five.Now = replay.NewToken(), time.Now()
			five.Lease = 30 * time.Minute
			begin(five, nil)
			if slow {
				sweep(10 * time.Minute) // the handler still works
			}
			finish(five, replay.Consumed)
			twenty := request(20)
			begin(twenty, nil)
			finish(twenty, replay.Consumed)
			next := uint64(302)
			for range 50 { // copies of 20 come, the stream goes on
				handle(next, next+79)
				next += 80
				again := twenty
				again.Token = replay.NewToken()
				begin(again, replay.ErrDuplicate)
				sweep(4 * time.Minute)
			}
			for range 4 {
				handle(next, next)
				next++
				sweep(time.Hour)
			}
			for a, err := range s.Streams(t.Context(), "group") {
				if err != nil || len(a.Missing) > 0 || a.MissingForgotten > 0 {
					t.Errorf("slow %v: all were handled, void or rejected: %+v %v", slow, a, err)
				}
			}
		})
	}
}
