package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A result is what the tests said of a mutant.
type result struct {
	*mutant
	killer string // the package whose tests failed, or empty
}

// Bounds of one run of a package's tests. Processor time is what tells a loop without
// end from a busy machine; the other bound is for a run that waits for ever.
const (
	maxCPU  = 60 * time.Second
	maxTime = 5 * time.Minute
)

// try runs the tests against each mutant, after it has seen them pass without one.
func (b *changed) try(ctx context.Context, mutants []*mutant, further []string, out io.Writer) ([]result, error) {
	for path := range b.suites {
		if killed, err := b.killed(ctx, path, 0); err != nil || killed {
			return nil, fmt.Errorf("the tests of %s fail without any mutant: %w", filepath.Join(module, path), err)
		}
	}
	results := make([]result, len(mutants))
	next := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex // over failed, done and survived
	var failed error
	done, survived := 0, 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				killer, err := b.killer(ctx, mutants[i], further)
				results[i] = result{mutants[i], killer}
				mu.Lock()
				if err != nil && failed == nil {
					failed = err
				}
				done++
				if killer == "" && err == nil {
					survived++
					fmt.Fprintf(out, "%d of %d, survivor %d: %s\n", done, len(mutants), survived, mutants[i].name())
				}
				mu.Unlock()
			}
		})
	}
	for i := range mutants {
		if ctx.Err() != nil {
			break
		}
		next <- i
	}
	close(next)
	wg.Wait()
	if failed == nil {
		failed = ctx.Err()
	}
	return results, failed
}

// killer is the first package whose tests fail with m, or empty.
func (b *changed) killer(ctx context.Context, m *mutant, further []string) (string, error) {
	for _, path := range append([]string{m.pkg}, slices.DeleteFunc(slices.Clone(further), func(p string) bool { return p == m.pkg })...) {
		if killed, err := b.killed(ctx, path, m.id); err != nil || killed {
			return module + "/" + path, err
		}
	}
	return "", nil
}

// killed reports whether the tests of a package fail with a mutant.
func (b *changed) killed(ctx context.Context, path string, id int) (bool, error) {
	s := b.suites[path]
	within, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	//nolint:gosec // the binary is what compile made
	c := exec.CommandContext(within, "sh", "-c", fmt.Sprintf(`ulimit -t %d; exec "$0" "$@"`, int(maxCPU.Seconds())),
		s.binary, "-test.failfast", "-test.count=1", "-test.short")
	c.Dir = filepath.Join(".", s.dir)
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d", variable, id), "QRT_SOAK=")
	text, err := c.CombinedOutput()
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err != nil && id == 0 {
		return true, fmt.Errorf("%w\n%s", err, text)
	}
	return err != nil, nil
}
