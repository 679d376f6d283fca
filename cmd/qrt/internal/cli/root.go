package cli

import (
	"bytes"
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

// The groups of commands in the help.
const (
	groupStart    = "start"
	groupMessages = "messages"
	groupKeys     = "keys"
	groupEnvelope = "envelope"
	groupLook     = "look"
)

// Tree returns the command with all of its commands, for what describes them. It is
// not made to be executed; Run does that.
func Tree() *cobra.Command {
	return (&app{}).root()
}

// root builds the command tree.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "qrt",
		Short: "Operate queues of sealed messages",
		Long: `qrt sends, receives and looks after messages that are sealed end to end: the
operator of the broker can neither read, alter, forge, substitute nor replay them.

Without --broker it works on a SQLite file of this user, so that one terminal
receives what another sends.`,
		Example: example(`
			qrt demo                                  # see the whole of it in a few seconds
			qrt keys new                              # make a key; from now on messages are sealed
			echo '{"action":"opened"}' | qrt send task-tactician
			qrt receive task-tactician --follow
			qrt doctor task-tactician`),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.Version = version().line(version().Version) // for the flag --version
	root.SetVersionTemplate("{{.Version}}\n")
	root.PersistentPreRunE = a.prepare
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	root.SetGlobalNormalizationFunc(presentName)
	addFlags(root.PersistentFlags())
	root.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Start here:"},
		&cobra.Group{ID: groupMessages, Title: "Messages:"},
		&cobra.Group{ID: groupKeys, Title: "Keys:"},
		&cobra.Group{ID: groupEnvelope, Title: "Envelopes, offline:"},
		&cobra.Group{ID: groupLook, Title: "Look after a broker:"},
	)
	for _, c := range []struct {
		group    string
		commands []*cobra.Command
	}{
		{groupStart, []*cobra.Command{a.demoCommand()}},
		{groupMessages, []*cobra.Command{a.sendCommand(), a.receiveCommand(), a.peekCommand(), a.dlqCommand()}},
		{groupLook, []*cobra.Command{a.doctorCommand(), a.statsCommand(), a.capsCommand(), a.benchCommand(), a.auditCommand(), a.noncesCommand(), a.conformanceCommand(), a.emulatorCommand()}},
		{groupEnvelope, []*cobra.Command{a.sealCommand(), a.openCommand(), a.inspectCommand()}},
		{groupKeys, []*cobra.Command{a.keysCommand(), a.keygenCommand()}},
	} {
		for _, command := range c.commands {
			command.GroupID = c.group
			root.AddCommand(command)
		}
	}
	root.AddCommand(a.versionCommand())
	root.AddCommand(topics()...)
	root.SetUsageTemplate(usageTemplate)
	help := root.HelpFunc()
	root.SetHelpFunc(func(c *cobra.Command, args []string) {
		// Cobra prints the error of a write, which is reported when the command ends, or
		// is none: its reader has gone.
		out := c.OutOrStdout()
		var text bytes.Buffer
		c.SetOut(&text)
		help(c, args)
		c.SetOut(out)
		_, _ = out.Write(text.Bytes()) // out keeps the error
	})
	root.SetHelpTemplate(helpTemplate)
	complete(root)
	a.completeWords(root)
	a.strict(root)
	return root
}

// The pages of help. The flags that all commands have are shown once, at the
// root: they would bury those of each command.
const (
	helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`

	usageTemplate = `Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}
{{- if .HasExample}}

Examples:
{{.Example}}{{end}}
{{- if .HasAvailableSubCommands}}{{$cmds := .Commands}}
{{- range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}

{{if .Groups}}More:{{else}}Commands:{{end}}{{range $cmds}}{{if (and (eq .GroupID "") .IsAvailableCommand)}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}
{{- if and .HasParent .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
{{- if not .HasParent}}

Flags of every command:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}

Topics:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .CommandPath 18}} {{.Short}}{{end}}{{end}}{{else}}

Every command also takes --broker, --keys, --nonces, --json and more: qrt --help{{end}}
{{- if .HasAvailableSubCommands}}

{{.CommandPath}} COMMAND --help tells more about a command.{{end}}
`
)

// strict makes a usage error of what cobra finds wrong before a command runs, and
// notes when one does.
func (a *app) strict(cmd *cobra.Command) {
	if args := cmd.Args; args != nil {
		cmd.Args = func(cmd *cobra.Command, list []string) error {
			if err := args(cmd, list); err != nil {
				var x *exitError
				if errors.As(err, &x) {
					return err
				}
				return usagef("%w; see %s --help", err, cmd.CommandPath())
			}
			return nil
		}
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.started = true
			return run(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		a.strict(c)
	}
}

// group is a command that only holds others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, Args: func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s has no command %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
		}
		return nil
	}, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(commands...)
	return c
}

// example takes the indentation of the source off an example.
func example(text string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.Trim(text, "\n"), "\n") {
		lines = append(lines, "  "+strings.TrimLeft(line, "\t"))
	}
	return strings.Join(lines, "\n")
}

// complete tells the shell what can follow the flags that all commands have.
func complete(root *cobra.Command) {
	for flag, values := range map[string][]string{
		"policy": {"allow\tdeliver plaintext with a warning", "allow_with_alert\tdeliver it with an alert", "reject\tdead-letter it"},
		"log":    {"off", "error", "warn", "info", "debug"},
		"color":  {"auto", "always", "never"},
	} {
		must(root.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
	}
	must(root.MarkPersistentFlagFilename("config", "toml"))
}

// must is for errors that only a mistake in this package can cause; each test
// that builds the tree would see it.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
