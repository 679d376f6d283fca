package worker

import (
	"errors"
	"runtime/debug"
	"strings"
	"testing"
)

func panics(value any) (err error) {
	defer func() { err = &panicError{value: recover(), stack: debug.Stack()} }()
	causesPanic(value)
	return nil
}

func causesPanic(value any) { panic(value) }

func TestDetail(t *testing.T) {
	if got := detail(errors.New("no such account")); got != "no such account" {
		t.Errorf("%q", got)
	}
	if got := detail(Permanent(errors.New("no such account"), "gone")); got != "permanent (gone): no such account" {
		t.Errorf("%q", got)
	}
	// The frame that panicked comes first, so that it is there in what is kept.
	got := detail(panics("boom"))
	value, stack, _ := strings.Cut(got, "\n")
	if value != "panic: boom" || !strings.HasPrefix(stack, "github.com/queue-runtime/queue/worker.causesPanic(") {
		t.Errorf("%s", got)
	}
	got = detail(panics(strings.Repeat("ä", 5000)))
	value, stack, _ = strings.Cut(got, "\n")
	if len(value) > maxPanicValue+20 || !strings.Contains(stack, "causesPanic") {
		t.Errorf("a value of %d bytes before the stack", len(value))
	}
	if got := detail(&panicError{value: goexit}); got != "panic: runtime.Goexit was called\n" {
		t.Errorf("%q", got)
	}
}
