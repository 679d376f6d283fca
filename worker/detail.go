package worker

import (
	"errors"
	"fmt"
	"strings"
)

// maxPanicValue bounds a panic's value in a detail, in bytes, so that the stack has room
// behind it: a detail has 1,900 (queue.Reason).
const maxPanicValue = 600

// detail is what a handler failed with, for the operator: the text of an error, in the
// long form if it has one, or the value of a panic and the stack from the panic on.
func detail(err error) string {
	var p *panicError
	if !errors.As(err, &p) {
		return fmt.Sprintf("%+v", err)
	}
	value := fmt.Sprint(p.value)
	if len(value) > maxPanicValue {
		value = strings.ToValidUTF8(value[:maxPanicValue], "") + "..."
	}
	stack := string(p.stack)
	// Above are the frames that made the stack; the next line is the runtime's own.
	if _, below, ok := strings.Cut(stack, "\npanic("); ok {
		if lines := strings.SplitN(below, "\n", 3); len(lines) == 3 {
			stack = lines[2]
		}
	}
	return "panic: " + value + "\n" + stack
}
