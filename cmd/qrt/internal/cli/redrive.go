package cli

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/deadletter"
)

// redriveReport is the output of dlq redrive --json.
type redriveReport struct {
	Queue    string         `json:"queue"`
	DryRun   bool           `json:"dry_run"`
	Matched  int            `json:"matched"`
	Redriven int            `json:"redriven"`
	Resealed int            `json:"resealed"`
	Refused  int            `json:"refused"`
	Failed   int            `json:"failed"`
	Refusals map[string]int `json:"refusals"`
	Error    string         `json:"error,omitempty"`
}

func (a *app) dlqRedriveCommand() *cobra.Command {
	var o filterOptions
	var r deadletter.RedriveOptions
	var ttl string
	var call redriveCall
	c := &cobra.Command{
		Use:   "redrive QUEUE",
		Short: "Send dead letters back to their queue",
		Long: `Redrive sends dead letters back to their queue. Each leaves the dead letters only
after the queue has confirmed the copy: a crash in between leaves both, never
none.

Without --reseal, receivers check their age again and may reject them again. With
--reseal each is opened and sealed anew under the current key, as of now. It
stays the same message: receivers handle it once, however often it is redriven.
That needs --nonces, the replay store of the queue's receivers, and their
--group: a message that was handled, or that the store neither knows nor can
prove to be unused, is refused. --accept-replay-risk vouches for those that it
does not know.

Redrive asks before it sends anything, unless --yes or --dry-run is given. If it
cannot reach all of them, because other receivers hold some, it says how many are
left, and the exit code is 1.`,
		Example: example(`
			qrt dlq redrive task-tactician --dry-run
			qrt dlq redrive task-tactician --reason max_deliveries --since 24h --rate 50 --yes
			qrt dlq redrive task-tactician --reason message_expired --reseal --nonces sqlite:///var/lib/qrt/nonces.db`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if r.Filter, err = o.filter(time.Now()); err != nil {
				return err
			}
			switch {
			case !(r.Rate >= 0) || math.IsInf(r.Rate, 0):
				return usagef("--rate must be a number of messages a second, 0 for no limit")
			case ttl != "" && !r.Reseal:
				return usagef("--ttl needs --reseal")
			case r.AcceptReplayRisk && !r.Reseal:
				return usagef("--accept-replay-risk needs --reseal")
			case r.Reseal && a.settings.keys.value == "" && a.settings.queues[args[0]].Keys == "":
				return usagef("--reseal needs --keys")
			case r.Reseal && a.settings.nonces.value == "" && !r.AcceptReplayRisk:
				return usagef("--reseal needs --nonces, which tells what was handled before, or --accept-replay-risk if you know that nothing was")
			case r.Reseal && strings.HasPrefix(a.settings.nonces.value, "mem:"):
				return usagef("--reseal needs the replay store of the queue's receivers: one in the memory of this command knows nothing")
			}
			if ttl != "" {
				if r.TTL, err = parseDuration(ttl); err != nil || r.TTL <= 0 {
					return usagef("--ttl wants a duration such as 24h")
				}
			}
			call.queue = args[0]
			return a.redrive(cmd.Context(), call, &r)
		},
	}
	o.flags(c.Flags())
	f := c.Flags()
	f.BoolVar(&r.Reseal, "reseal", false, "seal each anew, under the current key")
	f.BoolVar(&r.AcceptReplayRisk, "accept-replay-risk", false, "reseal also what the replay store does not know")
	f.StringVar(&call.group, "group", "", "`group` of the queue's receivers in the replay store (default: the queue's name)")
	f.StringVar(&ttl, "ttl", "", "`duration` for which a resealed message may be delivered (default: what it has)")
	f.Float64Var(&r.Rate, "rate", 0, "messages a second at most (default: no limit)")
	f.BoolVar(&call.yes, "yes", false, "do not ask")
	f.BoolVar(&r.DryRun, "dry-run", false, "find out what would be done, and do nothing")
	return c
}

// redriveCall says whose dead letters to redrive.
type redriveCall struct {
	queue, group string
	yes          bool // do not ask
}

func (a *app) redrive(ctx context.Context, call redriveCall, o *deadletter.RedriveOptions) error {
	name := call.queue
	return a.withDeadOf(ctx, name, call.group, func(_ *connection, d *deadletter.Queue) error {
		if err := resolveIDs(ctx, d, o.Filter); err != nil {
			return err
		}
		total := 0
		if a.errors.Terminal() && !a.settings.json || !call.yes && !o.DryRun {
			n, err := countLetters(ctx, d, name, o.Filter, "sent back")
			if err != nil {
				return err
			}
			total = n
		}
		if !o.DryRun {
			if err := a.confirm(call.yes, fmt.Sprintf("Send %s back to %s?", number(total, "", "dead letter"), display.Safe(name))); err != nil {
				return err
			}
		}
		bar := a.errors.Bar("redriving", total)
		if a.settings.json {
			bar.Done()
		}
		defer bar.Done()
		o.Progress = func(r deadletter.RedriveReport) { bar.Set(r.Matched) }
		got, err := d.Redrive(ctx, o)
		bar.Done()
		r := redriveReport{
			Queue: name, DryRun: o.DryRun, Matched: got.Matched, Redriven: got.Redriven, Resealed: got.Resealed,
			Refused: got.Refused, Failed: got.Failed, Refusals: got.Refusals,
		}
		if got.FirstError != nil {
			r.Error = got.FirstError.Error()
		}
		if err != nil && r.Matched > 0 {
			// Some may be back in the queue: the user has to know before going on.
			return &partial{err, r.sofar()}
		}
		if err != nil {
			return err
		}
		if r.Matched == 0 {
			return nothingf("no dead letter of %q is selected", display.Safe(name))
		}
		a.print(r, func(s *display.Screen) { r.show(s) })
		if r.Refused+r.Failed > 0 {
			return errReported
		}
		return nil
	})
}

