package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/keys"
)

// senderKeyReport is the output of keys sender-key --json.
type senderKeyReport struct {
	ID     keys.ID `json:"id"`
	Sender string  `json:"sender"`
	File   string  `json:"file"`
}

func (a *app) keysSenderCommand() *cobra.Command {
	var sender, key, out string
	c := &cobra.Command{
		Use:   "sender-key",
		Short: "Make the key of one sender out of a master key",
		Long: `Sender-key derives the key of one sender from a master key of --keys, and adds it to
the key file --out, which it makes with mode 0600 if there is none. A program with
that file seals as the sender. It opens nothing that another sender sealed, and
cannot seal as another. Receivers need no change: the master key opens it all.

The key keeps the ID, the expiry and the queues of its master key, and is the
current one of the file. After a rotation of the master key, make it anew.

For Secrets Manager or Key Vault, store the entry of the file under "keys" as the
value of a secret.`,
		Example: example(`
			qrt keys sender-key --sender webhook-router --out router.json
			qrt keys sender-key --sender webhook-router --key task-tactician-2026-02 --out router.json`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.keysSender(cmd, sender, keys.ID(key), out)
		},
	}
	c.Flags().StringVar(&sender, "sender", "", "`ID` of the sender, 1 to 64 of [A-Za-z0-9._:/-] (required)")
	c.Flags().StringVar(&key, "key", "", "`ID` of the master key (default: the current one)")
	c.Flags().StringVarP(&out, "out", "o", "", "key `file` to make or to add to (required)")
	must(c.RegisterFlagCompletionFunc("key", a.completeKeys))
	return c
}

func (a *app) keysSender(cmd *cobra.Command, sender string, id keys.ID, out string) error {
	if sender == "" || out == "" {
		return usagef("name the sender with --sender and the file with --out")
	}
	if err := keys.ID(sender).Validate(); err != nil {
		return usagef("--sender: %w", err)
	}
	ctx := cmd.Context()
	p, err := a.openKeys(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close(ctx) }() // nothing was written
	if id == "" {
		if id, err = p.CurrentKeyID(ctx); err != nil {
			return err
		}
	}
	master, err := p.GetKey(ctx, id)
	if err != nil {
		return err
	}
	own, err := master.Sender(sender)
	if err != nil {
		return err
	}
	defer own.Destroy()
	_, err = a.change(out, func(s *keys.Set, _ *keyChange) error {
		for _, k := range s.Keys {
			if k.SenderID() == "" {
				return usagef("%s has the master key %q: name a file that only the sender reads", display.Safe(out), k.ID())
			}
			if k.SenderID() != sender {
				return usagef("%s has a key of the sender %q: each sender has a file of its own", display.Safe(out), display.Safe(k.SenderID()))
			}
		}
		s.Keys = append(slices.DeleteFunc(s.Keys, func(k *keys.Key) bool { return k.ID() == id }), own)
		s.Current = id
		return nil
	})
	if err != nil {
		return err
	}
	a.print(senderKeyReport{id, sender, out}, func(s *display.Screen) {
		s.Printf("%s key %s of sender %s in %s\n", s.Good("✓"), s.Name(string(id)), s.Name(sender), display.Safe(out))
		s.Note(fmt.Sprintf("It seals as %s, and opens nothing that other senders seal.", sender))
	})
	return nil
}
