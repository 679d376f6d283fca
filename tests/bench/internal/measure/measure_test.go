package measure

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

var kept []byte // so that what a way allocates is not optimised away

func TestInterleaved(t *testing.T) {
	var order []string
	way := func(name string, wall time.Duration, allocate bool) Way {
		return Way{Name: name, Each: 10, Turn: func(_ context.Context, n int) (Spent, error) {
			order = append(order, name)
			if allocate {
				for range n {
					kept = make([]byte, 4096)
				}
			}
			return Spent{Wall: wall * time.Duration(n), CPU: 2 * wall * time.Duration(n)}, nil
		}}
	}
	got, err := Interleaved(t.Context(), Options{Rounds: 4, Collect: true}, []Way{way("a", 3, false), way("b", 5, true)})
	if err != nil {
		t.Fatal(err)
	}
	// After the turns that count allocations each way is first in every other round.
	if want := "aaabbb" + "abbaabba"; strings.Join(order, "") != want {
		t.Errorf("order %q, want %q", strings.Join(order, ""), want)
	}
	a, b := &got[0], &got[1]
	if a.Least() != 3 || a.Median() != 3 || a.LeastCPU() != 6 || b.MedianCPU() != 10 || len(b.Wall) != 4 {
		t.Errorf("figures %+v", got)
	}
	if b.Allocs < 1 || b.Bytes < 4096 || a.Allocs >= 1 {
		t.Errorf("%g allocations of %g bytes and %g", b.Allocs, b.Bytes, a.Allocs)
	}
}

func TestPairedRatio(t *testing.T) {
	// A slow second round meets both, and the third only one of them.
	a, b := Figures{Turns: []float64{2, 20, 90}}, Figures{Turns: []float64{1, 10, 1}}
	if got := a.PairedRatio(&b); got != 2 {
		t.Errorf("ratio %g, want 2", got)
	}
}

func TestInterleavedFails(t *testing.T) {
	broken := errors.New("broken")
	way := Do("x", 2, func(context.Context) error { return broken })
	if _, err := Interleaved(t.Context(), Options{Rounds: 1}, []Way{way}); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "x: ") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	fine := Do("x", 2, func(context.Context) error { return nil })
	if _, err := Interleaved(ctx, Options{Rounds: 1}, []Way{fine}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestTimed(t *testing.T) {
	x := 0
	spent, err := Timed(func() error {
		for begin := time.Now(); time.Since(begin) < 20*time.Millisecond; {
			x++
		}
		return nil
	})
	if err != nil || spent.Wall < 20*time.Millisecond || x == 0 {
		t.Errorf("%+v, %v; want the time that was spent", spent, err)
	}
}

func TestQuantile(t *testing.T) {
	list := []float64{5, 1, 4, 2, 3}
	slices.Sort(list)
	if got := []float64{Quantile(list, 0.5), Quantile(list, 0.99), Quantile(nil, 0.5)}; got[0] != 3 || got[1] != 5 || got[2] != 0 {
		t.Errorf("quantiles %v", got)
	}
}
