package main

import (
	"context"
	"fmt"
)

// diskSystems are the rows of the tables of the disk.
var diskSystems = []string{diskOurs, diskSealed, diskStrict, diskGoqite, diskNATS, diskRiver}

// groups are the recorded bounds. A bound is about a fifth above what an idle machine
// measures.
var groups = []group{
	{"envelope", func(ctx context.Context, _ *corpus, _ string) (list []found, err error) {
		all, err := measureEnvelope(ctx, []int{1 << 10, 8 << 10}, 400)
		if err != nil {
			return nil, err
		}
		for i, limits := range [][2]float64{{3.7, 3}, {1.9, 1.55}} {
			f := &all[i]
			list = append(list,
				least(fmt.Sprintf("sealing %s beside raw AES-256-GCM", sizeName(f.size)), limits[0], f.seal, wayOurs, wayRaw),
				least(fmt.Sprintf("opening %s beside raw AES-256-GCM", sizeName(f.size)), limits[1], f.open, wayOurs, wayRaw))
		}
		return list, nil
	}},
	{"senders", func(ctx context.Context, _ *corpus, _ string) ([]found, error) {
		g, err := measureSenders(ctx, 20)
		if err != nil {
			return nil, err
		}
		return []found{{bound{"opening from 10,000 senders beside opening from 1", 2.5}, g.ratio(3)}}, nil
	}},
	{"memory", func(ctx context.Context, c *corpus, _ string) ([]found, error) {
		all, err := measureMemory(ctx, c, 20)
		if err != nil {
			return nil, err
		}
		return []found{
			least("memory, sealed, beside Watermill with AES-256-GCM", 1.1, all, memSealed, memWatermillGCM),
			least("memory, sealed, batches, beside Watermill with AES-256-GCM", 1.1, all, memSealedBatch, memWatermillGCM),
		}, nil
	}},
	{"disk, 1 worker", diskBounds(1, 0.95, 1.65)},
	{"disk, 8 workers", diskBounds(8, 0.35, 1.75)},
}

// diskBounds bound all three jobs beside goqite, and Strict beside sealed without a store.
func diskBounds(workers int, goqite, strict float64) func(ctx context.Context, c *corpus, dir string) ([]found, error) {
	return func(ctx context.Context, c *corpus, dir string) ([]found, error) {
		f, err := measureDisk(ctx, c, dir, []string{diskOurs, diskSealed, diskStrict, diskGoqite}, workers, 7)
		if err != nil {
			return nil, err
		}
		all := f.jobs[len(jobs)-1]
		return []found{
			paired(fmt.Sprintf("SQLite, all three jobs, workers: %d, beside goqite", workers), goqite, all, diskOurs, diskGoqite),
			paired(fmt.Sprintf("SQLite, all three jobs, workers: %d, Strict beside sealed", workers), strict, all, diskStrict, diskSealed),
		}, nil
	}
}
