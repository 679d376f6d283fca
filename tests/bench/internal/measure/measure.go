// Package measure compares ways to do one thing on a machine that other programs use,
// too. The ways take turns, a short one each, and each is the first as often: whatever
// else the machine does meets all of them. What counts is the least turn of work in
// memory, which no other program has disturbed, and the median turn of work that waits
// for a disk.
package measure

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"time"
)

// Spent is what a turn took: time on the clock, and time of processors in this process,
// its collection of garbage included.
type Spent struct{ Wall, CPU time.Duration }

// Timed runs do and returns what it took.
func Timed(do func() error) (Spent, error) {
	cpu, begin := cpuTime(), time.Now()
	err := do()
	return Spent{Wall: time.Since(begin), CPU: cpuTime() - cpu}, err
}

// Way is one way to do the thing.
type Way struct {
	Name string
	// Each is how many operations a turn has.
	Each int
	// Turn performs n operations and returns what they took, preparations left out.
	Turn func(ctx context.Context, n int) (Spent, error)
}

// Do is a Way whose turns are n calls of one.
func Do(name string, each int, one func(ctx context.Context) error) Way {
	return Way{Name: name, Each: each, Turn: func(ctx context.Context, n int) (Spent, error) {
		return Timed(func() error {
			for range n {
				if err := one(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}}
}

// Figures are what a Way took for one operation, turn by turn and ascending, in
// nanoseconds.
type Figures struct {
	Name      string
	Wall, CPU []float64
	// Turns are the times on the clock in the order in which they were measured.
	Turns []float64
	// Allocs and Bytes are of one operation, the least of the turns in which they were
	// counted.
	Allocs, Bytes float64
}

// Least is the quickest turn's time on the clock.
func (f *Figures) Least() float64 { return f.Wall[0] }

// Median is that of the middle turn.
func (f *Figures) Median() float64 { return middle(f.Wall) }

// LeastCPU is the least time of processors.
func (f *Figures) LeastCPU() float64 { return f.CPU[0] }

// MedianCPU is that of the middle turn.
func (f *Figures) MedianCPU() float64 { return middle(f.CPU) }

// PairedRatio is the median, over the rounds, of what f took beside what base took in the
// same round: load that lasts longer than a round meets both.
func (f *Figures) PairedRatio(base *Figures) float64 {
	ratios := make([]float64, len(f.Turns))
	for i := range ratios {
		ratios[i] = f.Turns[i] / base.Turns[i]
	}
	slices.Sort(ratios)
	return middle(ratios)
}

func middle(list []float64) float64 { return list[len(list)/2] }

// Quantile returns the q-quantile of an ascending list by nearest rank; 0 of an empty one.
func Quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	return list[min(int(q*float64(len(list))), len(list)-1)]
}

// counted is in how many turns allocations are counted.
const counted = 3

// Options say how to measure.
type Options struct {
	Rounds int // turns of each way
	// Collect collects garbage before each turn, so that no way pays for another's. It
	// is for turns of a millisecond and more.
	Collect bool
}

// Interleaved runs the ways in turns. Turns in which allocations are counted come first,
// and are not timed: they also warm up.
func Interleaved(ctx context.Context, o Options, ways []Way) ([]Figures, error) {
	out := make([]Figures, len(ways))
	for i, w := range ways {
		out[i].Name = w.Name
		for range counted {
			if err := out[i].count(ctx, w); err != nil {
				return nil, err
			}
		}
	}
	for round := range o.Rounds {
		for j := range ways {
			i := (round + j) % len(ways)
			if o.Collect {
				runtime.GC()
			}
			spent, err := turn(ctx, ways[i])
			if err != nil {
				return nil, err
			}
			out[i].Wall = append(out[i].Wall, float64(spent.Wall)/float64(ways[i].Each))
			out[i].CPU = append(out[i].CPU, float64(spent.CPU)/float64(ways[i].Each))
		}
	}
	for i := range out {
		out[i].Turns = slices.Clone(out[i].Wall)
		slices.Sort(out[i].Wall)
		slices.Sort(out[i].CPU)
	}
	return out, nil
}

func turn(ctx context.Context, w Way) (Spent, error) {
	if err := ctx.Err(); err != nil {
		return Spent{}, err
	}
	spent, err := w.Turn(ctx, w.Each)
	if err != nil {
		err = fmt.Errorf("%s: %w", w.Name, err)
	}
	return spent, err
}

// count runs a turn and counts what it allocates.
func (f *Figures) count(ctx context.Context, w Way) error {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := turn(ctx, w); err != nil {
		return err
	}
	runtime.ReadMemStats(&after)
	allocs := float64(after.Mallocs-before.Mallocs) / float64(w.Each)
	if f.Allocs == 0 || allocs < f.Allocs {
		f.Allocs, f.Bytes = allocs, float64(after.TotalAlloc-before.TotalAlloc)/float64(w.Each)
	}
	return nil
}
