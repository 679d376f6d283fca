package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"mime"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/sessionkey"
)

// sendOptions are the flags of send.
type sendOptions struct {
	id, session, correlation, contentType string
	sessionBy                             []string
	attr                                  []string
	delay, ttl                            string
	lines, plain, allowEmpty              bool
	batch                                 int
}

// sendReport is the output of send --json.
type sendReport struct {
	Queue     string       `json:"queue"`
	Sent      int          `json:"sent"`
	Failed    int          `json:"failed"`
	Bytes     int64        `json:"bytes"`
	Encrypted bool         `json:"encrypted"`
	KeyID     keys.ID      `json:"key_id,omitempty"`
	Messages  []sentReport `json:"messages"`
	// LeftOut is how many messages Messages does not show: it has at most maxSent of those
	// that were sent and maxSent of those that failed.
	LeftOut int `json:"messages_left_out,omitempty"`

	failures int  // in Messages
	all      bool // Messages has those that were sent, too
}

// maxSent bounds the messages of a sendReport, of each kind.
const maxSent = 1000

// sentReport is one message of a sendReport.
type sentReport struct {
	MessageID string `json:"message_id"`
	BrokerID  string `json:"broker_id,omitempty"`
	Source    string `json:"source,omitempty"`
	Error     string `json:"error,omitempty"`
}

func (a *app) sendCommand() *cobra.Command {
	var o sendOptions
	c := &cobra.Command{
		Use:   "send QUEUE [FILE|FOLDER...]",
		Short: "Send messages, sealed if there are keys",
		Long: `Send sends standard input, or each file, or each file of a folder, as one message;
with --lines, each line. It returns when the broker has confirmed that it holds
them. It never sends the files that it uses itself: keys, queues and replay stores.
An empty standard input is refused, because it is more often the output of a command
that failed; --allow-empty sends it as a message without a body.

With --keys (or a key file of this user: qrt keys new) messages are sealed under
the current key. Without, they go in plaintext, with a warning.

With --json, "messages" shows at most the first 1,000 that were sent and the first
1,000 that failed, and "messages_left_out" counts the others.`,
		Example: example(`
			echo '{"action":"opened"}' | qrt send task-tactician
			qrt send task-tactician --session-by repository.full_name --session-by 'number|issue.number' hooks/
			qrt send spec-sentinel --lines --ttl 24h < events.jsonl
			qrt send task-tactician --id delivery-42 --attr event=push --delay 10m event.json`),
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.send(cmd.Context(), &o, args[0], args[1:])
		},
	}
	f := c.Flags()
	f.StringVar(&o.id, "id", "", "message `ID`, for one message (default: a random one)")
	f.StringVar(&o.session, "session", "", "session `ID`: messages of one session stay in order")
	f.StringArrayVar(&o.sessionBy, "session-by", nil, "JSON `field` of the body that is the session, or @attribute; a|b is the first there is; several are joined")
	f.StringVar(&o.correlation, "correlation", "", "correlation `ID`")
	f.StringVar(&o.contentType, "content-type", "", "content `type` (default: by the file's name)")
	f.StringArrayVar(&o.attr, "attr", nil, "attribute as `name=value`; may be repeated")
	f.StringVar(&o.delay, "delay", "", "`duration` before it may be delivered")
	f.StringVar(&o.ttl, "ttl", "", "`duration` for which it may be delivered")
	f.BoolVar(&o.lines, "lines", false, "each line is a message")
	f.BoolVar(&o.allowEmpty, "allow-empty", false, "send standard input also if it is empty")
	f.BoolVar(&o.plain, "plaintext", false, "do not seal, although there are keys")
	f.IntVar(&o.batch, "batch", 0, "messages a call to the broker (default: as many as it takes, up to 100)")
	c.MarkFlagsMutuallyExclusive("session", "session-by")
	c.MarkFlagsMutuallyExclusive("lines", "id")
	return c
}

func (a *app) send(ctx context.Context, o *sendOptions, name string, paths []string) error {
	template, err := o.template()
	if err != nil {
		return err
	}
	sources, total, err := a.sources(paths, o)
	if err != nil {
		return err
	}
	if o.id != "" && total != 1 {
		return usagef("--id is for one message, and there are %d", total)
	}
	strategy, err := o.strategy()
	if err != nil {
		return err
	}
	next, stop := iter.Pull2(sources)
	defer stop()
	r := sendReport{Queue: name, Messages: []sentReport{}, all: a.settings.json}
	w := sending{report: &r, template: template, next: next}
	err = w.run(ctx, a, o, name, strategy, total)
	if r.Sent+r.Failed > 0 {
		a.print(r, func(s *display.Screen) { r.show(s) })
		if !r.Encrypted && r.Sent > 0 && !o.plain {
			a.warn("sent WITHOUT encryption: the broker can read and change it. Make a key with: qrt keys new")
		}
	}
	if err == nil && r.Failed > 0 {
		return fmt.Errorf("%d of %d messages were not sent", r.Failed, r.Failed+r.Sent)
	}
	return err
}

