package cas_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

// TestParkedIsNotApart: a message is given back, tried again after its page was folded, and
// dead-lettered. Soon nothing of the page is apart from the account, and no sweep writes it again.
func TestParkedIsNotApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		s := open(t, m, &cas.Options{PageSpan: 64})
		var stream [16]byte
		binary.BigEndian.PutUint64(stream[:], uint64(time.Now().Add(time.Second).UnixMilli())<<16)
		end := func(n uint64, kind replay.FinishKind) {
			t.Helper()
			r := request(1, n)
			r.ID.Stream = stream
			if c, err := s.Begin(t.Context(), "group", []replay.Request{r}); err != nil || c[0].Err != nil {
				t.Fatal(n, c, err)
			}
			if f, err := s.Finish(t.Context(), "group", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: kind}}); err != nil || f[0].Err != nil {
				t.Fatal(n, f, err)
			}
		}
		sweep := func(after time.Duration) {
			t.Helper()
			time.Sleep(after)
			if err := s.Probe(t.Context(), "group"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		// stored returns the versions of the pages, and what is apart.
		stored := func() (versions []string, apart replaystate.Ranges) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for key, item := range m.items {
				switch {
				case strings.HasPrefix(key, ".h."):
					h, err := replaystate.DecodeHead(item.Value)
					if err != nil {
						t.Fatal(err)
					}
					apart = h.Apart
				case strings.Contains(key, ".p."):
					versions = append(versions, item.Version)
				}
			}
			return versions, apart
		}
		time.Sleep(2 * time.Second)
		for n := uint64(1); n < 10; n++ {
			end(n, replay.Consumed)
		}
		end(10, replay.Released)
		sweep(10 * time.Minute)
		if _, apart := stored(); len(apart) != 1 {
			t.Errorf("before: %v are apart", apart)
		}
		end(10, replay.Parked)
		sweep(10 * time.Minute)
		before, apart := stored()
		if len(apart) > 0 || len(before) != 1 {
			t.Errorf("%v are apart, %d pages", apart, len(before))
		}
		for range 5 {
			sweep(time.Hour)
		}
		if after, _ := stored(); len(after) != 1 || len(before) == 1 && after[0] != before[0] {
			t.Errorf("the page was written again: %v, %v", before, after)
		}
	})
}