// sofar says how far it came.
func (r *redriveReport) sofar() string {
	done := "were sent back before"
	if r.DryRun {
		done = "would have been sent back"
	}
	return fmt.Sprintf("%d %s, %d refused, %d failed", r.Redriven, done, r.Refused, r.Failed)
}

func (r *redriveReport) show(s *display.Screen) {
	done := "sent back to " + s.Name(display.Safe(r.Queue))
	if r.DryRun {
		done = "would be " + done
	}
	if r.Resealed > 0 {
		done += ", resealed"
	}
	s.Printf("%s %d of %d %s\n", s.Good("✓"), r.Redriven, r.Matched, done)
	for _, why := range slices.Sorted(maps.Keys(r.Refusals)) {
		note := refusalNotes[why]
		if note == "" {
			note = why
		}
		s.Printf("%s %d left where they are: %s\n", s.Warn("!"), r.Refusals[why], note)
	}
	if r.Failed > 0 {
		s.Printf("%s %d failed: %s\n", s.Bad("✗"), r.Failed, display.Safe(r.Error))
	}
}

// refusalNotes say in words why a dead letter was not resealed.
var refusalNotes = map[string]string{
	"plaintext":               "plaintext is never resealed: the broker can have written it",
	"unknown_to_replay_store": "the replay store does not know them: see --accept-replay-risk",
	"expired":                 "they are past their own expiry: see --ttl",
	"nonce_reused":            "they were handled before: sending them back would be a replay",
	"authentication_failed":   "they do not authenticate: they were altered",
	"key_not_found":           "their key is not among --keys",
}

// purgeReport is the output of dlq purge --json.
type purgeReport struct {
	Queue  string `json:"queue"`
	Purged int    `json:"purged"`
}

func (a *app) dlqPurgeCommand() *cobra.Command {
	var o filterOptions
	var all, yes bool
	var of string
	c := &cobra.Command{
		Use:   "purge QUEUE",
		Short: "Delete dead letters for good",
		Long: `Purge deletes the dead letters that the flags select, for good. Without a flag that
selects, it requires --all. It asks before it deletes, unless --yes is given.

With --nonces, the replay store of the queue's receivers, and their --group, what is
deleted is not reported as missing.`,
		Example: example(`
			qrt dlq purge task-tactician --reason authentication_failed --until 30d
			qrt dlq purge task-tactician --all --yes`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := o.filter(time.Now())
			switch {
			case err != nil:
				return err
			case !o.selects() && !all:
				return usagef("this would delete every dead letter: say so with --all, or select some")
			case o.selects() && all:
				return usagef("--all, or a flag that selects: not both")
			}
			return a.purge(cmd.Context(), args[0], of, filter, yes)
		},
	}
	o.flags(c.Flags())
	c.Flags().StringVar(&of, "group", "", "`group` of the queue's receivers in the replay store (default: the queue's name)")
	c.Flags().BoolVar(&all, "all", false, "delete every dead letter")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) purge(ctx context.Context, name, of string, filter *deadletter.Filter, yes bool) error {
	return a.withDeadOf(ctx, name, of, func(_ *connection, d *deadletter.Queue) error {
		if err := resolveIDs(ctx, d, filter); err != nil {
			return err
		}
		if !yes {
			n, err := countLetters(ctx, d, name, filter, "deleted")
			if err != nil {
				return err
			}
			if err := a.confirm(yes, fmt.Sprintf("Delete %s of %s for good?", number(n, "", "dead letter"), display.Safe(name))); err != nil {
				return err
			}
			filter.Limit = n // no more than were counted and agreed to
		}
		n, err := d.Purge(ctx, filter)
		if a.settings.json && (err != nil || n == 0) {
			a.print(purgeReport{name, n}, nil) // beside the error
		}
		switch {
		case err != nil:
			return &partial{err, fmt.Sprintf("%d were deleted before", n)}
		case n == 0:
			return nothingf("no dead letter of %q is selected: 0 were deleted", display.Safe(name))
		}
		a.print(purgeReport{name, n}, func(s *display.Screen) {
			s.Printf("%s %s of %s deleted\n", s.Good("✓"), number(n, "0 dead letters", "dead letter"), s.Name(display.Safe(name)))
		})
		return nil
	})
}

// countLetters counts what a filter selects, which must be something that can be done so.
func countLetters(ctx context.Context, d *deadletter.Queue, name string, f *deadletter.Filter, done string) (int, error) {
	s, err := d.Stats(ctx, f)
	if err == nil && s.Count == 0 {
		err = nothingf("no dead letter of %q is selected: 0 were %s", display.Safe(name), done)
	}
	return s.Count, err
}

// confirm asks before something that cannot be undone. If standard input is no
// terminal, --yes is needed.
func (a *app) confirm(yes bool, question string) error {
	if yes {
		return nil
	}
	if a.settings.json || !a.errors.Terminal() || !terminal(a.In) {
		return usagef("this cannot be undone: say --yes")
	}
	a.errors.Printf("%s [y/N] ", question)
	answer, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return fmt.Errorf("nothing was done")
}
