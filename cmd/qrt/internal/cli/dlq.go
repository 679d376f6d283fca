package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

func (a *app) dlqCommand() *cobra.Command {
	return group("dlq", "Look after dead letters",
		`Dead letters are messages that could not be handled, or that did not authenticate.
None is ever deleted but by dlq purge.`,
		a.dlqListCommand(), a.dlqShowCommand(), a.dlqRedriveCommand(), a.dlqPurgeCommand())
}

// filterOptions are the flags that select dead letters.
type filterOptions struct {
	reasons, sessions, ids, keys []string
	since, until                 string
	limit                        int
}

func (o *filterOptions) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.reasons, "reason", nil, "`code` for which they were dead-lettered, such as authentication_failed; may be repeated")
	f.StringArrayVar(&o.sessions, "session", nil, "session `ID`; may be repeated")
	f.StringArrayVar(&o.ids, "id", nil, "message `ID`; may be repeated")
	f.StringArrayVar(&o.keys, "key", nil, "`ID` of the key that they are sealed under; may be repeated")
	f.StringVar(&o.since, "since", "", "dead-lettered since this `time`: RFC 3339, or a duration ago such as 24h")
	f.StringVar(&o.until, "until", "", "dead-lettered before this `time`")
	f.IntVar(&o.limit, "limit", 0, "how many to take at most (default: all)")
}

// filter is what the flags select.
func (o *filterOptions) filter(now time.Time) (*deadletter.Filter, error) {
	if o.limit < 0 {
		return nil, usagef("--limit is negative")
	}
	f := &deadletter.Filter{Reasons: o.reasons, SessionIDs: o.sessions, MessageIDs: o.ids, Limit: o.limit}
	for _, id := range o.keys {
		f.KeyIDs = append(f.KeyIDs, keys.ID(id))
	}
	for _, t := range []struct {
		name, text string
		into       *time.Time
	}{{"--since", o.since, &f.Since}, {"--until", o.until, &f.Until}} {
		if t.text == "" {
			continue
		}
		if d, err := parseDuration(t.text); err == nil && d >= 0 {
			*t.into = now.Add(-d)
			continue
		}
		at, err := time.Parse(time.RFC3339, t.text)
		if err != nil {
			return nil, usagef("%s wants a time such as 2026-01-31T12:00:00Z, or a duration ago such as 24h", t.name)
		}
		*t.into = at
	}
	return f, nil
}

// selects reports whether the flags leave anything out.
func (o *filterOptions) selects() bool {
	return len(o.reasons)+len(o.sessions)+len(o.ids)+len(o.keys) > 0 || o.since != "" || o.until != ""
}

// withDead runs f over the dead letters of a queue.
func (a *app) withDead(ctx context.Context, name string, f func(*connection, *deadletter.Queue) error) error {
	return a.withDeadOf(ctx, name, "", f)
}

// withDeadOf is withDead for the receivers of a group; empty means the queue's name.
func (a *app) withDeadOf(ctx context.Context, name, group string, f func(*connection, *deadletter.Queue) error) error {
	return a.with(ctx, access{queues: []string{name}, looks: true}, func(c *connection) (err error) {
		d, err := c.deadLetters(ctx, name, group)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Close(context.WithoutCancel(ctx))) }()
		return f(c, d)
	})
}

func (a *app) dlqListCommand() *cobra.Command {
	var o filterOptions
	var stored bool
	l := list{a: a, dead: true}
	c := &cobra.Command{
		Use:   "list QUEUE",
		Short: "List dead letters, with the reason of each",
		Long: `List shows the dead letters of a queue and changes nothing. Reasons and times come
from the broker's storage: they are for display and not authenticated.

With --envelope each comes with its stored bytes, stored_base64. For a message that
does not open they are the only evidence. Evidence for others should hold no bodies
in the clear: --no-body leaves them out, and umask 077 keeps the file to yourself.

A message ID that ends with … stands for the only ID that begins so, as in the
tables of a narrow terminal.`,
		Example: example(`
			qrt dlq list task-tactician
			qrt dlq list task-tactician --reason authentication_failed --since 24h --json
			(umask 077; qrt dlq list task-tactician --envelope --no-body --json > evidence.jsonl)`),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			filter, err := o.filter(time.Now())
			if err != nil {
				return err
			}
			if stored {
				if !a.settings.json {
					return usagef("--envelope needs --json")
				}
				return a.dlqEvidence(cmd.Context(), args[0], filter, l)
			}
			return a.dlqList(cmd.Context(), args[0], filter, l)
		},
	}
	o.flags(c.Flags())
	c.Flags().BoolVar(&l.full, "full", false, "show bodies and every field of each message")
	c.Flags().BoolVar(&l.noBody, "no-body", false, "leave bodies, and what handlers failed with, out of --full and --json")
	c.Flags().BoolVar(&stored, "envelope", false, "with --json: add the stored bytes of each")
	return c
}

// dlqEvidence lists dead letters with their stored bytes.
func (a *app) dlqEvidence(ctx context.Context, name string, filter *deadletter.Filter, l list) error {
	return a.withDead(ctx, name, func(c *connection, d *deadletter.Queue) error {
		return c.rawDeadLetters(ctx, name, func(raw iter.Seq2[*driver.Delivery, error]) error {
			next, stop := iter.Pull2(raw)
			defer stop()
			if err := resolveIDs(ctx, d, filter); err != nil {
				return err
			}
			for p, err := range d.All(ctx, filter) {
				if err != nil {
					return err
				}
				r := newLetterReport(p)
				// Both go by the order of storage; what is gone by now is passed over.
				for {
					found, err, ok := next()
					if err != nil {
						return err
					}
					if !ok {
						return fmt.Errorf("dead letter %q was taken away while they were listed: list them again", display.Safe(r.MessageID))
					}
					if found.BrokerID == p.BrokerID {
						r.Stored = found.Body
						break
					}
				}
				l.add(r)
			}
			if l.n == 0 {
				return nothingf("no dead letter of %q is selected", display.Safe(name))
			}
			return nil
		})
	})
}

