// Command bench measures this library beside what a program might use instead: all rows
// in one run, in turns (see internal/measure). It belongs to a module of its own, so that
// no other module requires the peers.
//
//	bench -report docs/performance.md   measures everything and writes the page
//	bench -report /dev/stdout -only memory     some sections of it
//	bench -check                        holds some ratios against bounds; exits with 1 if one is exceeded
//	bench -check -only 'envelope|memory'       some of them
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
)

func main() {
	if name := os.Getenv(senderVariable); name != "" {
		if err := serveSender(context.Background(), name, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(emulatorVariable) != "" {
		if err := serveEmulator(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	report := flag.String("report", "", "measure everything and write the page to `file`")
	only := flag.String("only", "", "measure only what this `regexp` matches: the sections envelope, memory, disk, drivers, pages, latency, idle and growth of a report, or the groups of bounds envelope, senders, memory and disk")
	checking := flag.Bool("check", false, "hold ratios against recorded bounds")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := do(ctx, *report, *only, *checking)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func do(ctx context.Context, report, only string, checking bool) error {
	sections, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	switch {
	case checking:
		chosen := slices.DeleteFunc(slices.Clone(groups), func(g group) bool { return !sections.MatchString(g.name) })
		if len(chosen) == 0 {
			return fmt.Errorf("no group of bounds is named like %q", only)
		}
		held, err := check(ctx, os.Stdout, chosen)
		if err == nil && !held {
			err = errors.New("a bound is exceeded: find out why with make bench-report and a profile; a bound is raised only for a change that is worth it")
		}
		return err
	case report != "":
		m := thisMachine(ctx)
		r, err := measureAll(ctx, ofReport, sections)
		if err != nil {
			return err
		}
		m.loadAfter = load()
		var b bytes.Buffer
		writeReport(&b, r, m)
		return os.WriteFile(report, b.Bytes(), 0o644) //nolint:gosec // G306: a page of the documentation
	}
	return errors.New("say -report FILE or -check")
}
