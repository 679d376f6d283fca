package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/redis/go-redis/v9/logging"
)

// Main runs the process's own command and returns its exit code.
//
// The first interrupt or SIGTERM ends it in good order; a second one kills it. If the
// reader of standard output has gone, it ends in good order, too: SIGPIPE would kill it
// while it holds messages.
func Main() int {
	logging.Disable() // of go-redis, whose errors this command reports itself
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the default action is back
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE) // so that a write fails instead
	defer signal.Stop(pipe)
	return Run(ctx, os.Args[1:], Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
}

// output is standard output. After a failed write it refuses every other, so that
// nothing counts as printed that was not.
type output struct {
	w    io.Writer
	stop func() // called at the first failure

	mu  sync.Mutex // guards err
	err error
}

// Write writes.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if err != nil {
		o.err = &outputError{err}
		o.stop()
	}
	return n, o.err
}

// failure is why a write failed, nil if none did.
func (o *output) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// Unwrap returns what is written to.
func (o *output) Unwrap() io.Writer { return o.w }

// outputError says that standard output took no more.
type outputError struct{ err error }

func (e *outputError) Error() string { return fmt.Sprintf("standard output: %v", e.err) }
func (e *outputError) Unwrap() error { return e.err }

// unread reports whether the reader of the output has gone, as head does when it has
// seen enough. The command does not report that as a failure.
func (e *outputError) unread() bool { return errors.Is(e.err, syscall.EPIPE) }
