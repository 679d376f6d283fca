package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/keys"
)

// oldKey is from which age on a key is due for rotation: what the alert rules of
// this project have, too.
const oldKey = 90 * 24 * time.Hour

func (a *app) keysCommand() *cobra.Command {
	return group("keys", "Make, list, rotate, audit and retire keys",
		`Keys seal and open messages. To rotate with nothing lost:

  1. qrt keys new         where receivers read their keys: they can open what comes
  2. qrt keys rotate --to where senders read theirs: they seal with it
  3. qrt keys audit       until nothing waits or lies dead that needs the old one
  4. qrt keys retire      everywhere

Where senders and receivers read one file, rotate does steps 1 and 2 at once.
new, rotate, retire and sender-key work on a key file (file://); all else on any
--keys.

A sender needs no master key: qrt keys sender-key makes it one of its own, which
neither opens nor forges what other senders seal.`,
		a.keysNewCommand(), a.keysSenderCommand(), a.keysListCommand(), a.keysRotateCommand(), a.keysRetireCommand(), a.keysAuditCommand())
}

// keyReport is a key as lists show it: never its secret.
type keyReport struct {
	ID      keys.ID    `json:"id"`
	Sender  string     `json:"sender,omitempty"` // of a sender key; empty for a master key
	Current bool       `json:"current"`
	Created *time.Time `json:"created,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	Expired bool       `json:"expired"`
	Queues  []string   `json:"queues,omitempty"` // that it is for; empty for any
}

// keysReport is the output of keys list --json.
type keysReport struct {
	Current keys.ID     `json:"current"`
	Keys    []keyReport `json:"keys"`
}

// keyChange is the output of keys new, rotate and retire with --json.
type keyChange struct {
	File     string  `json:"file"`
	Added    keys.ID `json:"added,omitempty"`
	Removed  keys.ID `json:"removed,omitempty"`
	Previous keys.ID `json:"previous,omitempty"` // current before
	Current  keys.ID `json:"current"`
}

// keyFile is the key file to change. The default is this user's file.
func (a *app) keyFile() (string, error) {
	s := a.settings.keys
	if s.value == "" {
		return defaultKeyFile()
	}
	if path, err := connect.KeyFile(s.value); err == nil {
		return path, nil
	}
	scheme, _, ok := strings.Cut(s.value, "://")
	if !ok {
		return "", usagef("%s is no URL of keys (its value is not shown)", s.source)
	}
	return "", usagef("this command changes a key file (file://); keys in %s:// are changed with the tools of their own", display.Safe(scheme))
}

// change changes the key file.
func (a *app) change(path string, f func(*keys.Set, *keyChange) error) (keyChange, error) {
	c := keyChange{File: path}
	err := keys.UpdateFile(path, func(s *keys.Set) error {
		if err := f(s, &c); err != nil {
			return err
		}
		c.Current = s.Current
		return nil
	})
	return c, err
}

// generate adds a new key to a set.
func generate(s *keys.Set, id, expires string) (*keys.Key, error) {
	now := time.Now().UTC().Truncate(time.Second)
	if id == "" {
		id = newKeyID(now)
	}
	if err := keys.ID(id).Validate(); err != nil {
		return nil, usagef("--id: %w", err)
	}
	if slices.ContainsFunc(s.Keys, func(k *keys.Key) bool { return k.ID() == keys.ID(id) }) {
		return nil, usagef("key %q is there already: give a new key a new ID", id)
	}
	end, err := expiry(expires, now)
	if err != nil {
		return nil, err
	}
	o := &keys.Options{Created: now}
	if end != nil {
		o.Expires = *end
	}
	k, err := keys.Generate(keys.ID(id), o)
	if err != nil {
		return nil, err
	}
	s.Keys = append(s.Keys, k)
	return k, nil
}

func (a *app) keysNewCommand() *cobra.Command {
	var id, expires string
	c := &cobra.Command{
		Use:   "new",
		Short: "Add a key to a key file, or make the file",
		Long: `New adds a key to the key file. Receivers can then open messages under it. Senders
seal under it only if it is the first key; to change that key, use qrt keys rotate.`,
		Example: example(`
			qrt keys new
			qrt keys new --keys file:///etc/router/task-tactician.json --id task-tactician-2026-02 --expires 180d`),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.keysNew(id, expires) },
	}
	c.Flags().StringVar(&id, "id", "", "key `ID` (default: the date and four random characters)")
	c.Flags().StringVar(&expires, "expires", "", "`duration` after which it seals no more, such as 180d (default: never)")
	return c
}

func (a *app) keysNew(id, expires string) error {
	path, err := a.keyFile()
	if err != nil {
		return err
	}
	if a.settings.keys.value == "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	c, err := a.change(path, func(s *keys.Set, c *keyChange) error {
		k, err := generate(s, id, expires)
		if err != nil {
			return err
		}
		c.Added, c.Previous = k.ID(), s.Current
		if len(s.Keys) == 1 {
			s.Current = k.ID()
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.print(c, func(s *display.Screen) {
		s.Printf("%s key %s added to %s\n", s.Good("✓"), s.Name(string(c.Added)), display.Safe(path))
		if c.Current == c.Added {
			s.Note("It is the current key: messages are sealed under it from now on.")
		} else {
			s.Note(fmt.Sprintf("Messages are still sealed under %s. Once every receiver has the new key: qrt keys rotate --to %s", c.Current, c.Added))
		}
	})
	return nil
}

func (a *app) keysListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List keys, never their secrets",
		Example: example(`qrt keys list --keys file:///etc/router/keys.json --json`),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.keysList(cmd.Context())
		},
	}
}

