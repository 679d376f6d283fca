// Command runner shows the router and the three bots at work, and an attacker who
// controls the broker at work against them.
//
//	go run ./runner [--json] [--logs] [--dir FOLDER] [--count N]
//
// It builds the programs, starts them as processes of their own on a SQLite file
// in a folder of its own, with fresh keys, and posts real webhooks with
// signatures. It tells what each bot received, edits messages where they are
// stored and tells what became of them, and compares the programs' metrics with
// what it did itself. It exits with 1 if anything differs from what was sent,
// and leaves no process and no file behind.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/queue-runtime/queue/examples/internal/fleet"
	"github.com/queue-runtime/queue/examples/internal/service"
)

// How long all of it may take, and one step.
const (
	limit       = 2 * time.Minute
	stepTimeout = 15 * time.Second
)

var errDiffers = errors.New("something differs from what was sent")

func main() {
	ctx, stop := service.Signals()
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2) // the usage was printed
	}
	service.Exit("runner", err)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("runner", flag.ContinueOnError)
	flags.SetOutput(stderr)
	asJSON := flags.Bool("json", false, "print the report as JSON")
	logs := flags.Bool("logs", false, "print the programs' logs to standard error")
	dir := flags.String("dir", "", "work in this `folder`, a new or an empty one, and keep it (default: one that is removed)")
	count := flags.Int("count", 0, "post `N` webhooks, 3 at least (default: all 48)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *count != 0 && *count < len(fleet.Queues) {
		return fmt.Errorf("--count: %d: each bot needs a webhook, so %d at least", *count, len(fleet.Queues))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if *dir == "" {
		temporary, err := os.MkdirTemp("", "queue-example-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(temporary) }()
		*dir = temporary
	} else if err := os.MkdirAll(*dir, 0o700); err != nil {
		return fmt.Errorf("--dir: %w", err)
	} else if entries, err := os.ReadDir(*dir); err != nil || len(entries) > 0 {
		return errors.Join(fmt.Errorf("--dir: %s is not an empty folder", *dir), err)
	}
	o := &fleet.Options{Dir: *dir, Programs: *dir}
	if *logs {
		o.Logs = stderr
	}
	begin := time.Now()
	if err := fleet.Build(ctx, *dir); err != nil {
		return err
	}
	built := time.Since(begin)
	r, err := play(ctx, o, *count, stepTimeout)
	if err != nil {
		return err
	}
	r.BuildSeconds = built.Seconds()
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(r)
	} else {
		err = r.print(stdout)
	}
	if err == nil && len(r.Faults) > 0 {
		err = errDiffers
	}
	return err
}
