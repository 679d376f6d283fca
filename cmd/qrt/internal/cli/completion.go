package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout is how long a shell waits for the names of queues. Tests set another: a busy
// machine must not decide what they find.
var completionTimeout = time.Second

// What the words after a command are, for the shell.
const (
	oneQueue   = iota // and nothing after it
	someQueues        // as many as one likes
	queueFiles        // files after it
)

// completeQueues completes the names of queues: those of the configuration, and
// those of a broker that lists them. It makes nothing, and is silent about what is
// wrong.
func (a *app) completeQueues(kind int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch {
		case kind == queueFiles && len(args) > 0:
			return nil, cobra.ShellCompDirectiveDefault
		case kind == oneQueue && len(args) > 0:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if a.settings.resolve(cmd.Flags()) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		names := a.settings.queueNames()
		a.settings.keys, a.settings.nonces = setting{}, setting{} // not needed to list
		_ = a.with(ctx, access{looks: true}, func(c *connection) error {
			if l, ok := c.broker.(queueLister); ok {
				more, err := l.Queues(ctx)
				names = append(names, more...)
				return err
			}
			return nil
		})
		slices.Sort(names)
		names = slices.DeleteFunc(slices.Compact(names), func(name string) bool {
			return name == probeQueue || slices.Contains(args, name) || strings.ContainsAny(name, "\t\n")
		})
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeWords completes the names of queues if commands take some.
func (a *app) completeWords(root *cobra.Command) {
	for path, kind := range map[string]int{
		"send": queueFiles, "receive": oneQueue, "peek": oneQueue, "caps": oneQueue,
		"stats": someQueues, "doctor": someQueues, "keys audit": someQueues,
		"audit missing": oneQueue, "audit accept": oneQueue,
		"dlq list": oneQueue, "dlq show": oneQueue, "dlq redrive": oneQueue, "dlq purge": oneQueue,
	} {
		c, rest, err := root.Find(strings.Fields(path))
		must(err)
		if len(rest) > 0 {
			panic("qrt has no command " + path)
		}
		c.ValidArgsFunction = a.completeQueues(kind)
	}
	schemes := func(list ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoSpace|cobra.ShellCompDirectiveNoFileComp)
	}
	for flag, list := range map[string][]string{
		"broker": {"sqlite:///", "mem://", "postgres://", "sqs://", "sb://"},
		"keys":   {"file:///", "folder:///", "env://", "awssm://", "azkv://"},
		"nonces": {"sqlite:///", "postgres://", "rediss://", "redis://", "dynamodb://", "aztable://", "mem://"},
	} {
		must(root.RegisterFlagCompletionFunc(flag, schemes(list...)))
	}
}
