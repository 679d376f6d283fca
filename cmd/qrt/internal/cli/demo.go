package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/brokers"
	"github.com/queue-runtime/queue/cmd/qrt/internal/demo"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/cmd/qrt/internal/webhook"
)

// Defaults of demo.
const (
	demoMessages = 3000
	demoAttempts = 200
)

func (a *app) demoCommand() *cobra.Command {
	var payloads string
	var messages, attempts int
	var yes bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole library at work, attacks included",
		Long: `Demo routes GitHub webhooks to three queues, each with its own key; three bots
receive them. A key is rotated under traffic. Encrypted and plain senders share
queues. Then an attacker who controls the broker tries the whole threat model on
the stored messages. At the end, plaintext is measured beside encrypted.

A record of hashes, which does not use the library, decides what was lost, forged or
delivered. The exit code is 0 only if no message was lost and no forged message was
delivered.

It runs on a temporary SQLite file. --broker names another broker: sqlite://,
mem://, postgres://, sqs://, or emulator://servicebus and emulator://sqs, which it
starts (the latter is fauxqs, in Node; QRT_FAUXQS names the folder in which npm
installed it). On AWS it creates and deletes queues and asks for --yes. In a file or
a schema of PostgreSQL it leaves them, and asks for --yes if there are other queues.
In PostgreSQL the attacker needs the rights of the schema's owner.`,
		Example: example(`
			qrt demo
			qrt demo --payloads testdata/github     # bodies from a folder of .json files
			qrt demo --broker mem:// --messages 300 --json`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if messages < demo.MinMessages {
				return usagef("--messages must be at least %d", demo.MinMessages)
			}
			if attempts < 1 {
				return usagef("--attempts must be at least 1")
			}
			return a.demo(cmd.Context(), payloads, messages, attempts, yes)
		},
	}
	c.Flags().StringVar(&payloads, "payloads", "", "`folder` of webhook bodies, named after their event")
	c.Flags().IntVar(&messages, "messages", demoMessages, "how many webhooks to route")
	c.Flags().IntVar(&attempts, "attempts", demoAttempts, "how often to run each attack")
	c.Flags().BoolVar(&yes, "yes", false, "create queues in an account of a cloud, or in a file that has queues")
	must(c.MarkFlagDirname("payloads"))
	return c
}

func (a *app) demo(ctx context.Context, payloads string, messages, attempts int, yes bool) (err error) {
	var events []webhook.Event
	if payloads != "" {
		if events, err = webhook.Load(payloads); err != nil {
			return usagef("--payloads: %w", err)
		}
	}
	b, err := a.testBroker(ctx, yes)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := b.Close(); err == nil {
			err = cerr
		}
	}()
	if b.Attacker == nil {
		return usagef("the demonstration plays the attacker on what the broker stores, and this one's storage is out of reach: use sqlite://, mem://, postgres://, sqs://, %s or %s", brokers.EmulatorURL, brokers.SQSEmulatorURL)
	}
	begin := time.Now()
	show := &demoShow{a: a, s: a.screen, begin: begin}
	if !a.settings.json {
		show.title(b, messages, payloads)
	}
	r, err := demo.Run(ctx, demo.Config{
		Broker:   demo.NewBroker(b),
		Events:   events,
		Messages: messages,
		Attempts: attempts,
		Logger:   a.logger(),
		Progress: show,
	})
	show.end()
	if err != nil {
		return err
	}
	a.print(r, func(*display.Screen) { show.verdict(r) })
	if !r.OK {
		return errReported
	}
	return nil
}

// demoShow shows a demonstration while it runs.
type demoShow struct {
	a     *app
	s     *display.Screen
	bar   *display.Bar
	begin time.Time
}

// Begin starts the bar of a part.
func (d *demoShow) Begin(title string, total int) {
	d.end()
	if !d.a.settings.json {
		d.bar = d.a.errors.Bar(title, total)
	}
}

// Step moves the bar.
func (d *demoShow) Step(n int) {
	if d.bar != nil {
		d.bar.Add(n)
	}
}

// Done shows a part.
func (d *demoShow) Done(part demo.Part, r *demo.Report) {
	d.end()
	if d.a.settings.json {
		return
	}
	switch part {
	case demo.PartRouter:
		d.router(r)
	case demo.PartRotation:
		d.rotation(r)
	case demo.PartPolicies:
		d.policies(r)
	case demo.PartAttacks:
		d.attacks(r)
	case demo.PartThroughput:
		d.throughput(r)
	}
}

