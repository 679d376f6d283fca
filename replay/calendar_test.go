package replay

import (
	"context"
	"crypto/rand"
	"errors"
	"math"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestMain(m *testing.M) {
	// The FIPS 140-3 module seeds its generator by measuring time, which stands
	// still in a bubble of synctest; so have it done before the first one.
	_, _ = rand.Read(make([]byte, 1))
	os.Exit(m.Run())
}

func TestSeconds(t *testing.T) {
	for _, c := range []struct {
		at   int64
		want uint32
	}{
		{math.MinInt64, 0}, {consumed, 0}, {0, 0}, {1, 1}, {1e9, 1}, {1e9 + 1, 2},
		{math.MaxUint32 * 1e9, math.MaxUint32}, {math.MaxInt64, math.MaxUint32},
	} {
		if got := seconds(c.at); got != c.want {
			t.Errorf("seconds(%d) = %d, want %d", c.at, got, c.want)
		}
		// A time is within the second that it was rounded to, and past the
		// one before.
		if c.at > 0 && c.at <= math.MaxUint32*1e9 && (over(c.want, c.at) || !over(c.want-1, c.at)) {
			t.Errorf("%d is not in second %d", c.at, c.want)
		}
	}
	if got := after(5, math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("after wrapped to %d", got)
	}
	if got := after(5, math.MinInt64); got != 5 {
		t.Errorf("after went back to %d", got)
	}
}

// fill makes n records, consumed and kept for that long.
func fill(t *testing.T, m *Memory, from, n uint64, keep time.Duration) {
	t.Helper()
	for i := range n {
		r := benchRequest(from+i, time.Now())
		r.RetainConsumed = r.Now.Add(keep)
		c, err := m.Begin(context.Background(), r)
		if err == nil {
			err = m.Consume(context.Background(), r.Group, r.ID, c.Token)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestSweep: one Begin after a burst holds the mutex for a few records only, and
// the next ones catch up.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		const burst = 1000
		fill(t, m, 0, burst, time.Minute)
		time.Sleep(2 * time.Minute)
		fill(t, m, burst, 1, time.Hour)
		if got := len(m.index); got != burst+1-sweepStep {
			t.Errorf("%d records after one Begin, want %d", got, burst+1-sweepStep)
		}
		fill(t, m, burst+1, burst/sweepStep+1, time.Hour)
		if got, want := len(m.index), burst/sweepStep+2; got != want {
			t.Errorf("%d records after enough of them, want %d", got, want)
		}
		check(t, m)
		// Freed records are used again: the store does not grow.
		before := m.records.used
		fill(t, m, 2*burst, burst/2, time.Hour)
		if m.records.used != before {
			t.Errorf("grew from %d to %d", before, m.records.used)
		}
		if got, want := m.Len(), burst/sweepStep+2+burst/2; got != want {
			t.Errorf("Len: %d, want %d", got, want)
		}
		check(t, m)
	})
}

// TestLongIdle: neither many years nor many lists make the next call slow or
// wrong.
func TestLongIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewMemory(&MemoryOptions{MaxEntries: 64})
		if err != nil {
			t.Fatal(err)
		}
		for n := range uint64(64) {
			fill(t, m, n, 1, time.Duration(n+1)*time.Hour)
		}
		r := benchRequest(100, time.Now())
		if _, err := m.Begin(context.Background(), r); !errors.Is(err, ErrFull) {
			t.Errorf("Begin: %v, want %v", err, ErrFull)
		}
		time.Sleep(32*time.Hour + time.Second)
		if got := m.Len(); got != 32 {
			t.Errorf("Len: %d, want 32", got)
		}
		check(t, m)
		time.Sleep(200 * 365 * 24 * time.Hour) // past the last second of the calendar
		if got := m.Len(); got != 0 {
			t.Errorf("Len: %d, want 0", got)
		}
		check(t, m)
	})
}
