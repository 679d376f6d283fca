package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/keys"
)

// openedKey is a key with its provider.
type openedKey struct {
	*keys.Key
	provider *keys.Cached
}

func (k *openedKey) close() { _ = k.provider.Close(context.Background()) } // nothing was written

// openKeys opens --keys, or fails with what to do if there are none.
func (a *app) openKeys(ctx context.Context) (*keys.Cached, error) {
	if a.settings.keys.value == "" {
		return nil, advise(usagef("%w: name some with --keys URL", errNoKeys), "make a key file: qrt keys new")
	}
	return a.openKeysAt(ctx, a.settings.keys)
}

func (a *app) openKeysAt(ctx context.Context, s setting) (*keys.Cached, error) {
	p, err := connect.OpenKeys(ctx, s.value)
	if err != nil {
		if !strings.Contains(s.value, "://") && !strings.HasPrefix(s.value, "file:") {
			return nil, usagef("%s is no URL of keys (its value is not shown): use file:///path, folder:///path or env://PREFIX; if it holds keys themselves, give them a variable of another name", s.source)
		}
		return nil, err
	}
	return p, nil
}

// currentKey is the key to seal with.
func (a *app) currentKey(ctx context.Context) (*openedKey, error) {
	p, err := a.openKeys(ctx)
	if err != nil {
		return nil, err
	}
	id, err := p.CurrentKeyID(ctx)
	if err == nil {
		var k *keys.Key
		if k, err = p.GetKey(ctx, id); err == nil {
			return &openedKey{k, p}, nil
		}
	}
	_ = p.Close(ctx) // the first error is the one that tells
	return nil, err
}

// keyFileJSON is a key file with one key.
type keyFileJSON struct {
	Current keys.ID      `json:"current"`
	Keys    []keyFileKey `json:"keys"`
}

type keyFileKey struct {
	ID      keys.ID    `json:"id"`
	Secret  []byte     `json:"secret"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

// keygenReport is the output of keygen --out FILE --json.
type keygenReport struct {
	ID      keys.ID    `json:"id"`
	File    string     `json:"file"`
	Created time.Time  `json:"created"`
	Expires *time.Time `json:"expires,omitempty"`
}

func (a *app) keygenCommand() *cobra.Command {
	var id, out, format, expires string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key",
		Long: `Keygen makes a key of 256 random bits and writes it as a key file, to --out or to
standard output. It never replaces a file, and stores the key nowhere else.

To make keys for daily use, and to rotate them, see qrt keys.`,
		Example: example(`
			qrt keygen --id task-tactician-2026-01 --out keys.json
			qrt keygen --format base64 | az keyvault secret set --vault-name V --name task-tactician-2026-01 --file /dev/stdin
			export BOT_KEYS="$(qrt keygen --id bot-1 --format env)"`),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.keygen(id, out, format, expires)
		},
	}
	c.Flags().StringVar(&id, "id", "", "key `ID` (default: the date and four random characters)")
	c.Flags().StringVarP(&out, "out", "o", "", "write to this `file`, with mode 0600")
	c.Flags().StringVar(&format, "format", "file", "file (a key file), env (id=base64), base64, or raw (32 bytes)")
	c.Flags().StringVar(&expires, "expires", "", "`duration` after which it seals no more, such as 90d (default: never)")
	must(c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"file", "env", "base64", "raw"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (a *app) keygen(id, out, format, expires string) error {
	now := time.Now().UTC().Truncate(time.Second)
	if id == "" {
		id = newKeyID(now)
	}
	if err := keys.ID(id).Validate(); err != nil {
		return usagef("--id: %w", err)
	}
	end, err := expiry(expires, now)
	if err != nil {
		return err
	}
	secret := make([]byte, keys.Size)
	defer clear(secret)
	_, _ = rand.Read(secret) // never fails (crypto/rand)
	text, err := encodeKey(keyFileKey{keys.ID(id), secret, now, end}, format)
	if err != nil {
		return err
	}
	defer clear(text)
	if out == "" {
		if _, err := a.Out.Write(text); err != nil {
			return err
		}
		a.warnExposed()
		return nil
	}
	if err := writeNew(out, text); err != nil {
		return err
	}
	a.print(keygenReport{keys.ID(id), out, now, end}, func(s *display.Screen) {
		s.Printf("%s key %s in %s\n", s.Good("✓"), s.Name(id), out)
	})
	return nil
}

// newKeyID names a key after its day, which is what people look for in it.
func newKeyID(now time.Time) string {
	return now.Format("2006-01-02") + "-" + strings.ToLower(rand.Text()[:4])
}

// expiry reads --expires.
func expiry(text string, now time.Time) (*time.Time, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // never is an answer
	}
	d, err := parseDuration(text)
	if err != nil || d <= 0 {
		return nil, usagef("--expires wants a duration such as 90d")
	}
	end := now.Add(d)
	return &end, nil
}

// encodeKey writes a key as the format has it. The caller clears it.
func encodeKey(k keyFileKey, format string) ([]byte, error) {
	switch format {
	case "raw":
		return bytes.Clone(k.Secret), nil
	case "base64", "env":
		var b []byte
		if format == "env" {
			b = append(b, k.ID...)
			b = append(b, '=')
		}
		b = base64.StdEncoding.AppendEncode(b, k.Secret)
		return append(b, '\n'), nil
	case "file":
		b, err := json.MarshalIndent(keyFileJSON{k.ID, []keyFileKey{k}}, "", "  ")
		return append(b, '\n'), err
	}
	return nil, usagef("--format is one of file, env, base64, raw")
}

// writeNew writes a file that must not exist yet, with mode 0600.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(path) // half a key is none
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// warnExposed warns if standard output is a file that others may read.
func (a *app) warnExposed() {
	f, ok := a.out.Unwrap().(*os.File)
	if !ok || runtime.GOOS == "windows" {
		return
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		a.warn("others can read the file that this key went to: chmod 600 it, or use --out")
	}
}
