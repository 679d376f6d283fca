package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
)

func (a *app) peekCommand() *cobra.Command {
	var max int
	var l list
	c := &cobra.Command{
		Use:   "peek QUEUE",
		Short: "Look at waiting messages without taking them",
		Long: `Peek shows messages that wait, are held or are scheduled. It locks none, counts no
delivery, and checks neither age nor replays. It opens bodies whose key is among
--keys.`,
		Example: example(`
			qrt peek task-tactician
			qrt peek task-tactician --max 1 --full
			qrt peek task-tactician --max 1000 --json | jq -r .session_id | sort | uniq -c`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if max < 1 {
				return usagef("--max must be at least 1")
			}
			l.a = a
			return a.peek(cmd.Context(), args[0], max, l)
		},
	}
	c.Flags().IntVarP(&max, "max", "n", 20, "how many messages to show at most")
	c.Flags().BoolVar(&l.full, "full", false, "show bodies and every field of each message")
	c.Flags().BoolVar(&l.noBody, "no-body", false, "leave bodies out of --full and --json")
	return c
}

func (a *app) peek(ctx context.Context, name string, max int, l list) error {
	return a.with(ctx, access{queues: []string{name}, looks: true}, func(c *connection) error {
		rx, err := c.receiver(ctx, name, queue.ReceiverOptions{})
		if err != nil {
			return err
		}
		for cursor := ""; l.n < max; {
			some, next, err := rx.Peek(ctx, cursor, min(max-l.n, 100))
			if err != nil {
				return err
			}
			for _, p := range some {
				l.add(newPeekedReport(p))
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		l.end()
		if l.n == 0 {
			return nothingf("no message in %q", display.Safe(name))
		}
		return nil
	})
}

// list shows messages: as JSON Lines, whole, or as rows of a table.
type list struct {
	a       *app
	full    bool
	noBody  bool // leave bodies out
	dead    bool // of dead letters
	suspect int  // dead letters that did not pass the checks: sending them back is no remedy
	n       int
	rows    *display.List
}

func (l *list) add(r messageReport) {
	l.n++
	if l.noBody {
		r = r.withoutBody()
	}
	if l.dead && r.DeadLetter != nil && suspectReasons[r.DeadLetter.Reason] {
		l.suspect++
	}
	s := l.a.screen
	switch {
	case l.a.settings.json:
		writeJSON(l.a.Out, r)
	case l.full:
		if l.n > 1 {
			s.Println()
		}
		r.show(s)
	default:
		if l.rows == nil {
			columns := []display.Column{
				{Title: "message", ID: true}, {Title: "session", Drop: 1}, {Title: "body"}, {Title: "key", Drop: 2},
				{Title: "age", Right: true, Drop: 3}, {Title: "deliveries", Right: true, Drop: 4}, {Title: "size", Right: true, Drop: 5},
			}
			if l.dead {
				columns = []display.Column{
					{Title: "message", ID: true}, {Title: "session", Drop: 1}, {Title: "body", Drop: 4}, {Title: "key", Drop: 3},
					{Title: "reason"}, {Title: "dead for", Right: true, Drop: 2},
				}
			}
			l.rows = s.List(columns)
		}
		l.rows.Add(l.row(&r))
	}
}

func (l *list) row(r *messageReport) []string {
	s := l.a.screen
	now := time.Now()
	state := s.Warn("plaintext")
	switch {
	case r.Encrypted:
		state = s.Good("sealed")
	case r.Reason != "":
		state = s.Bad(r.Reason)
	case r.Error != "":
		state = s.Bad("does not open")
	}
	row := []string{display.Safe(clip(r.MessageID, 36)), display.Safe(clip(r.SessionID, 28)), state, display.Safe(string(r.KeyID))}
	if l.dead {
		reason, at := "", time.Time{}
		if d := r.DeadLetter; d != nil {
			reason = d.Reason
			if d.At != nil {
				at = *d.At
			}
		}
		return append(row, s.Warn(display.Safe(reason)), display.Age(at, now))
	}
	enqueued := time.Time{}
	if r.EnqueuedAt != nil {
		enqueued = *r.EnqueuedAt
	}
	size := ""
	if r.Error == "" {
		size = display.Bytes(r.Size)
	}
	return append(row, display.Age(enqueued, now), display.Count(r.Deliveries), size)
}

func (l *list) end() {
	if l.rows != nil {
		l.rows.End()
	}
}

// wordList joins names for a sentence.
func wordList(names []string) string { return strings.Join(names, ", ") }
