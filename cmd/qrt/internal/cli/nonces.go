package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay"
)

func (a *app) noncesCommand() *cobra.Command {
	return group("nonces", "Look after the replay store",
		`The replay store is the receivers' memory of what they handled. --nonces names it.`,
		a.noncesStatsCommand(), a.noncesInitCommand(), a.noncesAcceptLossCommand(), a.noncesForgetKeyCommand())
}

// noncesReport is the output of nonces stats --json.
type noncesReport struct {
	ID      string       `json:"id"`
	Birth   time.Time    `json:"birth"`
	Change  uint64       `json:"change"`
	Records usedBound    `json:"records"`
	Streams usedBound    `json:"streams"`
	Spans   usedBound    `json:"intervals"`
	Recent  usedBound    `json:"recent"`
	Bytes   int64        `json:"bytes"`
	Full    float64      `json:"full"` // 0 to 1
	Shared  bool         `json:"shared"`
	Durable bool         `json:"durable"`
	Keep    keptDuration `json:"kept"`
	Losses  []lossReport `json:"accepted_losses"` // the oldest first
}

// usedBound is how many there are, and how many the store may hold.
type usedBound struct {
	Used  int64 `json:"used"`
	Bound int   `json:"bound"`
}

// keptDuration says for how long things are kept, in seconds.
type keptDuration struct {
	Streams float64 `json:"streams_seconds"`
	Parked  float64 `json:"parked_seconds"`
}

func (a *app) noncesStatsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "Show what the replay store holds, and how full it is",
		Long: `Stats shows the records (messages that are claimed, released or parked), streams and
intervals of the replay store, its bounds, and how much of the tightest one is used.
At the bound receiving stops. The bounds shown are those of --nonces; receivers may
have others.

The ID, the birth and the change number say whether it is the store of before: the
change number only grows. Losses of memory that were accepted (nonces accept-loss) are
listed.`,
		Example: example(`
			qrt nonces stats --nonces sqlite:///var/lib/qrt/nonces.db
			qrt nonces stats --json | jq .full`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNonces(cmd.Context(), func(s replay.Store) error {
				return a.showNonces(cmd.Context(), s)
			})
		},
	}
}

func (a *app) noncesInitCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init",
		Short: "Make the table or the file of the replay store",
		Long: `Init makes what the replay store needs before receivers can use it: the table of
dynamodb:// and aztable://, the schema of postgres://, the file of sqlite://. What is
there already stays as it is. It needs rights that receivers do not need: see
docs/replay/dynamodb.md and docs/replay/aztable.md.`,
		Example: example(`
			qrt nonces init --nonces dynamodb://eu-west-1/replay
			qrt nonces init --nonces aztable://tacticianreplay/replay`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			value := a.settings.nonces.value
			switch {
			case value == "":
				return usagef("this needs --nonces, the replay store to make")
			case strings.HasPrefix(value, "mem:"):
				return usagef("--nonces is in memory: the process that uses it makes it")
			}
			if err := connect.InitReplayStore(cmd.Context(), value); err != nil {
				return err
			}
			return a.withNonces(cmd.Context(), func(s replay.Store) error {
				return a.showNonces(cmd.Context(), s)
			})
		},
	}
}

// showNonces prints the report of a store.
func (a *app) showNonces(ctx context.Context, s replay.Store) error {
	stats, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	history, err := s.History(ctx)
	if err != nil {
		return err
	}
	r := newNoncesReport(&stats, &history)
	a.print(r, func(screen *display.Screen) { r.show(screen) })
	return nil
}

func newNoncesReport(s *replay.Stats, h *replay.History) *noncesReport {
	losses := make([]lossReport, 0, len(h.Losses))
	for i := range h.Losses {
		losses = append(losses, newLossReport(h.Losses[i]))
	}
	return &noncesReport{
		Losses: losses,
		ID:     fmt.Sprintf("%x", s.Stamp.ID), Birth: s.Stamp.Birth.UTC(), Change: s.Stamp.Change,
		Records: usedBound{s.Records, s.Capacity.Store.Records},
		Streams: usedBound{s.Streams, s.Capacity.Store.Streams},
		Spans:   usedBound{s.Intervals, s.Capacity.Store.Intervals},
		Recent:  usedBound{s.Recent, s.Capacity.Recent},
		Bytes:   s.Bytes, Full: s.Full(), Shared: s.Shared, Durable: s.Durable,
		Keep: keptDuration{s.Capacity.KeepStream.Seconds(), s.Capacity.ParkedTTL.Seconds()},
	}
}

func (r *noncesReport) show(s *display.Screen) {
	var rows [][]string
	for _, b := range []struct {
		name string
		usedBound
	}{{"records", r.Records}, {"streams", r.Streams}, {"intervals", r.Spans}, {"recent", r.Recent}} {
		rows = append(rows, []string{b.name, display.Count(b.Used), display.Count(b.Bound)})
	}
	s.Table(display.Columns("", ">used", ">bound"), rows)
	full := fmt.Sprintf("%.0f %% full", 100*r.Full)
	if r.Full >= 0.8 {
		full = s.Warn(full)
	}
	kind := "one process"
	if r.Shared {
		kind = "shared"
	}
	switch {
	case r.Shared && !r.Durable:
		kind += ", may forget when its machine crashes"
	case !r.Durable:
		kind += ", forgotten at its end"
	}
	s.Printf("%s, %s, %s\n", full, display.Bytes(r.Bytes), kind)
	s.Note(fmt.Sprintf("Store %s:%d, made %s.", r.ID, r.Change, r.Birth.Format(time.RFC3339)))
	for i := range r.Losses {
		s.Note(r.Losses[i].String())
	}
}

// withNonces runs f over the replay store alone. It makes neither file nor schema.
func (a *app) withNonces(ctx context.Context, f func(replay.Store) error) error {
	value := a.settings.nonces.value
	switch {
	case value == "":
		return usagef("this needs --nonces, the replay store of the queue's receivers")
	case strings.HasPrefix(value, "mem:"):
		return usagef("--nonces is in memory: only the process that has it can look into it")
	}
	if u, err := url.Parse(value); err == nil && (u.Scheme == "sqlite" || u.Scheme == "postgres" || u.Scheme == "postgresql" || u.Scheme == "redis" || u.Scheme == "rediss") {
		value = mustExist(value)
	}
	s, err := connect.OpenReplayStore(ctx, value)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, driver.ErrNotFound) {
		return nothingf("there is no replay store at %s", a.settings.nonces.shown())
	}
	if err != nil {
		return err
	}
	err = f(s)
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}

// projectAge is how old a store must be before what it will hold is projected: before that
// the messages that are being handled count for too much.
const projectAge = 6 * time.Hour

// projected returns how much of its tightest bound a store will use once records and
// streams leave as fast as they come, if it goes on as since its birth. 0 means that this
// cannot be told yet.
func projected(s *replay.Stats, now time.Time) float64 {
	age := now.Sub(s.Stamp.Birth)
	if age < projectAge {
		return 0
	}
	later := *s
	grow := func(n *int64, kept time.Duration) {
		if age < kept {
			*n = int64(float64(*n) * float64(kept) / float64(age))
		}
	}
	grow(&later.Records, s.Capacity.ParkedTTL)
	grow(&later.Streams, s.Capacity.KeepStream)
	return later.Full()
}
