package cli

import (
	"encoding/hex"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/envelope"
)

// headerReport is an envelope's header. It is authentic only if Authenticated
// is set.
type headerReport struct {
	Version         int        `json:"version"`
	KeyID           string     `json:"key_id"`
	Origin          string     `json:"origin"`
	EncryptedAt     time.Time  `json:"encrypted_at"`
	NotBefore       *time.Time `json:"not_before,omitempty"`
	ExpiresAt       *time.Time `json:"expires_at,omitempty"`
	Bound           []string   `json:"bound_attributes"`
	Salt            string     `json:"salt"`
	Commitment      string     `json:"commitment"`
	Nonce           string     `json:"nonce"`
	Tag             string     `json:"tag"`
	Size            int        `json:"size"`
	CiphertextBytes int        `json:"ciphertext_bytes"`
	Authenticated   bool       `json:"authenticated"`
}

// What is known of a header.
const (
	headerRead          = false // from cleartext
	headerAuthenticated = true
)

func newHeaderReport(m *envelope.EncryptedMessage, authenticated bool) headerReport {
	r := headerReport{
		Version:         envelope.Version1,
		KeyID:           m.KeyID,
		Origin:          m.Origin,
		EncryptedAt:     time.UnixMilli(m.EncryptedAt).UTC(),
		Bound:           m.Bound,
		Salt:            hex.EncodeToString(m.Salt[:]),
		Commitment:      hex.EncodeToString(m.Commitment[:]),
		Nonce:           hex.EncodeToString(m.Nonce[:]),
		Tag:             hex.EncodeToString(m.Tag[:]),
		Size:            len(m.Bytes()),
		CiphertextBytes: len(m.Ciphertext),
		Authenticated:   authenticated,
	}
	if r.Bound == nil {
		r.Bound = []string{}
	}
	for _, t := range []struct {
		ms   int64
		into **time.Time
	}{{m.NotBefore, &r.NotBefore}, {m.ExpiresAt, &r.ExpiresAt}} {
		if t.ms != 0 {
			at := time.UnixMilli(t.ms).UTC()
			*t.into = &at
		}
	}
	return r
}

func (r *headerReport) show(s *display.Screen) {
	row := func(name, value, note string) {
		s.Printf("  %s  %s", s.Dim(label(name)), value)
		if note != "" {
			s.Printf("  %s", s.Dim(note))
		}
		s.Println()
	}
	now := time.Now()
	row("format", "QRE1 version 1", "")
	row("key", s.Name(display.Safe(r.KeyID)), "")
	row("origin", s.Name(display.Safe(r.Origin)), "the queue that it was sealed for")
	row("encrypted", display.Time(r.EncryptedAt), relative(r.EncryptedAt, now))
	if r.NotBefore != nil {
		row("not before", display.Time(*r.NotBefore), relative(*r.NotBefore, now))
	}
	if r.ExpiresAt != nil {
		row("expires", display.Time(*r.ExpiresAt), relative(*r.ExpiresAt, now))
	}
	bound := make([]string, len(r.Bound))
	for i, name := range r.Bound {
		bound[i] = display.Safe(name)
	}
	switch len(bound) {
	case 0:
		row("attributes", "none", "")
	default:
		row("attributes", strings.Join(bound, ", "), "bound by name and value; the values travel beside the envelope")
	}
	row("salt", r.Salt, "")
	row("commitment", r.Commitment, "")
	row("nonce", r.Nonce, "")
	row("tag", r.Tag, "")
	row("size", display.Count(r.Size)+" bytes", display.Count(r.CiphertextBytes)+" of them ciphertext")
}

// labelWidth is how wide labels in front of values are.
const labelWidth = 12

// label fills a label up with spaces.
func label(text string) string {
	if n := labelWidth - len([]rune(text)); n > 0 {
		return text + strings.Repeat(" ", n)
	}
	return text
}

// relative says how far t is from now.
func relative(t, now time.Time) string {
	switch d := t.Sub(now).Round(time.Second); {
	case d > 0:
		return "in " + display.Duration(d)
	case d == 0:
		return "now"
	default:
		return display.Duration(-d) + " ago"
	}
}

func (a *app) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect [FILE]",
		Short: "Show the header of an envelope, without a key",
		Long: `Inspect reads an envelope from a file or standard input, as bytes or in base64,
and shows its header. It needs no key and no broker.

The header is not authenticated: the broker can have changed it. Use qrt open to
authenticate an envelope.`,
		Example: example(`
			qrt inspect message.qre
			qrt dlq show task-tactician MESSAGE-ID --envelope | qrt inspect`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := a.readInput(args)
			if err != nil {
				return err
			}
			if b, err = decodeEnvelope(b); err != nil {
				return err
			}
			m, err := envelope.Parse(b)
			if err != nil {
				return err
			}
			r := newHeaderReport(&m, headerRead)
			a.print(r, func(s *display.Screen) {
				r.show(s)
				s.Note("Read from cleartext and not authenticated: qrt open does that.")
			})
			return nil
		},
	}
}
