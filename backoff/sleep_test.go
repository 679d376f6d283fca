package backoff_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/backoff"
)

func TestSleep(t *testing.T) {
	for _, tt := range []struct {
		name      string
		d, ending time.Duration // ending: when the context ends; negative means before
		slept     bool
		took      time.Duration
	}{
		{"the whole time", time.Minute, time.Hour, true, time.Minute},
		{"a context that ends first", time.Minute, time.Second, false, time.Second},
		{"a context that is over", time.Minute, -1, false, 0},
		{"no time", 0, time.Hour, true, 0},
		{"less than no time", -time.Minute, time.Hour, true, 0},
		{"no time, and a context that is over", 0, -1, false, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.ending < 0 {
					cancel()
				} else {
					defer time.AfterFunc(tt.ending, cancel).Stop()
				}
				begin := time.Now()
				if slept := backoff.Sleep(ctx, tt.d); slept != tt.slept || time.Since(begin) != tt.took {
					t.Errorf("slept %t for %v, want %t for %v", slept, time.Since(begin), tt.slept, tt.took)
				}
			})
		})
	}
}
