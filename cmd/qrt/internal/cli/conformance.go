package cli

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/drivertest"
)

// conformanceReport is the output of conformance --json.
type conformanceReport struct {
	OK      bool       `json:"ok"`
	Broker  string     `json:"broker"`
	Passed  int        `json:"passed"`
	Failed  int        `json:"failed"`
	Skipped int        `json:"skipped"`
	Cases   []caseLine `json:"cases"`
}

// caseLine is one case.
type caseLine struct {
	Suite   string   `json:"suite"` // conformance, attacks
	Name    string   `json:"name"`
	Result  string   `json:"result"` // passed, failed, skipped
	Seconds float64  `json:"seconds"`
	Lines   []string `json:"lines,omitempty"`
}

func (a *app) conformanceCommand() *cobra.Command {
	var run string
	var attempts int
	var attacks, verbose, yes bool
	c := &cobra.Command{
		Use:   "conformance",
		Short: "Hold a broker and its driver to their contract",
		Long: `Conformance runs the suite that every driver has to pass against a broker: each
promise of package driver that the broker claims is exercised, and what it does
not claim must say so. Then the attacker works on what the broker stores, where
that is within reach.

It works on queues of its own: in a SQLite file that it removes, or on the broker
that --provider names (emulator://servicebus and emulator://sqs start one). In an
AWS account it makes queues and removes them, in a file it leaves them: it wants
--yes for the first, and where the file has others. It takes a few minutes where
locks have to run out.`,
		Example: example(`
			qrt conformance
			qrt conformance --provider mem:// --run session
			qrt conformance --provider sqlite:///mnt/disk/test.db --json`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			only, err := regexp.Compile(run)
			if err != nil {
				return usagef("--run: %w", err)
			}
			if attempts < 1 {
				return usagef("--attempts must be at least 1")
			}
			return a.conformance(cmd.Context(), only, attempts, attacks, verbose, yes)
		},
	}
	c.Flags().StringVar(&run, "run", "", "only the cases whose name matches this `expression`")
	c.Flags().BoolVar(&attacks, "attacks", true, "run the attacks, too")
	c.Flags().IntVar(&attempts, "attempts", 20, "how often to make each attack")
	c.Flags().BoolVar(&yes, "yes", false, "make queues in a cloud's account, or in a file that has some")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show what cases that passed had to say")
	return c
}

func (a *app) conformance(ctx context.Context, only *regexp.Regexp, attempts int, attacks, verbose, yes bool) (err error) {
	bed, err := a.bed(ctx, yes)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := bed.Close(); err == nil {
			err = cerr
		}
	}()
	r := &conformanceReport{OK: true, Broker: bed.Title, Cases: []caseLine{}}
	h := drivertest.Harness{
		Start:          func(drivertest.T) *drivertest.Instance { return bed.Broker() },
		Only:           only.MatchString,
		AttackAttempts: attempts,
	}
	s := a.screen
	if !a.settings.json {
		s.Printf("%s  %s\n", s.Bold("qrt conformance"), s.Dim(bed.Title))
	}
	suites := []struct {
		name string
		run  func(drivertest.T, drivertest.Harness)
	}{{"conformance", drivertest.Conformance}, {"attacks", drivertest.Attacks}}
	if !attacks || bed.Attacker == nil {
		suites = suites[:1]
	}
	for _, suite := range suites {
		if !a.settings.json {
			s.Heading(suite.name, "")
		}
		spin := a.spin()
		ok := drivertest.Run(ctx, func(t drivertest.T) { suite.run(t, h) }, func(c drivertest.Report) {
			line := newCaseLine(suite.name, c)
			r.add(line)
			if !a.settings.json {
				spin.pause(func() { line.show(s, verbose) })
			}
		})
		spin.stop()
		r.OK = r.OK && ok
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if r.Passed+r.Failed == 0 {
		return nothingf("no case matches %q", only)
	}
	a.print(r, func(s *display.Screen) {
		s.Println()
		s.Printf("%s passed, %s, %s skipped\n", s.Good(display.Count(r.Passed)), number(r.Failed, "none failed", "failure"), number(r.Skipped, "none", "case"))
	})
	if !r.OK {
		return errReported
	}
	return nil
}

func (r *conformanceReport) add(c caseLine) {
	switch c.Result {
	case "failed":
		r.Failed++
	case "skipped":
		r.Skipped++
	default:
		r.Passed++
	}
	r.Cases = append(r.Cases, c)
}

func newCaseLine(suite string, c drivertest.Report) caseLine {
	line := caseLine{Suite: suite, Name: c.Name, Result: "passed", Seconds: c.Elapsed.Seconds(), Lines: c.Lines}
	switch {
	case c.Failed:
		line.Result = "failed"
	case c.Skipped:
		line.Result = "skipped"
	}
	return line
}

func (c *caseLine) show(s *display.Screen, verbose bool) {
	mark := s.Good("✓")
	switch c.Result {
	case "failed":
		mark = s.Bad("✗")
	case "skipped":
		mark = s.Dim("-")
	}
	name := c.Name
	if name == "" {
		name = "(the suite itself)"
	}
	s.Printf("  %s %s %s\n", mark, name, s.Dim(display.Duration(time.Duration(c.Seconds*float64(time.Second)))))
	if c.Result == "passed" && !verbose {
		return
	}
	for _, line := range c.Lines {
		for text := range strings.SplitSeq(strings.TrimRight(line, "\n"), "\n") {
			s.Printf("      %s\n", display.Safe(text))
		}
	}
}

// spinner shows that something goes on, between lines of a list.
type spinner struct {
	a   *app
	mu  sync.Mutex // guards bar
	bar *display.Bar
}

func (a *app) spin() *spinner {
	s := &spinner{a: a}
	s.start()
	return s
}

func (s *spinner) start() {
	if !s.a.settings.json {
		s.bar = s.a.errors.Bar("running", 0)
	}
}

// pause takes the bar away while f prints.
func (s *spinner) pause(f func()) {
	s.stop()
	f()
	s.start()
}

func (s *spinner) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		s.bar.Done()
		s.bar = nil
	}
}
