package otelqueue

import (
	"context"
	"errors"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/worker"
)

// errorTypes are the classes of errors that are not findings of the receive pipeline.
// The first that matches counts.
var errorTypes = [...]struct {
	err  error
	name string
}{
	{context.Canceled, "canceled"},
	{context.DeadlineExceeded, "timeout"},
	{queue.ErrLockLost, "lock_lost"},
	{queue.ErrSessionLost, "session_lost"},
	{queue.ErrSettled, "settled"},
	{queue.ErrThrottled, "throttled"},
	{queue.ErrUnavailable, "unavailable"},
	{queue.ErrQueueFull, "queue_full"},
	{queue.ErrMessageTooLarge, "too_large"},
	{queue.ErrInvalidMessage, "invalid_message"},
	{queue.ErrEncryptionFailed, "encryption_failed"},
	{queue.ErrPermission, "permission"},
	{queue.ErrQueueNotFound, "queue_not_found"},
	{queue.ErrClosed, "closed"},
	{queue.ErrReceivingPaused, "receiving_paused"},
	{worker.ErrPanic, "panic"},
}

// errorType is the class of a failed operation's error, as label error_type and span
// attribute error.type: the reason if it is a finding, one of errorTypes, or "other".
func errorType(err error) string {
	if reason := queue.ReasonOf(err); reason != "" {
		return reason
	}
	for _, t := range errorTypes {
		if errors.Is(err, t.err) {
			return t.name
		}
	}
	return "other"
}