func (a *app) keysList(ctx context.Context) error {
	p, err := a.openKeys(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close(ctx) }() // nothing was written
	r, err := listKeys(ctx, p)
	if err != nil {
		return err
	}
	if len(r.Keys) == 0 {
		return nothingf("there are no keys")
	}
	a.print(r, func(s *display.Screen) { r.show(s) })
	return nil
}

// listKeys asks a provider for all its keys.
func listKeys(ctx context.Context, p keys.Provider) (*keysReport, error) {
	r := &keysReport{Keys: []keyReport{}}
	ids, err := p.ValidKeyIDs(ctx)
	if err != nil {
		return nil, err
	}
	current, err := p.CurrentKeyID(ctx)
	if err != nil && !errors.Is(err, keys.ErrNotFound) {
		return nil, err
	}
	r.Current = current
	slices.Sort(ids)
	now := time.Now()
	for _, id := range ids {
		k, err := p.GetKey(ctx, id)
		if err != nil {
			return nil, err
		}
		r.Keys = append(r.Keys, keyReport{
			ID: id, Sender: k.SenderID(), Current: id == current, Created: instant(k.Created()), Expires: instant(k.Expires()),
			Expired: k.Expired(now), Queues: k.Queues(),
		})
	}
	return r, nil
}

func (r *keysReport) show(s *display.Screen) {
	now := time.Now()
	var rows [][]string
	for _, k := range r.Keys {
		role := "opens"
		switch {
		case k.Sender != "" && k.Current:
			role = s.Good("seals as " + display.Safe(k.Sender))
		case k.Sender != "":
			role = "sender key of " + display.Safe(k.Sender)
		case k.Current:
			role = s.Good("seals and opens")
		}
		age, end := "-", "never"
		if k.Created != nil {
			age = display.Age(*k.Created, now)
			if k.Current && now.Sub(*k.Created) > oldKey {
				age = s.Warn(age)
			}
		}
		if k.Expires != nil {
			end = relative(*k.Expires, now)
			if k.Expired {
				end = s.Bad(end)
			}
		}
		rows = append(rows, []string{s.Name(display.Safe(string(k.ID))), role, age, end})
	}
	s.Table(display.Columns("key", "use", ">age", ">seals until"), rows)
	if r.Current == "" {
		s.Note("No key is current: nothing can be sealed. See qrt keys rotate.")
	}
}

func (a *app) keysRotateCommand() *cobra.Command {
	var id, to, expires string
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Seal with a new key from now on",
		Long: `Rotate adds a key to the key file and makes it the key to seal with, in one step. That
is safe if senders and receivers read the same file; they notice the change within a
second. If they read different files, add the key to the receivers' files first (qrt
keys new), then make it current in the senders' files with --to.

The old key stays, and opens the messages that were sealed under it, until qrt keys
retire.`,
		Example: example(`
			qrt keys rotate
			qrt keys rotate --to task-tactician-2026-02`),
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if to != "" && (id != "" || expires != "") {
				return usagef("--to makes a key current that is there: leave --id and --expires out")
			}
			return a.keysRotate(id, to, expires)
		},
	}
	c.Flags().StringVar(&id, "id", "", "`ID` of the new key (default: the date and four random characters)")
	c.Flags().StringVar(&to, "to", "", "make the existing key of this `ID` current")
	c.Flags().StringVar(&expires, "expires", "", "`duration` after which the new key seals no more, such as 180d (default: never)")
	must(c.RegisterFlagCompletionFunc("to", a.completeKeys))
	return c
}

func (a *app) keysRotate(id, to, expires string) error {
	path, err := a.keyFile()
	if err != nil {
		return err
	}
	c, err := a.change(path, func(s *keys.Set, c *keyChange) error {
		c.Previous = s.Current
		if to == "" {
			if len(s.Keys) == 0 {
				return advise(nothingf("there is no key file %s to rotate in", display.Safe(path)), "make one: qrt keys new")
			}
			k, err := generate(s, id, expires)
			if err != nil {
				return err
			}
			c.Added, s.Current = k.ID(), k.ID()
			return nil
		}
		i := slices.IndexFunc(s.Keys, func(k *keys.Key) bool { return k.ID() == keys.ID(to) })
		switch {
		case i < 0:
			return nothingf("there is no key %q in %s", display.Safe(to), display.Safe(path))
		case s.Keys[i].Expired(time.Now()):
			return fmt.Errorf("%w: key %q no longer seals", keys.ErrExpired, to)
		}
		s.Current = s.Keys[i].ID()
		return nil
	})
	if err != nil {
		return err
	}
	a.print(c, func(s *display.Screen) {
		if c.Previous == c.Current {
			s.Printf("%s key %s was current already\n", s.Good("✓"), s.Name(string(c.Current)))
			return
		}
		s.Printf("%s messages are sealed under %s from now on\n", s.Good("✓"), s.Name(string(c.Current)))
		if c.Previous != "" {
			s.Note(fmt.Sprintf("%s still opens what was sealed under it. When nothing needs it any more (qrt keys audit): qrt keys retire %s", c.Previous, c.Previous))
		}
	})
	return nil
}

// completeKeys gives the shell the IDs of the keys at hand.
func (a *app) completeKeys(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if a.settings.resolve(cmd.Flags()) != nil || a.settings.keys.value == "" {
		return nil, none
	}
	p, err := connect.OpenKeys(cmd.Context(), a.settings.keys.value)
	if err != nil {
		return nil, none
	}
	defer func() { _ = p.Close(cmd.Context()) }() // nothing was written
	ids, err := p.ValidKeyIDs(cmd.Context())
	if err != nil {
		return nil, none
	}
	var list []string
	for _, id := range ids {
		list = append(list, string(id))
	}
	return list, none
}