func (d *demoShow) end() {
	if d.bar != nil {
		d.bar.Done()
		d.bar = nil
	}
}

func (d *demoShow) title(b *brokers.Broker, messages int, payloads string) {
	from := "made up"
	if payloads != "" {
		from = "from " + display.Safe(payloads)
	}
	d.s.Printf("%s  %s\n", d.s.Bold("qrt demo"), d.s.Dim(fmt.Sprintf("%s GitHub webhooks (%s) over %s", display.Count(messages), from, b.Title)))
}

func (d *demoShow) router(r *demo.Report) {
	s := d.s
	s.Heading("1  One router, three queues, three bots", "each queue has its own key; the router has its sender key, which opens nothing, each bot the master key")
	var rows [][]string
	for _, q := range r.Router.Queues {
		rows = append(rows, []string{s.Name(q.Name), q.KeyID, q.Sender, display.Count(q.Sent), d.of(q.Received, q.Sent), d.of(q.Encrypted, q.Sent)})
	}
	s.Table(display.Columns("queue", "key", "sender", ">sent", ">received intact", ">encrypted"), rows)
	s.Note(fmt.Sprintf("%s of JSON in %s sessions; %s overtook an earlier one of its session.",
		display.Bytes(r.Router.Bytes), display.Count(r.Sessions), number(r.Overtaken, "none", "message")))
	if len(r.Seen) > 0 {
		s.Printf("  %s %s\n", s.Dim("the bot sees    "), display.Safe(clip(string(r.Opened), 64)))
		s.Printf("  %s %s\n", s.Dim("the broker sees "), display.Safe(clip(dots(r.Seen), 64)))
	}
}

func (d *demoShow) rotation(r *demo.Report) {
	s := d.s
	s.Heading("2  The key changes while messages flow", "")
	o := r.Rotation
	s.Printf("  %s messages: %s under the old key, %s under the new one, %s lost\n",
		display.Count(o.Messages), display.Count(o.OldKey), display.Count(o.NewKey), d.zero(o.Lost))
}

func (d *demoShow) policies(r *demo.Report) {
	s := d.s
	s.Heading("3  A mixed fleet", "one encrypted and one plain sender, one receiver, by its policy")
	var rows [][]string
	for _, p := range r.Policies {
		rows = append(rows, []string{p.Policy, display.Count(p.Encrypted), display.Count(p.PlaintextDelivered), display.Count(p.PlaintextRejected), policyNotes[p.Policy]})
	}
	s.Table(display.Columns("policy", ">encrypted", ">plain, delivered", ">plain, rejected", "how"), rows)
}

var policyNotes = map[string]string{
	"allow":            "marked Encrypted=false, logged as WARN",
	"allow_with_alert": "marked Encrypted=false, logged as ERROR, alert metric",
	"reject":           "dead-lettered as plaintext_rejected, not deleted",
}

func (d *demoShow) attacks(r *demo.Report) {
	s := d.s
	s.Heading("4  The broker is the attacker", "what it did to stored messages, and what became of them")
	d.attackTable(r, stoppedAttacks)
	s.Println()
	s.Println("  " + s.Bold("Let through by design, and marked"))
	d.attackTable(r, allowedAttacks)
}

// attackNotes say what the attacker did, in a few words.
var attackNotes = map[string]string{
	"alter_body":                 "flipped bits of the ciphertext or tag",
	"alter_header":               "changed times, origin, salt, nonce",
	"alter_message_id":           "gave it another message ID",
	"alter_session_id":           "moved it to another session",
	"alter_correlation_id":       "changed the correlation ID",
	"alter_content_type":         "changed the content type",
	"alter_attribute":            "changed or removed an attribute",
	"move_queue":                 "moved it to another queue of the same key",
	"swap_key_id":                "wrote another key's ID into it",
	"forge_version":              "wrote another version into it",
	"strip_marker":               "took the marker off, to pass for plaintext",
	"inject_plaintext":           "slipped plaintext in",
	"replay_in_window":           "copied messages that were handled",
	"replay_after_window":        "brought old messages back",
	"alter_sequence":             "changed sequence, stream, settled or void",
	"unpad":                      "took padding off, or changed its length",
	"forge_sender":               "sealed as another, with a stolen sender key",
	"forge_session_state":        "made up states, with a stolen sender key",
	"two_key_ciphertext":         "built one ciphertext for two keys",
	"flood_key_ids":              "flooded it with made-up key IDs",
	"plaintext_allow":            "plaintext, policy allow: Encrypted=false, WARN",
	"plaintext_allow_with_alert": "plaintext, policy allow_with_alert: Encrypted=false, alert",
	"unbound_attribute_added":    "added an attribute: delivered apart, Unauthenticated",
}

