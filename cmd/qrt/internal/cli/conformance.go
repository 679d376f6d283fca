package cli

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/attacktest"
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
		Short: "Check that a broker and its driver keep the driver contract",
		Long: `Conformance runs every case of the contract that a driver must keep, against a
broker. A case checks what the broker claims, and that the driver refuses what the
broker does not claim. Then the attacks of the threat model run on the stored
messages, if the broker's storage can be reached.

It creates queues of its own in a temporary SQLite file, or on the broker that
--broker names (emulator://servicebus and emulator://sqs start one). On AWS it
creates and deletes queues and asks for --yes. In a file it leaves them, and asks
for --yes if the file has other queues. It takes a few minutes if locks have to
end.`,
		Example: example(`
			qrt conformance
			qrt conformance --broker mem:// --run session
			qrt conformance --broker sqlite:///mnt/disk/test.db --json`),
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
	c.Flags().BoolVar(&attacks, "attacks", true, "run the attacks as well")
	c.Flags().IntVar(&attempts, "attempts", 20, "how often to perform each attack")
	c.Flags().BoolVar(&yes, "yes", false, "create queues in an account of a cloud, or in a file that has queues")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show the messages of passed cases, too")
	return c
}

func (a *app) conformance(ctx context.Context, only *regexp.Regexp, attempts int, attacks, verbose, yes bool) (err error) {
	b, err := a.testBroker(ctx, yes)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := b.Close(); err == nil {
			err = cerr
		}
	}()
	r := &conformanceReport{OK: true, Broker: b.Title, Cases: []caseLine{}}
	h := drivertest.Harness{Start: func(drivertest.T) *drivertest.Instance { return b.Instance() }}
	s := a.screen
	if !a.settings.json {
		s.Printf("%s  %s\n", s.Bold("qrt conformance"), s.Dim(b.Title))
	}
	suites := []struct {
		name  string
		cases []drivertest.Case
	}{{"conformance", drivertest.Cases(h)}, {"attacks", attacktest.Cases(h, attempts)}}
	if !attacks || b.Attacker == nil {
		suites = suites[:1]
	}
	for _, suite := range suites {
		if !a.settings.json {
			s.Heading(suite.name, "")
		}
		spin := a.spin()
		for _, c := range suite.cases {
			if !only.MatchString(c.Name) || ctx.Err() != nil {
				continue
			}
			line := newCaseLine(suite.name, drivertest.Run(ctx, c))
			r.add(line)
			if !a.settings.json {
				spin.pause(func() { line.show(s, verbose) })
			}
		}
		spin.stop()
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
		r.OK = false
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
	s.Printf("  %s %s %s\n", mark, c.Name, s.Dim(display.Duration(time.Duration(c.Seconds*float64(time.Second)))))
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
