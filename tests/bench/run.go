package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

// run is one run of everything that the report has.
type run struct {
	corpus   *corpus
	envelope []envelopeFigures
	memory   []measure.Figures
	disk     []diskFigures
	drivers  []driverFigures
	pages    []pageFigures
	latency  []latencyFigures
	idle     []idleFigures
	growth   []growth
}

// effort says how many turns each way has.
type effort struct {
	envelope, memory, disk, drivers, latency, growthMemory, growthDisk int
}

// ofReport takes about six minutes on two cores, most of it for the disk.
var ofReport = effort{envelope: 600, memory: 60, disk: 21, drivers: 31, latency: 4, growthMemory: 40, growthDisk: 15}

// workerCounts are how many workers a disk is measured with.
var workerCounts = []int{1, 8}

// measureAll measures the sections whose names only matches, and says on the way what it
// does.
func measureAll(ctx context.Context, e effort, only *regexp.Regexp) (r *run, err error) {
	r = &run{}
	if r.corpus, err = loadCorpus(ctx); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "queue-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	type step struct {
		name string
		do   func() error
	}
	steps := []step{
		{"envelope", func() (err error) { r.envelope, err = measureEnvelope(ctx, envelopeSizes, e.envelope); return err }},
		{"memory", func() (err error) { r.memory, err = measureMemory(ctx, r.corpus, e.memory); return err }},
	}
	for _, workers := range workerCounts {
		steps = append(steps, step{"disk, " + workerNames(workers), func() error {
			f, err := measureDisk(ctx, r.corpus, dir, diskSystems, workers, e.disk)
			r.disk = append(r.disk, f)
			return err
		}})
	}
	steps = append(steps,
		step{"drivers", func() (err error) { r.drivers, err = measureDrivers(ctx, r.corpus, e.drivers); return err }},
		step{"pages", func() (err error) { r.pages, err = measurePages(ctx, r.corpus, dir); return err }},
		step{"latency", func() (err error) { r.latency, err = measureLatency(ctx, r.corpus, dir, e.latency); return err }},
		step{"idle", func() (err error) { r.idle, err = measureIdle(ctx, r.corpus, dir, idleSettle, idleSpan); return err }},
		step{"growth", func() (err error) {
			r.growth, err = measureGrowth(ctx, r.corpus, dir, e.growthMemory, e.growthDisk)
			return err
		}})
	for _, s := range steps {
		if !only.MatchString(s.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "measuring:", s.name)
		if err := s.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return r, nil
}

// newFolder makes a folder in dir, named after what it is for.
func newFolder(dir, name string) (string, error) {
	path := filepath.Join(dir, strings.Map(func(r rune) rune {
		if r == ' ' || r == ',' {
			return '-'
		}
		return r
	}, name))
	return path, os.Mkdir(path, 0o700)
}

// find returns the figures of a way.
func find(all []measure.Figures, name string) *measure.Figures {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	panic("bench: no way is named " + name) // names are constants
}