// attackWidth is what the table of attacks needs with its notes.
const attackWidth = 130

// Which attacks a table shows.
const (
	stoppedAttacks = false
	allowedAttacks = true
)

func (d *demoShow) attackTable(r *demo.Report, allowed bool) {
	s := d.s
	var rows [][]string
	for _, x := range r.Attacks {
		if x.Allowed != allowed {
			continue
		}
		mark := s.Good("✓")
		if x.Faults > 0 {
			mark = s.Bad("✗")
		}
		row := []string{mark + " " + x.Name, attackNotes[x.Name], display.Count(x.Attempts)}
		if x.Reason == demo.Inexpressible {
			row = append([]string{s.Dim("- " + x.Name), attackNotes[x.Name], s.Dim("none")}, "", s.Dim("not made"), s.Dim("this broker has no such thing"))
			if allowed {
				row = row[:4]
			}
			rows = append(rows, row)
			continue
		}
		if allowed {
			rows = append(rows, append(row, display.Count(x.Delivered)))
			continue
		}
		became := "dead-lettered"
		switch {
		case x.Refused > 0:
			became = "refused"
		case x.DeadLettered == 0:
			became = "given back"
		case x.Abandoned > 0:
			became = fmt.Sprintf("%d dead-lettered", x.DeadLettered)
		}
		rows = append(rows, append(row, d.zero(x.Delivered), became, x.Reason))
	}
	columns := display.Columns("  attack", "what the broker did", ">tries", ">delivered", "the rest", "as")
	if allowed {
		columns = columns[:4]
	}
	if s.Width() < attackWidth {
		columns = slices.Delete(columns, 1, 2)
		for i := range rows {
			rows[i] = slices.Delete(rows[i], 1, 2)
		}
	}
	s.Table(columns, rows)
}

func (d *demoShow) throughput(r *demo.Report) {
	s := d.s
	t := r.Throughput
	s.Heading("5  What it costs", fmt.Sprintf("bodies of %s on average; sent, received and completed", display.Bytes(t.Bytes)))
	s.Table(display.Columns("", ">messages/s", ">seal", ">open"), [][]string{
		{"plaintext", display.Count(int(t.PlaintextPerSecond)), "", ""},
		{"encrypted", display.Count(int(t.EncryptedPerSecond)), display.Duration(time.Duration(t.SealNS)), display.Duration(time.Duration(t.OpenNS))},
	})
	s.Note(fmt.Sprintf("Encrypted messages took %+.1f %% longer, the median of %d pairs: between %+.1f and %+.1f %% with 95 %% confidence.",
		t.Overhead, t.Pairs, t.OverheadLow, t.OverheadHigh))
	s.Note(fmt.Sprintf("Sealing and opening alone are %.1f %% of an encrypted message's time.", 100*t.Share()))
}

func (d *demoShow) verdict(r *demo.Report) {
	s := d.s
	took := display.Duration(time.Since(d.begin))
	s.Println()
	if r.OK {
		s.Printf("%s  %s\n", s.Good("✓ nothing was lost, and nothing forged was delivered"), s.Dim("("+took+")"))
		return
	}
	s.Printf("%s  %s\n", s.Bad("✗ this is not as it should be"), s.Dim("("+took+")"))
	const maxShown = 20
	for i, f := range r.Faults {
		if i == maxShown {
			s.Printf("  and %d more\n", len(r.Faults)-maxShown)
			break
		}
		s.Printf("  %s\n", display.Safe(f))
	}
}

// of shows how many of a number came.
func (d *demoShow) of(n, all int) string {
	if n == all {
		return d.s.Good(display.Count(n))
	}
	return d.s.Bad(display.Count(n))
}

// zero shows a number that should be none.
func (d *demoShow) zero(n int) string {
	if n == 0 {
		return d.s.Good("0")
	}
	return d.s.Bad(display.Count(n))
}

func number(n int, none, one string) string {
	switch n {
	case 0:
		return none
	case 1:
		return "1 " + one
	}
	return display.Count(n) + " " + one + "s"
}

func clip(text string, width int) string {
	if r := []rune(text); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return text
}

// dots shows bytes as a hex viewer does: what is no printable ASCII is a dot.
func dots(b []byte) string {
	out := make([]byte, len(b))
	for i, c := range b {
		if c < 0x20 || c > 0x7e {
			c = '.'
		}
		out[i] = c
	}
	return string(out)
}