func (a *app) dlqList(ctx context.Context, name string, filter *deadletter.Filter, l list) error {
	return a.withDead(ctx, name, func(_ *connection, d *deadletter.Queue) error {
		if err := resolveIDs(ctx, d, filter); err != nil {
			return err
		}
		for p, err := range d.All(ctx, filter) {
			if err != nil {
				l.end()
				return err
			}
			l.add(newLetterReport(p))
		}
		l.end()
		if l.n == 0 {
			return nothingf("no dead letter of %q is selected", display.Safe(name))
		}
		if !a.settings.json && !l.full {
			a.screen.Note(l.advice(display.Safe(name)))
		}
		return nil
	})
}

// suspectReasons are those for which a message may have been altered, forged or replayed:
// sent back it becomes a dead letter again, unless the fault was here (a wrong key).
var suspectReasons = map[string]bool{
	driver.ReasonAuthentication: true, driver.ReasonInvalidEnvelope: true, driver.ReasonNonceReused: true, driver.ReasonPlaintext: true, driver.ReasonSender: true,
}

// advice says what to do about the dead letters of a queue.
func (l *list) advice(name string) string {
	text := number(l.n, "", "dead letter") + "."
	if l.suspect > 0 {
		text += " " + display.Count(l.suspect) + " may be altered, forged or replayed: keep the evidence and find the cause before anything is sent back (docs/runbooks/tampering.md; after a wrong key: docs/runbooks/wrong-key.md)."
	}
	if l.suspect < l.n {
		text += " Once the cause is gone, back to the queue: qrt dlq redrive " + name
	}
	return text
}

func (a *app) dlqShowCommand() *cobra.Command {
	var raw bool
	var l list
	c := &cobra.Command{
		Use:   "show QUEUE MESSAGE-ID",
		Short: "Show one dead letter",
		Long: `Show shows a dead letter and its reason; with its body, and what its handler failed
with, if --keys has the keys and they open. The beginning of a message ID is enough
if no other begins so. With --envelope it writes the stored bytes as they are, for
qrt inspect or qrt open.`,
		Example: example(`
			qrt dlq show task-tactician delivery-42
			qrt dlq show task-tactician delivery-42 --envelope | qrt inspect`),
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if raw {
				return a.dlqEnvelope(cmd.Context(), args[0], args[1])
			}
			l.a = a
			return a.dlqShow(cmd.Context(), args[0], args[1], l)
		},
	}
	c.Flags().BoolVar(&l.noBody, "no-body", false, "leave the body and the handler's error out")
	c.Flags().BoolVar(&raw, "envelope", false, "write the stored body as it is")
	return c
}

func (a *app) dlqShow(ctx context.Context, name, id string, l list) error {
	return a.withDead(ctx, name, func(_ *connection, d *deadletter.Queue) error {
		found := 0
		full, err := fullID(ctx, d, id)
		if err != nil {
			return err
		}
		for p, err := range d.All(ctx, &deadletter.Filter{MessageIDs: []string{full}}) {
			if err != nil {
				return err
			}
			if found++; found > 1 {
				a.warn(oneOfMany(name, id))
				return nil
			}
			r := newLetterReport(p)
			if l.noBody {
				r = r.withoutBody()
			}
			a.print(r, r.show)
		}
		if found == 0 {
			return noDeadLetter(name, id)
		}
		return nil
	})
}

func noDeadLetter(name, id string) error {
	return nothingf("no dead letter of %q has the message ID %q", display.Safe(name), display.Safe(id))
}

// oneOfMany says that a message ID names several messages: the broker can make copies.
func oneOfMany(name, id string) string {
	return fmt.Sprintf("this is the oldest of several dead letters with this message ID: qrt dlq list %s --id %s --full shows all", name, id)
}

// dlqEnvelope writes the stored body of a dead letter.
func (a *app) dlqEnvelope(ctx context.Context, name, id string) error {
	return a.withDead(ctx, name, func(c *connection, d *deadletter.Queue) error {
		id, err := fullID(ctx, d, id)
		if err != nil {
			return err
		}
		var found *driver.Delivery
		err = c.rawDeadLetters(ctx, name, func(raw iter.Seq2[*driver.Delivery, error]) error {
			for d, err := range raw {
				switch {
				case err != nil:
					return err
				case d.ID == id && found != nil:
					a.warn(oneOfMany(name, id))
					return nil
				case d.ID == id:
					found = d
				}
			}
			return nil
		})
		switch {
		case err != nil:
			return err
		case found == nil:
			return noDeadLetter(name, id)
		case a.settings.json:
			writeJSON(a.Out, struct {
				MessageID string `json:"message_id"`
				Body      []byte `json:"body_base64"`
			}{found.ID, found.Body})
			return nil
		case a.screen.Terminal():
			return usagef("the stored body may be binary: redirect it, or use --json")
		}
		_, err = a.Out.Write(found.Body)
		return err
	})
}

// rawDeadLetters hands the dead letters of a queue to f, as they are stored.
func (c *connection) rawDeadLetters(ctx context.Context, name string, f func(iter.Seq2[*driver.Delivery, error]) error) (err error) {
	q, err := c.broker.Open(ctx, name, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, q.Close(ctx)) }()
	dead, err := q.DeadLetters(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dead.Close(ctx)) }()
	return f(peekAll(ctx, dead))
}
