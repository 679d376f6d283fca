// Command mutate shows what the tests would not notice. It changes the code of some
// packages in many small ways, and runs their tests against each change: a mutant
// that no test fails with has survived.
//
//	mutate [-n 900] [-seed 1] [-out FILE]
//
// All mutants are compiled into one build of each test binary, and an environment
// variable says which of them is awake, so that a mutant costs a run and no
// compilation (mutant schemata: Untch, Offutt, Harrold, ISSTA 1993). It is run in the
// root of the repository. It writes a line for each mutant to FILE, and fails if fewer
// than 85 % are killed, or 92 % without those that equivalents.txt explains, or if a
// line of equivalents.txt fits no mutant.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
)

// module is the path of the module that is tested, in the working folder.
const module = "github.com/queue-runtime/queue"

// subjects are the packages that are changed, as paths in the module: what the threat
// model rests on.
var subjects = []string{"envelope", "keys", "replay", "internal/replaystate", "internal/intake", "internal/jsonscan", "internal/sealing", "deadletter", ""}

// suites are the packages whose tests run against every mutant, after its own: first
// those that are over soonest.
var suites = []string{"deadletter", "worker", "memqueue", "queuetest", "replay", "replay/cas", ""}

// The share of mutants that have to be killed: of all, and of those that
// equivalents.txt does not explain.
const (
	leastRaw  = 0.85
	leastRest = 0.92
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("mutate", flag.ContinueOnError)
	n := flags.Int("n", 900, "how many mutants to run, drawn at random; 0 for all")
	seed := flags.Uint64("seed", rand.Uint64(), "seed of the draw") //nolint:gosec // G404: nothing secret is drawn
	report := flags.String("out", "", "file for a line for each mutant")
	known := flags.String("equivalents", filepath.Join("tools", "mutate", "equivalents.txt"), "file of mutants that change nothing a caller can see")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || *n < 0 {
		return errors.New("usage: mutate [-n COUNT] [-seed SEED] [-out FILE] [-equivalents FILE]")
	}
	reasons, err := readEquivalents(*known)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b, err := newBuild(dir, subjects)
	if err != nil {
		return err
	}
	if err := b.compile(ctx, suites); err != nil {
		return err
	}
	mutants := b.mutants
	draw := rand.New(rand.NewPCG(*seed, 0)) //nolint:gosec // G404: nothing secret is drawn
	draw.Shuffle(len(mutants), func(i, j int) { mutants[i], mutants[j] = mutants[j], mutants[i] })
	if *n > 0 && *n < len(mutants) {
		mutants = mutants[:*n]
	}
	fmt.Fprintf(out, "%d mutants, of which %d run; seed %d\n", len(b.mutants), len(mutants), *seed)
	results, err := b.try(ctx, mutants, suites, out)
	if err != nil {
		return err
	}
	return summarize(out, *report, results, reasons, b.mutants)
}
