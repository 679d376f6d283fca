package cli

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/replay"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Find messages that the broker confirmed and did not deliver",
		`The messages of a sender are numbered, and each says which of those before it the
broker has confirmed. What no receiver has seen of them is missing. The replay store
of the receivers (--nonces) keeps this account.`,
		a.auditMissingCommand(), a.auditAcceptCommand())
}

// missingReport is the output of audit missing --json.
type missingReport struct {
	Queue   string         `json:"queue"`
	Group   string         `json:"group"`
	Missing []missingRange `json:"missing"`
	// Uncounted are streams of which more is missing than a store lists, or of which it
	// does not list all any more.
	Uncounted []uncountedStream `json:"uncounted"`
}

// missingRange is a run of messages of one stream.
type missingRange struct {
	Sender   string    `json:"sender"`
	Stream   string    `json:"stream"`
	Opened   time.Time `json:"opened"` // by the sender's clock
	First    uint64    `json:"first"`
	Last     uint64    `json:"last"`
	Since    time.Time `json:"since"`
	Reported string    `json:"reported"` // late, missing, or empty: not yet
}

type uncountedStream struct {
	Sender      string `json:"sender"`
	Stream      string `json:"stream"`
	Implausible bool   `json:"implausible"`
	Forgotten   uint64 `json:"forgotten"` // messages
	Start       uint64 `json:"start"`     // what is forgotten lies below it
}

func (a *app) auditMissingCommand() *cobra.Command {
	var of string
	c := &cobra.Command{
		Use:   "missing QUEUE",
		Short: "List what is missing: sender, stream, numbers and since when",
		Long: `Missing lists the messages that their senders know to be in the queue, because the
broker confirmed them, and that no receiver of the group has seen. Those of a few
moments may be on their way. Receivers report them as late and then as missing.

The exit code is 3 if nothing is missing.`,
		Example: example(`
			qrt audit missing task-tactician --nonces sqlite:///var/lib/qrt/nonces.db
			qrt audit missing task-tactician --json | jq '.missing[] | select(.reported == "missing")'`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.auditMissing(cmd.Context(), args[0], cmp.Or(of, args[0]))
		},
	}
	c.Flags().StringVar(&of, "group", "", "`group` of the queue's receivers in the replay store (default: the queue's name)")
	return c
}

func (a *app) auditMissing(ctx context.Context, name, of string) error {
	return a.withNonces(ctx, func(store replay.Store) error {
		r := missingReport{Queue: name, Group: of, Missing: []missingRange{}, Uncounted: []uncountedStream{}}
		for s, err := range store.Streams(ctx, of) {
			if err != nil {
				return err
			}
			r.add(&s)
		}
		if len(r.Missing)+len(r.Uncounted) == 0 {
			return nothingf("no message of %q is missing", display.Safe(name))
		}
		slices.SortStableFunc(r.Missing, func(a, b missingRange) int { return a.Since.Compare(b.Since) })
		a.print(r, func(s *display.Screen) { r.show(s) })
		return nil
	})
}

func (r *missingReport) add(s *replay.Stream) {
	stream := hex.EncodeToString(s.Stream[:])
	for _, m := range s.Missing {
		reported := ""
		switch {
		case m.ReportedMissing:
			reported = "missing"
		case m.ReportedLate:
			reported = "late"
		}
		r.Missing = append(r.Missing, missingRange{s.Sender, stream, s.Opened.UTC(), m.Range.First, m.Range.Last, m.Since.UTC(), reported})
	}
	if s.Implausible || s.MissingForgotten > 0 {
		r.Uncounted = append(r.Uncounted, uncountedStream{s.Sender, stream, s.Implausible, s.MissingForgotten, s.Start})
	}
}

func (r *missingReport) show(s *display.Screen) {
	var rows [][]string
	var n uint64
	for _, m := range r.Missing {
		n += m.Last - m.First + 1
		reported := s.Dim("not yet")
		switch m.Reported {
		case "missing":
			reported = s.Bad(m.Reported)
		case "late":
			reported = s.Warn(m.Reported)
		}
		rows = append(rows, []string{senderName(s, m.Sender), m.Stream, rangeText(m.First, m.Last), m.Since.Format(time.RFC3339), reported})
	}
	if len(rows) > 0 {
		s.Table(display.Columns("sender", "stream", ">messages", "since", "reported"), rows)
	}
	for _, u := range r.Uncounted {
		why := fmt.Sprintf("%d more are missing that are not listed any more: --range %s accepts them", u.Forgotten, rangeText(1, max(u.Start, 2)-1))
		if u.Implausible {
			why = "more is missing than a store lists: its sender counts wrongly, or was cut off for long"
		}
		s.Printf("%s stream %s of %s: %s\n", s.Warn("!"), u.Stream, senderName(s, u.Sender), why)
	}
	s.Note(fmt.Sprintf("%d missing. Explained or sent again? qrt audit accept %s", n, display.Safe(r.Queue)))
}

// senderName is a sender ID for a person; the empty one is the master key's.
func senderName(s *display.Screen, id string) string {
	if id == "" {
		return s.Dim("(master key)")
	}
	return s.Name(display.Safe(id))
}

