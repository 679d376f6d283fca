package cas_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

// overtaken is a backend in which something happens just before a head is written.
type overtaken struct {
	*memory
	once sync.Once
	by   func() // nil until it is to happen
}

func (o *overtaken) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	if o.by != nil && strings.HasPrefix(key, ".h.") {
		o.once.Do(o.by)
	}
	return o.memory.Swap(ctx, key, version, value)
}

// TestFoldOvertaken: a page that is used again while it is folded stays apart from the account of
// its stream.
func TestFoldOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &overtaken{memory: newMemory()}
		s, other := open(t, b, nil), open(t, b.memory, nil)
		begin := func(s *cas.Store, n uint64) {
			t.Helper()
			r := request(1, n)
			c, err := s.Begin(t.Context(), "group", []replay.Request{r})
			if err != nil || c[0].Err != nil {
				t.Error(c, err)
			}
			f, err := s.Finish(t.Context(), "group", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: replay.Consumed}})
			if err != nil || f[0].Err != nil {
				t.Error(f, err)
			}
		}
		begin(s, 1)
		time.Sleep(time.Hour)
		happened := false
		b.by = func() { begin(other, 2); happened = true }
		if err := s.Probe(t.Context(), "group"); err != nil { // it starts a sweep
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // it has ended
		b.mu.Lock()
		defer b.mu.Unlock()
		for key, item := range b.items {
			if !strings.HasPrefix(key, ".h.") {
				continue
			}
			h, err := replaystate.DecodeHead(item.Value)
			if err != nil || !happened || h.Apart.Count() != 1024 {
				t.Errorf("happened: %v; apart are %v of head %+v, %v; want a page of 1,024", happened, h.Apart, h, err)
			}
		}
	})
}
