package cli

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// binding is what an envelope is bound to beside its header: the flags that seal
// and open share.
type binding struct {
	queue       string
	messageID   string
	session     string
	correlation string
	contentType string
	attr        []string
	app         bool
	aad         string
}

func (b *binding) flags(f *pflag.FlagSet) {
	f.StringVar(&b.queue, "queue", "", "`name` of the queue that the message is for")
	f.StringVar(&b.messageID, "message-id", "", "message `ID`")
	f.StringVar(&b.session, "session", "", "session `ID`")
	f.StringVar(&b.correlation, "correlation", "", "correlation `ID`")
	f.StringVar(&b.contentType, "content-type", "", "content `type`")
	f.StringArrayVar(&b.attr, "attr", nil, "attribute as `name=value`; may be repeated")
	f.BoolVar(&b.app, "app", false, "direct use, in its own domain: bind --aad instead of a message")
	f.StringVar(&b.aad, "aad", "", "`file` with the associated data of --app")
}

// check refuses combinations that mean nothing.
func (b *binding) check() error {
	message := b.messageID != "" || b.session != "" || b.correlation != "" || b.contentType != "" || len(b.attr) > 0
	switch {
	case b.app && message:
		return usagef("--app binds --aad, not a message: leave --message-id, --session, --correlation, --content-type and --attr out")
	case !b.app && b.aad != "":
		return usagef("--aad needs --app")
	case !b.app && b.messageID == "":
		return usagef("--message-id is needed: the envelope is bound to it (or use --app)")
	}
	return nil
}

// data is what is authenticated beside the header. bound are the attributes'
// names in the envelope.
func (b *binding) data(attrs map[string]string, bound []string) ([]byte, error) {
	if b.app {
		if b.aad == "" {
			return nil, nil
		}
		return os.ReadFile(b.aad)
	}
	return envelope.AppendContext(nil, &envelope.Context{
		MessageID:     b.messageID,
		SessionID:     b.session,
		ContentType:   b.contentType,
		CorrelationID: b.correlation,
		Attributes:    attrs,
	}, bound)
}

// sealReport is the output of seal --json.
type sealReport struct {
	Envelope []byte `json:"envelope_base64"`
	headerReport
}

func (a *app) sealCommand() *cobra.Command {
	var b binding
	var out string
	var text bool
	var ttl, delay string
	c := &cobra.Command{
		Use:   "seal [FILE]",
		Short: "Seal a body into an envelope",
		Long: `Seal reads a body from a file or standard input, seals it under the current key
of --keys, and writes the envelope. It uses no broker.

The envelope is bound to the queue and to the fields that the flags set: it opens only
with the same. With --app it is bound to --aad instead, in a separate domain, so that
it can never pass for a message.`,
		Example: example(`
			qrt seal --keys file:///etc/qrt/keys.json --queue task-tactician --message-id 42 event.json > event.qre
			qrt seal --queue task-tactician --message-id 42 --attr event=push --base64 event.json
			qrt seal --app --aad context.bin --queue backups dump.sql --out dump.qre`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := b.check(); err != nil {
				return err
			}
			if b.queue == "" {
				return usagef("--queue is needed: the envelope names the queue that it is for")
			}
			body, err := a.readInput(args)
			if err != nil {
				return err
			}
			sealed, err := a.seal(cmd.Context(), &b, body, ttl, delay)
			if err != nil {
				return err
			}
			return a.writeSealed(sealed, out, text)
		},
	}
	b.flags(c.Flags())
	c.Flags().StringVarP(&out, "out", "o", "", "write to this `file`")
	c.Flags().BoolVar(&text, "base64", false, "write base64")
	c.Flags().StringVar(&ttl, "ttl", "", "`duration` after which it expires")
	c.Flags().StringVar(&delay, "delay", "", "`duration` before which it is not to be delivered")
	return c
}

// seal returns the envelope of body.
func (a *app) seal(ctx context.Context, b *binding, body []byte, ttl, delay string) ([]byte, error) {
	attrs, err := attributes(b.attr)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	h := envelope.Header{EncryptedAt: now.UnixMilli(), Origin: b.queue}
	if !b.app { // direct use has no identity; a message is the first of a stream of its own
		h.Stream, h.Sequence = newStream(now), 1
	}
	from := now
	if delay != "" {
		d, err := parseDuration(delay)
		if err != nil || d < 0 {
			return nil, usagef("--delay wants a duration such as 30s")
		}
		from = now.Add(d)
		h.NotBefore = from.UnixMilli()
	}
	if ttl != "" {
		d, err := parseDuration(ttl)
		if err != nil || d <= 0 {
			return nil, usagef("--ttl wants a duration such as 24h")
		}
		h.ExpiresAt = from.Add(d).UnixMilli()
	}
	if h.Bound, err = envelope.BoundNames(attrs); err != nil {
		return nil, usagef("--attr: %w", err)
	}
	data, err := b.data(attrs, h.Bound)
	if err != nil {
		return nil, err
	}
	key, err := a.currentKey(ctx)
	if err != nil {
		return nil, err
	}
	defer key.close()
	if key.Expired(now) {
		return nil, fmt.Errorf("%w: %s expired at %s", keys.ErrExpired, key.ID(), display.Time(key.Expires()))
	}
	sealer, err := envelope.NewSealer(key.Key, string(key.ID()), key.SenderID())
	if err != nil {
		return nil, err
	}
	if b.app {
		return sealer.SealApp(nil, &h, body, data)
	}
	return sealer.Seal(nil, &h, body, data)
}

