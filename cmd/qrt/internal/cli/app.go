// Package cli is the command line of qrt: its commands, what they print, and
// how they end.
//
// Each command is one function that returns an error; [Run] turns that into an
// exit code. A command opens what it needs through app.connect and closes it
// before it returns. Results go to standard output, everything else to standard
// error.
package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
)

// Streams are the process's own.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// app is one run of qrt.
type app struct {
	Streams
	out      *output // is Streams.Out
	settings settings
	started  bool            // the arguments are understood: what fails now is no usage error
	screen   *display.Screen // on Out
	errors   *display.Screen // on Err
}

// Run runs one command and returns the exit code. When ctx ends it stops in good
// order. It leaves no goroutine behind, but for one that waits for standard input
// if nothing came before ctx ended.
func Run(ctx context.Context, args []string, s Streams) int {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	out := &output{w: s.Out, stop: stop}
	s.In, s.Out = newInput(ctx, s.In), out
	a := &app{Streams: s, out: out}
	a.draw(display.Auto)
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	if lost := out.failure(); lost != nil {
		// What the command made of it, an interrupt as a rule, tells less.
		a.started, err = true, lost
	}
	if err == nil {
		return exitDone
	}
	if !a.started {
		// Before the flags were read: look for --json by hand.
		a.settings.json = a.settings.json || wantsJSON(args)
		var x *exitError
		if !errors.As(err, &x) {
			err = &exitError{exitUsage, "usage", err}
		}
	}
	return a.writeError(err)
}

func wantsJSON(args []string) bool {
	if on, err := strconv.ParseBool(os.Getenv("QRT_JSON")); err == nil && on && !slices.Contains(args, "--json=false") {
		return true
	}
	for _, arg := range args {
		switch arg {
		case "--":
			return false
		case "--json", "--json=true":
			return true
		}
	}
	return false
}

// draw makes the screens.
func (a *app) draw(mode display.Mode) {
	a.screen = display.New(a.Out, mode)
	a.errors = display.New(a.Err, mode)
}

// prepare runs before each command: it reads the settings.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	if err := a.settings.resolve(cmd.Flags()); err != nil {
		return err
	}
	a.draw(display.Mode(a.settings.color.value))
	return nil
}

// logger is what the library logs to.
func (a *app) logger() *slog.Logger {
	var level slog.Level
	switch a.settings.log.value {
	case "debug":
		level = slog.LevelDebug
	case "info":
		level = slog.LevelInfo
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	default:
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(a.Err, &slog.HandlerOptions{Level: level}))
}

// print writes a result: as JSON, or by show for a person.
func (a *app) print(v any, show func(*display.Screen)) {
	if a.settings.json {
		writeJSON(a.Out, v)
		return
	}
	show(a.screen)
}

// warn tells a person something that is no error; programs find it in the
// result.
func (a *app) warn(text string) {
	if !a.settings.json {
		a.errors.Printf("%s %s\n", a.errors.Warn("qrt:"), safeLines(text))
	}
}

func safeLines(text string) string { return display.Block(strings.TrimRight(text, "\n")) }
