package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
)

// statsReport is the output of stats --json. A count is null if the broker
// does not tell it.
type statsReport struct {
	Queues []queueStats `json:"queues"`
}

type queueStats struct {
	Queue       string     `json:"queue"`
	Ready       *int64     `json:"ready"`
	InFlight    *int64     `json:"in_flight"`
	Scheduled   *int64     `json:"scheduled"`
	DeadLetters *int64     `json:"dead_letters"`
	Oldest      *time.Time `json:"oldest,omitempty"`
	Approximate bool       `json:"approximate"`
}

func (a *app) statsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats [QUEUE...]",
		Short: "Count the messages in queues",
		Long: `Stats shows how many messages are ready, in flight, scheduled and dead, and how old
the oldest is that could be delivered now. Without arguments it shows the queues of
the configuration file, or all queues if the broker lists them.`,
		Example: example(`
			qrt stats
			qrt stats task-tactician merge-warden --json`),
		RunE: func(cmd *cobra.Command, args []string) error { return a.stats(cmd.Context(), args) },
	}
}

func (a *app) stats(ctx context.Context, given []string) error {
	return a.with(ctx, access{named: given, looks: true}, func(c *connection) error {
		names, err := c.names(ctx, given)
		if err != nil {
			return err
		}
		r := statsReport{Queues: []queueStats{}}
		for _, name := range names {
			s, err := c.count(ctx, name)
			if err != nil {
				return err
			}
			r.Queues = append(r.Queues, newQueueStats(name, s))
		}
		if len(names) == 0 {
			return nothingf("the broker has no queues yet")
		}
		a.print(r, func(s *display.Screen) { r.show(s) })
		return nil
	})
}

// count asks the broker for the counts of a queue.
func (c *connection) count(ctx context.Context, name string) (s driver.Stats, err error) {
	q, err := c.broker.Open(ctx, name, nil)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, q.Close(ctx)) }()
	return q.Stats(ctx)
}

func newQueueStats(name string, s driver.Stats) queueStats {
	known := func(n int64) *int64 {
		if n < 0 {
			return nil
		}
		return &n
	}
	return queueStats{
		Queue:       name,
		Ready:       known(s.Ready),
		InFlight:    known(s.InFlight),
		Scheduled:   known(s.Scheduled),
		DeadLetters: known(s.DeadLetters),
		Oldest:      instant(s.Oldest),
		Approximate: s.Approximate,
	}
}

func (r *statsReport) show(s *display.Screen) {
	count := func(n *int64) string {
		if n == nil {
			return "?"
		}
		return display.Count(*n)
	}
	var rows [][]string
	approximate := false
	for _, q := range r.Queues {
		dead := count(q.DeadLetters)
		if q.DeadLetters != nil && *q.DeadLetters > 0 {
			dead = s.Warn(dead)
		}
		oldest := "-"
		if q.Oldest != nil {
			oldest = display.Age(*q.Oldest, time.Now())
		}
		rows = append(rows, []string{s.Name(display.Safe(q.Queue)), count(q.Ready), count(q.InFlight), count(q.Scheduled), dead, oldest})
		approximate = approximate || q.Approximate
	}
	s.Table(display.Columns("queue", ">ready", ">in flight", ">scheduled", ">dead letters", ">oldest"), rows)
	if approximate {
		s.Note("The broker's counts are estimates.")
	}
}
