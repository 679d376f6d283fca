package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

// bound is a ratio that must not be exceeded.
type bound struct {
	what  string
	limit float64
}

// found is a bound with the ratio that was measured.
type found struct {
	bound
	ratio float64
}

// group is a set of bounds that one measurement decides.
type group struct {
	name    string
	measure func(ctx context.Context, c *corpus, dir string) ([]found, error)
}

// attempts is how often a group is measured before a bound counts as exceeded: the least
// ratio of them counts, because load of the machine can make a ratio larger by chance and
// a cost of ours is there each time.
const attempts = 4

// check measures every group and reports whether all bounds hold.
func check(ctx context.Context, out io.Writer, groups []group) (held bool, err error) {
	c, err := loadCorpus(ctx)
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "queue-bench-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	held = true
	for _, g := range groups {
		best, err := leastRatios(g.name, func(attempt int) ([]found, error) {
			folder, err := newFolder(dir, fmt.Sprintf("%s-%d", g.name, attempt))
			if err != nil {
				return nil, err
			}
			return g.measure(ctx, c, folder)
		})
		if err != nil {
			return false, err
		}
		for _, f := range best {
			verdict := "ok"
			if f.ratio > f.limit {
				verdict, held = "EXCEEDED", false
			}
			fmt.Fprintf(out, "%-8s  %-70s %5.2f, at most %.2f\n", verdict, f.what, f.ratio, f.limit)
		}
	}
	return held, nil
}

// leastRatios measures until every bound holds, or attempts are used up.
func leastRatios(name string, measure func(attempt int) ([]found, error)) (best []found, err error) {
	for attempt := range attempts {
		list, err := measure(attempt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		exceeded := false
		for i, f := range list {
			if attempt > 0 {
				f.ratio = min(f.ratio, best[i].ratio)
				list[i] = f
			}
			exceeded = exceeded || f.ratio > f.limit
		}
		if best = list; !exceeded {
			break
		}
	}
	return best, nil
}

// least is a bound by the quickest turns.
func least(what string, limit float64, all []measure.Figures, of, base string) found {
	return found{bound{what, limit}, find(all, of).Least() / find(all, base).Least()}
}

// paired is a bound by the medians of the rounds.
func paired(what string, limit float64, all []measure.Figures, of, base string) found {
	return found{bound{what, limit}, find(all, of).PairedRatio(find(all, base))}
}
