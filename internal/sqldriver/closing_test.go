package sqldriver

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestGiveBack: what is given back for a caller whose context is over has CloseGrace.
func TestGiveBack(t *testing.T) {
	errLate, errOther := errors.New("late"), errors.New("other")
	for name, c := range map[string]struct {
		takes time.Duration
		fails error
		over  bool // the caller's context
		took  time.Duration
		want  error
	}{
		"in time":                     {takes: time.Hour, took: time.Hour},
		"an error of its own":         {takes: time.Second, fails: errOther, took: time.Second, want: errOther},
		"a caller that left":          {takes: time.Second, over: true, took: time.Second},
		"a caller that left long ago": {takes: time.Hour, over: true, took: CloseGrace, want: errLate},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.over {
					cancel()
				}
				begin := time.Now()
				err := GiveBack(ctx, errLate, func(ctx context.Context) error {
					select {
					case <-time.After(c.takes):
						return c.fails
					case <-ctx.Done():
						return ctx.Err()
					}
				})
				if !errors.Is(err, c.want) || time.Since(begin) != c.took {
					t.Errorf("%v after %s, want %v after %s", err, time.Since(begin), c.want, c.took)
				}
			})
		})
	}
}
