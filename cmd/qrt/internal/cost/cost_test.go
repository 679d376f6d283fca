package cost

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

func config() Config {
	b := memqueue.New(nil)
	n := 0
	return Config{
		Connect: func(context.Context) (driver.Broker, error) { return b.Connect(), nil },
		NewQueue: func(_ context.Context, purpose string) (string, error) {
			n++
			return purpose + string(rune('a'+n)), nil
		},
		Bodies:   [][]byte{[]byte("one"), []byte("three")},
		Messages: 20, Singles: 5, Rounds: 3,
	}
}

func TestRun(t *testing.T) {
	c := config()
	steps := 0
	c.Step = func() { steps++ }
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if steps != 6 || r.Bytes != 4 || r.Plain.PerSecond <= 0 || r.Sealed.PerSecond <= 0 || r.Plain.P50 <= 0 || r.Sealed.P99 < r.Sealed.P50 ||
		r.Seal <= 0 || r.Open <= 0 || r.Low > r.Overhead || r.High < r.Overhead || r.AddedLow > r.Added || r.AddedHigh < r.Added || r.Share() <= 0 {
		t.Errorf("%d steps, %+v", steps, r)
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Bodies = nil },
		func(c *Config) { c.Messages = 1 },
		func(c *Config) { c.Singles = 0 },
		func(c *Config) { c.Rounds = 2 },
	} {
		c := config()
		change(&c)
		if _, err := Run(t.Context(), c); err == nil {
			t.Errorf("%+v: no error", c)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, config()); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	if _, _, err := Crypto(ctx, c.Bodies, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

// TestInterval checks the bounds against the table of the sign test: with 10
// pairs, the second and the ninth value bound the median with 97.9 %.
func TestInterval(t *testing.T) {
	list := []float64{9, 1, 8, 2, 7, 3, 6, 4, 5, 10}
	if m, low, high := interval(list); m != 5.5 || low != 2 || high != 9 {
		t.Errorf("%g, %g to %g; want 5.5, 2 to 9", m, low, high)
	}
	if m, low, high := interval([]float64{3, 1, 2}); m != 2 || low != 1 || high != 3 {
		t.Errorf("%g, %g to %g; want 2, 1 to 3", m, low, high)
	}
	many := make([]float64, 101)
	for i := range many {
		many[i] = float64(i)
	}
	// The 41st and the 61st of 101.
	if m, low, high := interval(many); m != 50 || math.Abs(low-40) > 0 || math.Abs(high-60) > 0 {
		t.Errorf("%g, %g to %g; want 50, 40 to 60", m, low, high)
	}
}

func TestQuantile(t *testing.T) {
	if q := quantile([]time.Duration{}, 0.5); q != 0 {
		t.Errorf("of nothing: %v", q)
	}
	list := []time.Duration{5, 1, 4, 2, 3}
	if p50, p99 := quantile(list, 0.5), quantile(list, 0.99); p50 != 3 || p99 != 5 {
		t.Errorf("%d and %d, want 3 and 5", p50, p99)
	}
}
