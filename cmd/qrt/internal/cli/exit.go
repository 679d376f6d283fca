package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// The exit codes.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitNothing = 3
	exitUnread  = 141 // 128 + SIGPIPE, as shells have it
)

// codeInterrupted is the code of what an interrupt ended.
const codeInterrupted = "interrupted"

// exitError is an error with an exit code of its own.
type exitError struct {
	exit int
	code string // for --json; empty means by the error
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usagef says that the command was called wrongly.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, "usage", fmt.Errorf(format, args...)}
}

// nothingf says that what was asked for is not there.
func nothingf(format string, args ...any) error {
	return &exitError{exitNothing, "nothing_found", fmt.Errorf(format, args...)}
}

// errReported ends a command that failed and has said so in its own output.
var errReported = errors.New("failed")

// advised is an error and what to do about it.
type advised struct {
	err    error
	advice string
}

func (e *advised) Error() string { return e.err.Error() }
func (e *advised) Unwrap() error { return e.err }

// advise adds what to do to an error; nil stays nil.
func advise(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &advised{err, fmt.Sprintf(format, args...)}
}

// partial is an error that came when some of the work was done.
type partial struct {
	err  error
	done string // in words
}

func (e *partial) Error() string { return e.err.Error() + " (" + e.done + ")" }
func (e *partial) Unwrap() error { return e.err }

// errorReport is an error as --json shows it, on standard error.
type errorReport struct {
	Error     string `json:"error"`
	Code      string `json:"code"`
	Exit      int    `json:"exit"`
	Transient bool   `json:"transient"`
	Advice    string `json:"advice,omitempty"`
}

// report sorts an error: its exit code, and its code for programs.
func report(err error) errorReport {
	r := errorReport{Error: err.Error(), Exit: exitFailed, Code: codeOf(err)}
	if r.Code == codeInterrupted {
		// An interrupt cancels several calls at once; which of them is of no interest.
		r.Error = "interrupted"
		var p *partial
		if errors.As(err, &p) {
			r.Error += " (" + p.done + ")"
		}
	}
	var x *exitError
	if errors.As(err, &x) {
		r.Exit = x.exit
		if x.code != "" {
			r.Code = x.code
		}
	}
	if r.Exit == exitFailed && (errors.Is(err, keys.ErrNotFound) || errors.Is(err, queue.ErrQueueNotFound)) {
		r.Exit = exitNothing
	}
	var q *queue.Error
	var d *driver.Error
	switch {
	case errors.As(err, &q):
		r.Transient = q.Transient
	case errors.As(err, &d):
		r.Transient = d.Transient()
	}
	var a *advised
	if errors.As(err, &a) {
		r.Advice = a.advice
	} else {
		r.Advice = adviceFor(err)
	}
	return r
}

// codeOf names an error for programs: the error type of the receive pipeline
// if it is one, else the driver's kind, else the family.
func codeOf(err error) string {
	var o *outputError
	if errors.As(err, &o) {
		return "output"
	}
	if t := queue.ReasonOf(err); t != "" {
		return t
	}
	for _, f := range []struct {
		err  error
		code string
	}{
		{context.Canceled, codeInterrupted},
		{context.DeadlineExceeded, "timeout"},
		{errors.ErrUnsupported, "unsupported"},
		{queue.ErrQueueNotFound, "queue_not_found"},
		{queue.ErrInvalidQueueName, "invalid_queue_name"},
		{queue.ErrMessageTooLarge, "too_large"},
		{queue.ErrInvalidMessage, "invalid_message"},
		{queue.ErrMarkerCollision, "marker_collision"},
		{queue.ErrQueueFull, "queue_full"},
		{queue.ErrThrottled, "throttled"},
		{queue.ErrUnavailable, "unavailable"},
		{queue.ErrPermission, "permission"},
		{queue.ErrLockLost, "lock_lost"},
		{queue.ErrSessionLost, "session_lost"},
		{queue.ErrSessionHeld, "session_held"},
		{queue.ErrNoSession, "no_session"},
		{queue.ErrNoMessage, "no_message"},
		{queue.ErrReceivingPaused, "receiving_paused"},
		{queue.ErrEncryptionFailed, "encryption_failed"},
		{queue.ErrKeyExpired, "key_expired"},
		{driver.ErrCorrupt, "corrupt"},
		{keys.ErrInvalidKey, "invalid_key"},
		{keys.ErrUnavailable, "key_provider_error"},
		{connect.ErrUnknownScheme, "unknown_scheme"},
		{connect.ErrWithinReach, "nonces_within_reach"},
		{queue.ErrInvalidOptions, "invalid_options"},
		{fs.ErrNotExist, "no_such_file"},
		{fs.ErrExist, "file_exists"},
		{fs.ErrPermission, "permission"},
	} {
		if errors.Is(err, f.err) {
			return f.code
		}
	}
	return "failed"
}

// adviceFor says what to do about errors that every command can meet.
func adviceFor(err error) string {
	switch {
	case errors.Is(err, queue.ErrEncryptionFailed) && errors.Is(err, keys.ErrNotFound):
		return "make a key current: qrt keys rotate"
	case errors.Is(err, queue.ErrKeyExpired):
		return "make a newer key current: qrt keys rotate"
	case errors.Is(err, queue.ErrUnavailable):
		return "see what is wrong with: qrt doctor"
	}
	return ""
}

// writeError tells a person or a program of an error.
func (a *app) writeError(err error) int {
	if errors.Is(err, errReported) {
		return exitFailed
	}
	var o *outputError
	if errors.As(err, &o) && o.unread() {
		return exitUnread
	}
	r := report(err)
	if a.settings.json {
		writeJSON(a.Err, r)
		return r.Exit
	}
	s := a.errors
	s.Printf("%s %s\n", s.Bad("qrt:"), safeLines(r.Error))
	if r.Advice != "" {
		s.Printf("     %s\n", s.Dim(r.Advice))
	}
	return r.Exit
}

// writeJSON writes one value as one line, which does no harm on a terminal. All
// values here are marshalable, and Run asks output what failed.
func writeJSON(w io.Writer, v any) {
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
	_, _ = w.Write(display.JSON(line.Bytes()))
}
