package cas

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/internal/replaystate"
)

// TestOverlook: a look at the account forgets the claims of its group that it has not met.
func TestOverlook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{start: time.Now(), seen: make(map[claimID]observation)}
		look := func(group string, n uint64) {
			t.Helper()
			if _, live := e.live(group, replaystate.Observed{Sequence: n, Lease: 60_000}); !live {
				t.Errorf("%s, %d: not live", group, n)
			}
		}
		for n := range uint64(10) {
			look("this", n)
			look("other", n)
		}
		time.Sleep(time.Second)
		since := time.Now()
		look("this", 3)
		look("this", 11)
		e.overlook("this", since)
		if len(e.seen) != 12 {
			t.Errorf("%d are kept, want the two of this group and ten of the other", len(e.seen))
		}
		if _, live := e.live("this", replaystate.Observed{Sequence: 12, Changed: 5}); live || len(e.seen) != 12 {
			t.Errorf("the end of the lease is entered: live %v, %d are kept", live, len(e.seen))
		}
	})
}

// TestObservationsAreBounded: there are no more observations than the store may hold claims.
func TestObservationsAreBounded(t *testing.T) {
	e := &engine{start: time.Now(), seen: make(map[claimID]observation), limits: replaystate.Limits{Store: replaystate.Bound{Records: maxCached + 100}}}
	for n := range uint64(2 * maxCached) {
		e.live("group", replaystate.Observed{Sequence: n, Lease: 60_000})
	}
	if len(e.seen) != maxCached+100 {
		t.Errorf("%d are kept, want %d", len(e.seen), maxCached+100)
	}
}
