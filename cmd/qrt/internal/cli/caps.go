package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
)

// capsReport is the output of caps --json. Sizes are bytes, durations seconds; 0
// means that no limit is known.
type capsReport struct {
	Queue         string  `json:"queue"`
	Sessions      string  `json:"sessions"`
	SessionState  string  `json:"session_state"`
	DeadLetter    string  `json:"dead_letter"`
	AbandonDelay  string  `json:"abandon_delay"`
	Schedule      string  `json:"schedule"`
	Peek          string  `json:"peek"`
	TTL           string  `json:"ttl"`
	Dedup         string  `json:"dedup"`
	AcceptByID    bool    `json:"accept_by_id"`
	SessionOnly   bool    `json:"session_only"`
	BinaryBody    bool    `json:"binary_body"`
	Fenced        bool    `json:"fenced"`
	MaxBody       int     `json:"max_body"`
	MaxBatch      int     `json:"max_batch"`
	MaxBatchBytes int     `json:"max_batch_bytes"`
	MaxAttributes int     `json:"max_attributes"`
	MaxDeliveries int     `json:"max_deliveries"`
	MaxDelay      float64 `json:"max_delay_s"`
	Lock          float64 `json:"lock_s"`
	MinLock       float64 `json:"min_lock_s"`
	MaxLock       float64 `json:"max_lock_s"`
	Retention     float64 `json:"retention_s"`
}

func (a *app) capsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "caps QUEUE",
		Short: "Show what a queue's broker can do",
		Long: `Caps shows what the broker of a queue can do: native, emulated by the driver, by a
copy, or not at all. What is not there fails with errors.ErrUnsupported.`,
		Example: example(`qrt caps task-tactician --json`),
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.caps(cmd.Context(), args[0])
		},
	}
}

func (a *app) caps(ctx context.Context, name string) error {
	return a.with(ctx, need{looks: true}, func(c *connection) (err error) {
		q, err := c.broker.Open(ctx, name, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, q.Close(ctx)) }()
		r := newCapsReport(name, q.Capabilities())
		a.print(r, func(s *display.Screen) { r.show(s) })
		return nil
	})
}

func newCapsReport(name string, c driver.Capabilities) capsReport {
	return capsReport{
		Queue:        name,
		Sessions:     c.Sessions.String(),
		SessionState: c.SessionState.String(),
		DeadLetter:   c.DeadLetter.String(),
		AbandonDelay: c.AbandonDelay.String(),
		Schedule:     c.Schedule.String(),
		Peek:         c.Peek.String(),
		TTL:          c.TTL.String(),
		Dedup:        c.Dedup.String(),
		AcceptByID:   c.AcceptByID, SessionOnly: c.SessionOnly, BinaryBody: c.BinaryBody, Fenced: c.Fenced,
		MaxBody: c.MaxBody, MaxBatch: c.MaxBatch, MaxBatchBytes: c.MaxBatchBytes,
		MaxAttributes: c.MaxAttributes, MaxDeliveries: c.MaxDeliveries,
		MaxDelay: c.MaxDelay.Seconds(), Lock: c.Lock.Seconds(),
		MinLock: c.MinLock.Seconds(), MaxLock: c.MaxLock.Seconds(), Retention: c.Retention.Seconds(),
	}
}

func (r *capsReport) show(s *display.Screen) {
	support := func(v string) string {
		if v == driver.None.String() {
			return s.Warn("no")
		}
		return s.Good(v)
	}
	yes := func(b bool) string {
		if b {
			return s.Good("yes")
		}
		return "no"
	}
	limit := func(n int, show func(int) string) string {
		if n == 0 {
			return s.Dim("no limit known")
		}
		return show(n)
	}
	span := func(seconds float64) string {
		if seconds == 0 {
			return s.Dim("not known")
		}
		return display.Duration(time.Duration(seconds * float64(time.Second)))
	}
	s.Table(display.Columns("can", "", "what it is"), [][]string{
		{"sessions", support(r.Sessions), "messages of one session in order, one holder"},
		{"  by name", yes(r.AcceptByID), "a session is taken by its ID"},
		{"  only", yes(r.SessionOnly), "every message needs a session"},
		{"  state", support(r.SessionState), "a small state is kept with a session"},
		{"dead letters", support(r.DeadLetter), "what cannot be handled is put aside"},
		{"peek", support(r.Peek), "look without taking"},
		{"schedule", support(r.Schedule), "deliver not before a time"},
		{"delayed abandon", support(r.AbandonDelay), "give back, to come again later"},
		{"time to live", support(r.TTL), "the broker stops delivering; receivers enforce it in any case"},
		{"deduplication", support(r.Dedup), "repeats of a DedupID are dropped"},
		{"fenced locks", yes(r.Fenced), "the broker refuses to settle after a lock is over"},
		{"binary bodies", yes(r.BinaryBody), "else sealed bodies travel as base64"},
	})
	s.Println()
	s.Table(display.Columns("limit", ""), [][]string{
		{"body", limit(r.MaxBody, display.Bytes[int])},
		{"batch", limit(r.MaxBatch, display.Count[int]) + " messages, " + limit(r.MaxBatchBytes, display.Bytes[int])},
		{"attributes", limit(r.MaxAttributes, display.Count[int])},
		{"deliveries", limit(r.MaxDeliveries, display.Count[int])},
		{"delay", span(r.MaxDelay)},
		{"lock", span(r.Lock) + " (from " + span(r.MinLock) + " to " + span(r.MaxLock) + ")"},
		{"retention", span(r.Retention)},
	})
}