func rangeText(first, last uint64) string {
	if first == last {
		return strconv.FormatUint(first, 10)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// acceptReport is the output of audit accept --json.
type acceptReport struct {
	Queue    string `json:"queue"`
	Accepted uint64 `json:"accepted"` // numbers that were not accepted before
}

// acceptance is what audit accept settles.
type acceptance struct {
	group, sender string
	stream        [16]byte
	ranges        []replay.Range
}

func (a *app) auditAcceptCommand() *cobra.Command {
	var x acceptance
	var stream string
	var ranges []string
	c := &cobra.Command{
		Use:   "accept QUEUE",
		Short: "Settle messages that are missing, so that the next loss is seen",
		Long: `Accept notes in the replay store that messages which are missing are explained, or
were sent again. They leave the gauges of the receivers. A message that was accepted
is handled as any other if it comes after all.

Of a range only what is missing now is accepted, and numbers that the sender has not
settled yet are refused: anything else would hide a loss that is still to come.`,
		Example: example(`
			qrt audit accept task-tactician --sender router --stream 019ac8e5f0d200112233445566778899 --range 17-19`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("sender") {
				return usagef(`name the sender: --sender ID, or --sender "" for the master key`)
			}
			id, err := hex.DecodeString(stream)
			if err != nil || len(id) != len(x.stream) {
				return usagef("--stream wants the 32 hexadecimal digits that audit missing shows")
			}
			x.stream = [16]byte(id)
			if len(ranges) == 0 {
				return usagef("name the messages: --range 17-19")
			}
			for _, text := range ranges {
				r, ok := parseRange(text)
				if !ok {
					return usagef("--range %q is not a range of numbers such as 17-19 or 17", display.Safe(text))
				}
				x.ranges = append(x.ranges, r)
			}
			x.group = cmp.Or(x.group, args[0])
			return a.auditAccept(cmd.Context(), args[0], &x)
		},
	}
	f := c.Flags()
	f.StringVar(&x.group, "group", "", "`group` of the queue's receivers in the replay store (default: the queue's name)")
	f.StringVar(&x.sender, "sender", "", "`ID` of the sender, empty for the master key")
	f.StringVar(&stream, "stream", "", "stream `ID` as audit missing shows it")
	f.StringArrayVar(&ranges, "range", nil, "`numbers` of messages, such as 17-19; may be repeated")
	return c
}

// parseRange reads "17-19" or "17".
func parseRange(text string) (r replay.Range, ok bool) {
	first, last, two := strings.Cut(text, "-")
	if !two {
		last = first
	}
	var err1, err2 error
	r.First, err1 = strconv.ParseUint(first, 10, 64)
	r.Last, err2 = strconv.ParseUint(last, 10, 64)
	return r, err1 == nil && err2 == nil && r.First >= 1 && r.First <= r.Last
}

func (a *app) auditAccept(ctx context.Context, name string, x *acceptance) error {
	return a.withNonces(ctx, func(store replay.Store) error {
		s, err := x.find(ctx, store)
		switch {
		case err != nil:
			return err
		case s == nil:
			return nothingf("group %q has no such stream of sender %q", display.Safe(x.group), display.Safe(x.sender))
		}
		r := acceptReport{Queue: name}
		for _, v := range x.ranges {
			if v.Last > s.Settled {
				return usagef("--range %s: the stream is settled up to %d only", rangeText(v.First, v.Last), s.Settled)
			}
		}
		for part := range slices.Chunk(x.notes(s), replay.MaxBatch) {
			noted, err := store.Note(ctx, x.group, part)
			if err != nil {
				return err
			}
			for _, n := range noted {
				if n.Err != nil {
					return n.Err
				}
				r.Accepted += n.Fresh
			}
		}
		a.print(r, func(s *display.Screen) {
			s.Printf("%s %d of %s accepted\n", s.Good("✓"), r.Accepted, s.Name(display.Safe(name)))
		})
		return nil
	})
}

// find returns the stream, nil if it is not held.
func (x *acceptance) find(ctx context.Context, store replay.Store) (*replay.Stream, error) {
	for s, err := range store.Streams(ctx, x.group) {
		if err != nil {
			return nil, err
		}
		if s.Sender == x.sender && s.Stream == x.stream {
			return &s, nil
		}
	}
	return nil, nil //nolint:nilnil // no stream is no error
}

// notes accept what is missing of the ranges. Nothing else: a message that a receiver has in
// hand may still be lost. The range that audit missing names for what is not listed any more
// accepts nothing that is listed: that may wait for a retry.
func (x *acceptance) notes(s *replay.Stream) (notes []replay.Note) {
	accept := func(r replay.Range) {
		if r.First <= r.Last {
			notes = append(notes, replay.Note{Sender: x.sender, Stream: x.stream, Range: r, Kind: replay.NoteAccepted})
		}
	}
	for _, r := range x.ranges {
		switch {
		case s.Implausible: // nothing is listed
			accept(r)
			continue
		case s.MissingForgotten > 0 && r.First == 1 && r.Last+1 >= s.Start:
			accept(replay.Range{First: 1, Last: s.Start - 1})
			if r.Last+1 == s.Start {
				continue
			}
		}
		for _, m := range s.Missing {
			accept(replay.Range{First: max(r.First, m.Range.First), Last: min(r.Last, m.Range.Last)})
		}
	}
	return notes
}
