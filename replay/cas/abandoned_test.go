package cas_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// TestManyAbandonedClaims: the account knows of more claims that were never finished than a Store
// keeps pages. All are missing once it has seen them for a lease, since then and for good.
func TestManyAbandonedClaims(t *testing.T) {
	const abandoned = 9000
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		s, looks := open(t, m, nil), open(t, m, nil)
		v := young(t)
		time.Sleep(2 * time.Second)
		for n := uint64(1); n <= abandoned; n += replay.MaxBatch {
			var batch []replay.Request
			for i := n; i < n+replay.MaxBatch && i <= abandoned; i++ {
				r := v.request(i)
				r.RetryWindow = 24 * time.Hour
				batch = append(batch, r)
			}
			if _, err := s.Begin(t.Context(), "group", batch); err != nil {
				t.Fatal(err)
			}
		}
		v.handle(s, abandoned+1, abandoned+1)
		var since []replay.Missing
		for look := range 4 {
			a := v.account(looks)
			if look > 0 && len(since) == 0 {
				since = a.Missing
			}
			n := uint64(0)
			for _, x := range a.Missing {
				n += x.Range.Last - x.Range.First + 1
			}
			if want := uint64(min(look, 1) * abandoned); n != want {
				t.Errorf("look %d: %d are missing, want %d", look, n, want)
			}
			if look > 1 && (len(since) != len(a.Missing) || since[0] != a.Missing[0]) {
				t.Errorf("look %d: %d runs from %+v, before %d from %+v", look, len(a.Missing), a.Missing[0], len(since), since[0])
			}
			time.Sleep(15 * time.Minute)
		}
	})
}

// TestEnteredLapseIsForgotten: a Store forgets a claim that others are waiting for once it has entered
// the end of its lease.
func TestEnteredLapseIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		v := young(t)
		r := v.request(1)
		v.begin(open(t, m, nil), r)
		s := open(t, m, nil)
		again := r
		again.Token = replay.NewToken()
		if c, err := s.Begin(t.Context(), "group", []replay.Request{again}); err != nil || !errors.Is(c[0].Err, replay.ErrBusy) {
			t.Fatal(c, err)
		}
		if n := s.Observed(); n != 1 {
			t.Errorf("%d are observed, want 1", n)
		}
		time.Sleep(r.Lease + time.Second)
		if n := s.Observed(); n != 0 {
			t.Errorf("%d are observed after the lease, want none", n)
		}
		v.begin(open(t, m, nil), again)
	})
}
