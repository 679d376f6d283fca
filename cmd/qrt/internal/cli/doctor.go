package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
)

// level is how bad a finding is.
type level string

// The levels.
const (
	levelOK      level = "ok"
	levelNote    level = "note"
	levelWarning level = "warning"
	levelError   level = "error"
)

// finding is one thing that doctor found, and what to do about it.
type finding struct {
	Check   string `json:"check"`
	Queue   string `json:"queue,omitempty"`
	Level   level  `json:"level"`
	Finding string `json:"finding"`
	Advice  string `json:"advice,omitempty"`
}

// doctorReport is the output of doctor --json.
type doctorReport struct {
	OK       bool      `json:"ok"` // no finding is an error
	Phase    int       `json:"migration_phase"`
	Errors   int       `json:"errors"`
	Warnings int       `json:"warnings"`
	Findings []finding `json:"findings"`
}

// probeQueue is the queue of doctor's own, if a broker makes queues on demand.
const probeQueue = "qrt-doctor"

func (a *app) doctorCommand() *cobra.Command {
	var probe, role string
	var handler time.Duration
	c := &cobra.Command{
		Use:   "doctor [QUEUE...]",
		Short: "Find out what is wrong, and what to do about it",
		Long: `Doctor checks the configuration, the broker, the keys, the replay store and each
queue. It checks that:

  - everything is reachable and permitted, and each queue has a dead-letter queue
  - the keys load and seal, and a message makes the round trip
  - the clocks agree
  - the replay store is outside the broker's reach
  - the maximum age is as long as the broker keeps messages

It says which of the four phases of a migration the configuration is in. On SQS it
also checks what this identity may do, by calls that change nothing. On Service Bus it
checks whether queues require sessions, and the settings of the management API. Each
finding says what to do.

Doctor receives none of your messages. Its round trip uses a queue of its own if the
broker creates queues on demand; otherwise name a queue with --probe.

The exit code is 1 if something is wrong, and 0 if there are only warnings.`,
		Example: example(`
			qrt doctor task-tactician
			qrt doctor --json | jq '.findings[] | select(.level != "ok")'
			qrt doctor --broker sqs://eu-west-1/ --probe qrt-probe task-tactician
			qrt doctor --handler 2m --role receiver task-tactician`),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case handler < 0:
				return usagef("--handler is negative")
			case role != "" && !slices.Contains(roles, role):
				return usagef("--role is not one of %s", strings.Join(roles, ", "))
			}
			return a.doctor(cmd.Context(), args, doctorRun{probe: probe, handler: handler, role: role})
		},
	}
	c.Flags().DurationVar(&handler, "handler", 0, "the longest time that a handler takes, to compare with the lock")
	c.Flags().StringVar(&role, "role", "", "what this identity must be allowed to do: "+strings.Join(roles, ", "))
	must(c.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp)))
	c.Flags().StringVar(&probe, "probe", "", "`queue` for the round trip, without other users")
	return c
}

func (a *app) doctor(ctx context.Context, queues []string, x doctorRun) error {
	bar := a.errors.Bar("looking", 0)
	if a.settings.json {
		bar.Done()
	}
	x.app, x.report = a, &doctorReport{Findings: []finding{}}
	err := x.run(ctx, queues)
	bar.Done()
	if err != nil {
		return err
	}
	r := x.report
	r.OK = r.Errors == 0
	a.print(r, func(s *display.Screen) { r.show(s) })
	if !r.OK {
		return errReported
	}
	return nil
}

// add notes a finding.
func (r *doctorReport) add(f finding) {
	switch f.Level {
	case levelError:
		r.Errors++
	case levelWarning:
		r.Warnings++
	case levelOK, levelNote:
	}
	r.Findings = append(r.Findings, f)
}

func (r *doctorReport) show(s *display.Screen) {
	last := "\x00"
	for _, f := range r.Findings {
		if f.Queue != last {
			title := "this configuration"
			if f.Queue != "" {
				title = "queue " + display.Safe(f.Queue)
			}
			s.Heading(title, "")
			last = f.Queue
		}
		mark := s.Good("✓")
		switch f.Level {
		case levelNote:
			mark = s.Dim("·")
		case levelWarning:
			mark = s.Warn("!")
		case levelError:
			mark = s.Bad("✗")
		case levelOK:
		}
		const behind = 4 + labelWidth + 1 // mark, check and spaces
		for i, line := range s.Lines(display.Safe(f.Finding), behind) {
			if i == 0 {
				s.Printf("  %s %s %s\n", mark, s.Dim(label(f.Check)), line)
			} else {
				s.Printf("    %s %s\n", label(""), line)
			}
		}
		if f.Advice != "" {
			arrow := "→ "
			for _, line := range display.Wrap(f.Advice, min(80, max(20, s.Width()-behind-2))) {
				s.Printf("    %s %s\n", label(""), s.Dim(arrow+display.Safe(line)))
				arrow = "  "
			}
		}
	}
	s.Println()
	switch {
	case r.Errors > 0:
		s.Println(s.Bad(fmt.Sprintf("✗ %s", number(r.Errors, "", "error"))) + ", " + number(r.Warnings, "no warnings", "warning"))
	case r.Warnings > 0:
		s.Println(s.Warn("! " + number(r.Warnings, "", "warning")))
	default:
		s.Println(s.Good("✓ all is well"))
	}
}

// old is a duration in words of a person.
func old(d time.Duration) string { return display.Duration(d.Round(time.Second)) }
