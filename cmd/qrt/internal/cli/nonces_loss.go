package cli

import (
	"context"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/replay"
)

// lossReport is an accepted loss of memory, in nonces accept-loss --json and stats --json.
type lossReport struct {
	At   time.Time    `json:"at"`
	Lost memoryReport `json:"lost"`
	From memoryReport `json:"from"`
	To   string       `json:"to"`
}

// memoryReport names a memory of a replay store.
type memoryReport struct {
	ID     string     `json:"id"`
	Change uint64     `json:"change,omitempty"` // absent if it is not known
	Birth  *time.Time `json:"birth,omitempty"`  // absent if it is not known
}

func newMemoryReport(s replay.Stamp) memoryReport {
	r := memoryReport{ID: hex.EncodeToString(s.ID[:]), Change: s.Change}
	if !s.Birth.IsZero() {
		birth := s.Birth.UTC()
		r.Birth = &birth
	}
	return r
}

func newLossReport(l replay.Loss) lossReport {
	return lossReport{At: l.At.UTC(), Lost: newMemoryReport(l.Lost), From: newMemoryReport(l.From), To: hex.EncodeToString(l.To[:])}
}

// String is a line for people.
func (r lossReport) String() string {
	lost := r.Lost.ID
	if r.Lost.Change > 0 {
		lost += ":" + strconv.FormatUint(r.Lost.Change, 10)
	}
	return "Loss of " + lost + " accepted " + r.At.Format(time.RFC3339) + ", with " + r.From.ID + ":" + strconv.FormatUint(r.From.Change, 10) + " in its place."
}

func (a *app) noncesAcceptLossCommand() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:   "accept-loss ID[:CHANGE]",
		Short: "Let receivers go on after the replay store lost its memory",
		Long: `Accept-loss records with the replay store that you accept the loss of a memory.
Receivers that stopped because of it go on by themselves, within half a minute.

ID:CHANGE is the memory that was lost, as the receivers' log line "Replay store lost
its memory" and nonces stats have it. The store gets another ID and birth, keeps what
it still holds, and lists the loss in nonces stats.

What was handled before can be replayed while it is fresh. First read
docs/runbooks/replay-store-lost.md. It asks before it does anything, unless --yes is
given. In PostgreSQL run it as the owner of the schema.`,
		Example: example(`
			qrt nonces accept-loss 9f86d081884c7d659a2feaa0c55ad015:48213 --nonces dynamodb://eu-west-1/replay`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lost, err := parseMemory(args[0])
			if err != nil {
				return err
			}
			return a.acceptLoss(cmd.Context(), lost, yes)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// parseMemory reads ID:CHANGE, or ID alone.
func parseMemory(text string) (s replay.Stamp, err error) {
	id, change, numbered := strings.Cut(text, ":")
	b, err := hex.DecodeString(id)
	if err != nil || copy(s.ID[:], b) != len(s.ID) || len(b) != len(s.ID) || s.ID == [16]byte{} {
		return s, usagef("the ID of a memory has 32 hexadecimal digits: copy it from the log line of the receivers")
	}
	if numbered {
		if s.Change, err = strconv.ParseUint(change, 10, 64); err != nil {
			return s, usagef("the change number behind the ID is no number: copy ID:CHANGE from the log line of the receivers")
		}
	}
	return s, nil
}

func (a *app) acceptLoss(ctx context.Context, lost replay.Stamp, yes bool) error {
	return a.withNonces(ctx, func(s replay.Store) error {
		h, err := s.History(ctx)
		if err != nil {
			return err
		}
		asked := lost
		if asked.Change == 0 { // not given: only if that memory was named
			asked.Change = math.MaxUint64
		}
		l, done := h.Accepts(asked)
		if !done {
			if err := a.confirm(yes, "Go on without what "+lost.String()+" knew? What was handled before can be replayed while it is fresh."); err != nil {
				return err
			}
			if l, err = s.AcceptLoss(ctx, lost); err != nil {
				return err
			}
		}
		r := newLossReport(l)
		a.print(r, func(screen *display.Screen) {
			if done {
				screen.Printf("Nothing to do: it was accepted before.\n")
			}
			screen.Printf("%s %s\n", screen.Good("✓"), r)
			screen.Note("The store is " + r.To + " now.")
		})
		return nil
	})
}
