package otelqueue

import (
	"context"

	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue"
)

// findings are the error types of queue_crypto_errors_total that a receiver can
// meet with.
var findings = func() []string {
	all := []string{"plaintext_allowed"}
	for _, err := range []error{
		queue.ErrUnencryptedMessage, queue.ErrInvalidEnvelope, queue.ErrUnsupportedVersion, queue.ErrKeyNotFound,
		queue.ErrKeyProvider, queue.ErrAuthenticationFailed, queue.ErrMessageExpired, queue.ErrMessageFromFuture,
		queue.ErrNonceReused, queue.ErrNonceBusy, queue.ErrReplayStore,
	} {
		all = append(all, queue.ErrorType(err))
	}
	return all
}()

// deadLetterReasons are the codes of the library itself.
var deadLetterReasons = []string{
	queue.ErrorType(queue.ErrUnencryptedMessage), queue.ErrorType(queue.ErrInvalidEnvelope),
	queue.ErrorType(queue.ErrUnsupportedVersion), queue.ErrorType(queue.ErrKeyNotFound),
	queue.ErrorType(queue.ErrAuthenticationFailed), queue.ErrorType(queue.ErrMessageExpired),
	queue.ErrorType(queue.ErrNonceReused), "max_deliveries",
}

// configured names the senders, or the receivers, of one queue.
type configured struct {
	queue, environment, role string
}

// configure notes whether a sender or receiver that was opened has encryption
// enabled, and begins its counters at 0. The last one of its kind counts; where
// senders and receivers differ, what is unprotected does.
func (i *instruments) configure(ctx context.Context, e *queue.Event) {
	i.mu.Lock()
	at := configured{e.Queue, e.Environment, e.Reason}
	_, known := i.configured[at]
	i.configured[at] = e.Encrypted
	enabled := true
	for c, encrypted := range i.configured {
		if c.queue == e.Queue && c.environment == e.Environment {
			enabled = enabled && encrypted
		}
	}
	// Under the lock, so that of two that open at once the later one is recorded last.
	i.enabled.Record(ctx, number(enabled), i.series(labels{byEnvironment, e.Queue, e.Environment, ""}).record...)
	i.mu.Unlock()
	if known {
		return
	}
	zero := func(c metric.Int64Counter, by shape, values ...string) {
		for _, v := range values {
			c.Add(ctx, 0, i.series(labels{by, e.Queue, v, ""}).add...)
		}
	}
	traffic := &i.received
	if e.Reason == "sender" {
		traffic = &i.sent
		zero(i.cryptoErrors, byErrorType, "encryption_failed")
	} else {
		zero(i.cryptoErrors, byErrorType, findings...)
		zero(i.rejected, byDisposition, string(queue.DeadLettered), string(queue.Abandoned))
		zero(i.deadLettered, byReason, deadLetterReasons...)
		zero(i.duplicates, byQueue, "")
		for _, err := range []error{queue.ErrAuthenticationFailed, queue.ErrKeyProvider, queue.ErrReplayStore} {
			i.paused.Record(ctx, 0, i.series(labels{byReason, e.Queue, queue.ErrorType(err), ""}).record...)
		}
	}
	traffic.at(labels{byEncrypted, e.Queue, "true", ""})
	traffic.at(labels{byEncrypted, e.Queue, "false", ""})
}
