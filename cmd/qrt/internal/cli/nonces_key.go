package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// forgetReport is the output of nonces forget-key --json.
type forgetReport struct {
	Queue string  `json:"queue"`
	Group string  `json:"group"`
	Key   keys.ID `json:"key"`
}

func (a *app) noncesForgetKeyCommand() *cobra.Command {
	var of string
	c := &cobra.Command{
		Use:   "forget-key QUEUE KEY-ID",
		Short: "Forget which secret a key ID named in a queue",
		Long: `Forget-key removes what the replay store remembers of a key: a value that tells its
secret from another one, noted when a message opened under it. Receivers with another
secret under that ID fetch nothing. Forget it if that message was sealed and opened under
a wrong secret, then restart the receivers. docs/runbooks/wrong-key.md says when.`,
		Example: example(`
			qrt nonces forget-key task-tactician k1 --nonces dynamodb://eu-west-1/replay`),
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if of == "" {
				of = args[0]
			}
			return a.forgetKey(cmd.Context(), forgetReport{Queue: args[0], Group: of, Key: keys.ID(args[1])})
		},
	}
	c.Flags().StringVar(&of, "group", "", "`group` of the queue's receivers in the replay store (default: the queue's name)")
	return c
}

func (a *app) forgetKey(ctx context.Context, r forgetReport) error {
	return a.withNonces(ctx, func(s replay.Store) error {
		found, err := s.ForgetKey(ctx, r.Group, replay.KnownKey{Queue: r.Queue, ID: string(r.Key)})
		switch {
		case err != nil:
			return err
		case !found:
			return nothingf("group %q knows no key %q of queue %q", display.Safe(r.Group), display.Safe(string(r.Key)), display.Safe(r.Queue))
		}
		a.print(r, func(screen *display.Screen) {
			screen.Printf("%s Key %s of %s is forgotten\n", screen.Good("✓"), screen.Name(display.Safe(string(r.Key))), screen.Name(display.Safe(r.Queue)))
			screen.Note("Restart the receivers that know it.")
		})
		return nil
	})
}