// template is what the flags say of every message.
func (o *sendOptions) template() (*queue.Message, error) {
	attrs, err := attributes(o.attr)
	if err != nil {
		return nil, err
	}
	m := &queue.Message{ID: o.id, SessionID: o.session, CorrelationID: o.correlation, ContentType: o.contentType, Attributes: attrs}
	if o.delay != "" {
		d, err := parseDuration(o.delay)
		if err != nil || d < 0 {
			return nil, usagef("--delay wants a duration such as 10m")
		}
		m.NotBefore = time.Now().Add(d)
	}
	if o.ttl != "" {
		if m.TTL, err = parseDuration(o.ttl); err != nil || m.TTL <= 0 {
			return nil, usagef("--ttl wants a duration such as 24h")
		}
	}
	if o.batch < 0 {
		return nil, usagef("--batch is negative")
	}
	return m, nil
}

// strategy is how --session-by makes a session: the parts are joined; each is
// the first of its alternatives, separated by |, that the message has; @ begins
// the name of an attribute, and all else is a path in the body.
func (o *sendOptions) strategy() (sessionkey.Strategy, error) {
	if len(o.sessionBy) == 0 {
		return nil, nil //nolint:nilnil // no strategy is an answer
	}
	var parts sessionkey.Composite
	for _, part := range o.sessionBy {
		var alternatives sessionkey.Fallback
		for text := range strings.SplitSeq(part, "|") {
			if name, ok := strings.CutPrefix(text, "@"); ok {
				alternatives = append(alternatives, sessionkey.Attribute(name))
			} else {
				alternatives = append(alternatives, sessionkey.Field(text))
			}
		}
		if len(alternatives) == 1 {
			parts = append(parts, alternatives[0])
		} else {
			parts = append(parts, alternatives)
		}
	}
	var s sessionkey.Strategy = parts
	if len(parts) == 1 {
		s = parts[0]
	}
	if err := sessionkey.Validate(s); err != nil {
		return nil, usagef("--session-by: %w", err)
	}
	return s, nil
}

// send sends a batch and notes what became of it.
func (r *sendReport) send(ctx context.Context, s *queue.Sender, template *queue.Message, pending []source) error {
	messages := make([]*queue.Message, len(pending))
	for i := range pending {
		messages[i] = pending[i].message(template)
	}
	results, err := s.SendBatch(ctx, messages)
	for i, x := range results {
		r.add(x, &pending[i])
	}
	var some *queue.BatchError
	if errors.As(err, &some) && some.Failed < some.Total {
		return nil // the report says which
	}
	return err
}

// add counts what became of a message.
func (r *sendReport) add(x queue.SendResult, of *source) {
	sent := sentReport{MessageID: x.MessageID, BrokerID: x.BrokerID, Source: of.name}
	if x.Err != nil {
		sent.Error = x.Err.Error()
		r.Failed++
	} else {
		r.Sent++
		r.Bytes += int64(len(of.body))
		r.Encrypted, r.KeyID = x.Encrypted, x.KeyID
	}
	r.note(sent)
}

// note keeps what became of a message, if it is to be shown: for a person the failures,
// and the first message, which has its line if it is the only one.
func (r *sendReport) note(m sentReport) {
	switch {
	case m.Error != "" && r.failures < maxSent:
		r.failures++
	case m.Error == "" && (r.all && len(r.Messages)-r.failures < maxSent || r.Sent == 1):
	default:
		r.LeftOut++
		return
	}
	r.Messages = append(r.Messages, m)
}

func (r *sendReport) show(s *display.Screen) {
	for _, m := range r.Messages {
		if m.Error != "" {
			s.Printf("%s %s %s\n", s.Bad("✗"), display.Safe(m.Source), display.Safe(m.Error))
		}
	}
	if left := r.Failed - r.failures; left > 0 {
		s.Printf("%s and %s more\n", s.Bad("✗"), display.Count(left))
	}
	if r.Sent == 0 {
		return
	}
	how := s.Warn("in plaintext")
	if r.Encrypted {
		how = "sealed under key " + s.Name(string(r.KeyID))
	}
	what := display.Count(r.Sent) + " messages"
	if r.Sent == 1 {
		what = "message " + display.Safe(r.sentID())
	}
	s.Printf("%s %s sent to %s, %s (%s)\n", s.Good("✓"), what, s.Name(display.Safe(r.Queue)), how, display.Bytes(r.Bytes))
}

// sentID is the ID of the first message that was sent.
func (r *sendReport) sentID() string {
	for _, m := range r.Messages {
		if m.Error == "" {
			return m.MessageID
		}
	}
	return ""
}

// contentType guesses a media type by the name of a file.
func contentType(name string) string {
	t, _, _ := strings.Cut(mime.TypeByExtension(filepath.Ext(name)), ";")
	return t
}