// newStream opens a stream: 48 bits of Unix milliseconds, and 10 random bytes (qre1,
// Section 2.6).
func newStream(now time.Time) (s [envelope.StreamSize]byte) {
	binary.BigEndian.PutUint64(s[:], uint64(now.UnixMilli())<<16) //nolint:gosec // G115: after 1970
	_, _ = rand.Read(s[6:])                                       // never fails
	return s
}

// writeSealed writes an envelope where it was asked for.
func (a *app) writeSealed(sealed []byte, out string, text bool) error {
	m, err := envelope.Parse(sealed)
	if err != nil {
		return err
	}
	bytes := sealed
	if text {
		bytes = []byte(base64.StdEncoding.EncodeToString(sealed) + "\n")
	}
	switch {
	case out != "":
		if err := replaceFile(out, bytes, 0o644); err != nil { // an envelope is made to be seen
			return err
		}
	case a.settings.json:
	case a.screen.Terminal() && !text:
		return usagef("an envelope is binary: redirect it, or use --out or --base64")
	default:
		_, err := a.Out.Write(bytes)
		return err
	}
	if a.settings.json {
		writeJSON(a.Out, sealReport{sealed, newHeaderReport(&m, headerAuthenticated)})
	}
	return nil
}

// openedReport is the output of open --json.
type openedReport struct {
	payload
	headerReport
}

func (a *app) openCommand() *cobra.Command {
	var b binding
	var out string
	c := &cobra.Command{
		Use:   "open [FILE]",
		Short: "Open an envelope and write its body",
		Long: `Open reads an envelope from a file or standard input, as bytes or in base64,
authenticates it under --keys, and writes the body. It uses no broker.

The flags must be those that the message was sealed with. With --queue the envelope
must be for that queue; without it, for any queue. Open checks neither how old a
message is nor whether it was handled before: receivers do.`,
		Example: example(`
			qrt open --keys file:///etc/qrt/keys.json --queue task-tactician --message-id 42 event.qre
			qrt open --message-id 42 --attr event=push --json event.qre`),
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := b.check(); err != nil {
				return err
			}
			raw, err := a.readInput(args)
			if err != nil {
				return err
			}
			if raw, err = decodeEnvelope(raw); err != nil {
				return err
			}
			body, m, err := a.open(cmd.Context(), &b, raw)
			if err != nil {
				return err
			}
			if out != "" {
				if err := replaceFile(out, body, 0o600); err != nil {
					return err
				}
			}
			r := openedReport{headerReport: newHeaderReport(m, headerAuthenticated)}
			switch {
			case a.settings.json:
				if out == "" {
					r.payload = newPayload(body)
				}
				writeJSON(a.Out, r)
			case out != "":
			case a.screen.Terminal():
				a.screen.Println(display.Block(string(body)))
			default:
				_, err = a.Out.Write(body)
			}
			return err
		},
	}
	b.flags(c.Flags())
	c.Flags().StringVarP(&out, "out", "o", "", "write to this `file`, with mode 0600")
	return c
}

// open returns the body in an envelope.
func (a *app) open(ctx context.Context, b *binding, raw []byte) ([]byte, *envelope.EncryptedMessage, error) {
	attrs, err := attributes(b.attr)
	if err != nil {
		return nil, nil, err
	}
	m, err := envelope.Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	provider, err := a.openKeys(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = provider.Close(ctx) }()
	key, err := provider.GetKey(ctx, keys.ID(m.KeyID))
	if err != nil {
		return nil, nil, err
	}
	data, err := b.data(attrs, m.Bound)
	if err != nil {
		if b.app {
			return nil, nil, err
		}
		return nil, nil, fmt.Errorf("%w: the envelope binds attributes that --attr does not give: see qrt inspect", envelope.ErrAuthenticationFailed)
	}
	o := envelope.NewOpener(nil)
	open := o.Open
	if b.app {
		open = o.OpenApp
	}
	body, err := open(nil, &m, key, data)
	if err != nil {
		return nil, nil, advise(err, "the key, the envelope, or what the flags say of the message is not what it was sealed with")
	}
	if b.queue != "" && m.Origin != b.queue {
		return nil, nil, fmt.Errorf("%w: it is for queue %q", queue.ErrAuthenticationFailed, display.Safe(m.Origin))
	}
	return body, &m, nil
}

var errNoKeys = errors.New("no keys")
