package otelqueue

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/worker"
)

// The bounds of histograms, in seconds: cryptography from a microsecond to a tenth
// of a second, calls to brokers from half a millisecond to a long poll, handlers up
// to their hour.
var (
	cryptoBounds  = []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2, 1e-1}
	brokerBounds  = []float64{5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, .1, .25, .5, 1, 2.5, 5, 10, 20, 30}
	handlerBounds = []float64{1e-3, 5e-3, 1e-2, 5e-2, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600, 3600}
)

// maxCodes bounds the reasons of dead letters that are told apart, beside the
// library's own.
const maxCodes = 100

// instruments are the metrics. The exporter for Prometheus makes their names out
// of these: dots become underscores, counters end in _total, and the unit s
// becomes _seconds.
type instruments struct {
	sent, received, keyUses, processing                                           tally
	cryptoErrors, rejected, deadLettered, duplicates, retries, renewals, redriven metric.Int64Counter
	keyCache, failures, sessionsEnded                                             metric.Int64Counter
	activeSessions                                                                metric.Int64UpDownCounter
	enabled, paused, breaker                                                      metric.Int64Gauge
	keyCreated, keyExpires                                                        metric.Float64Gauge
	encrypt, decrypt, send, receive, settle, process, keyFetch                    metric.Float64Histogram

	all   table[labels, series]
	lanes table[string, lane]

	mu         sync.Mutex // guards what follows
	codes      map[string]struct{}
	configured map[configured]bool // whether encryption is enabled
}

func newInstruments(m metric.Meter) (*instruments, error) {
	i := &instruments{codes: make(map[string]struct{}), configured: make(map[configured]bool)}
	var errs []error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return c
	}
	observed := func(name, unit, text string) metric.Int64Observable {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return c
	}
	upDown := func(name, unit, text string) metric.Int64UpDownCounter {
		c, err := m.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return c
	}
	gauge := func(name, text string) metric.Int64Gauge {
		g, err := m.Int64Gauge(name, metric.WithDescription(text))
		errs = append(errs, err)
		return g
	}
	timestamp := func(name, text string) metric.Float64Gauge {
		g, err := m.Float64Gauge(name, metric.WithDescription(text))
		errs = append(errs, err)
		return g
	}
	histogram := func(name, text string, bounds []float64) metric.Float64Histogram {
		h, err := m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(text), metric.WithExplicitBucketBoundaries(bounds...))
		errs = append(errs, err)
		return h
	}
	i.sent.instrument = observed("queue.messages.sent", "{message}", "Messages that the broker confirmed.")
	i.received.instrument = observed("queue.messages.received", "{message}", "Messages handed to the application.")
	i.cryptoErrors = counter("queue.crypto.errors", "{error}", "What was wrong with received messages, and messages that could not be sealed, by error type.")
	i.keyUses.instrument = observed("queue.crypto.key_uses", "{message}", "Messages sealed and authentic messages opened, by key.")
	i.rejected = counter("queue.messages.rejected", "{message}", "Messages received and not delivered, by what became of them.")
	i.deadLettered = counter("queue.messages.dead_lettered", "{message}", "Messages moved to the dead-letter queue, by reason.")
	i.duplicates = counter("queue.messages.duplicate", "{message}", "Handled messages that came back and were completed.")
	i.retries = counter("queue.messages.retried", "{message}", "Messages given back after their handler failed.")
	i.redriven = counter("queue.messages.redriven", "{message}", "Dead letters sent back to their queue.")
	i.renewals = counter("queue.lock.renewals", "{renewal}", "Renewals of locks, by result.")
	i.failures = counter("queue.operation.errors", "{error}", "Operations that failed, by error type.")
	i.sessionsEnded = counter("queue.sessions.ended", "{session}", "Sessions that are no longer held, by reason.")
	i.keyCache = counter("queue.key_cache.requests", "{request}", "Questions to a key cache, by result.")
	i.keyFetch = histogram("queue.key_cache.fetch.duration", "One question of a key cache to its key store.", brokerBounds)
	i.activeSessions = upDown("queue.active_sessions", "{session}", "Sessions held.")
	running, err := m.Int64ObservableUpDownCounter("queue.processing_messages", metric.WithUnit("{message}"), metric.WithDescription("Handlers that run."))
	errs = append(errs, err)
	i.processing.instrument = running
	i.enabled = gauge("queue.crypto.enabled", "1 where every sender and receiver of the queue in this process has encryption enabled.")
	i.paused = gauge("queue.receiving.paused", "1 while nothing is fetched, by the reason.")
	i.breaker = gauge("queue.breaker.state", "The circuit breaker: 0 closed, 1 half open, 2 open.")
	i.keyCreated = timestamp("queue.crypto.key_created_timestamp", "When the key in use was made, in seconds since 1970.")
	i.keyExpires = timestamp("queue.crypto.key_expires_timestamp", "When the key in use expires, in seconds since 1970.")
	i.encrypt = histogram("queue.crypto.encrypt.duration", "Sealing one message.", cryptoBounds)
	i.decrypt = histogram("queue.crypto.decrypt.duration", "Opening one message.", cryptoBounds)
	i.send = histogram("queue.send.duration", "One call to the broker that sends.", brokerBounds)
	i.receive = histogram("queue.receive.duration", "One call to the broker that receives, its wait included.", brokerBounds)
	i.settle = histogram("queue.settle.duration", "Settling one message.", brokerBounds)
	i.process = histogram("queue.message.processing.duration", "One run of a handler.", handlerBounds)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	// For as long as the MeterProvider lives: what was counted is not taken back.
	_, err = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, t := range []*tally{&i.sent, &i.received, &i.keyUses, &i.processing} {
			t.report(o)
		}
		return nil
	}, i.sent.instrument, i.received.instrument, i.keyUses.instrument, i.processing.instrument)
	return i, err
}

func (i *instruments) series(l labels) *series { return i.all.get(l, newSeries) }

// code is a code that an application chose, or "other" when there are too many.
func (i *instruments) code(c string) string {
	if slices.Contains(deadLetterReasons, c) {
		return c
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.codes[c]; ok {
		return c
	}
	if len(i.codes) >= maxCodes {
		return "other"
	}
	i.codes[c] = struct{}{}
	return c
}

// event counts what happened.
func (i *instruments) event(ctx context.Context, e *queue.Event) {
	one := func(c metric.Int64Counter, by shape, value string) {
		c.Add(ctx, 1, i.series(labels{by, e.Queue, value, ""}).add...)
	}
	set := func(g metric.Int64Gauge, v int64, by shape, value string) {
		g.Record(ctx, v, i.series(labels{by, e.Queue, value, ""}).record...)
	}
	switch e.Kind {
	case queue.EventSent:
		i.lane(e.Queue).sent[number(e.Encrypted)].of(&i.sent, labels{byEncrypted, e.Queue, word(e.Encrypted), ""}).n.Add(1)
	case queue.EventReceived:
		i.lane(e.Queue).received[number(e.Encrypted)].of(&i.received, labels{byEncrypted, e.Queue, word(e.Encrypted), ""}).n.Add(1)
	case queue.EventSealed:
		l := i.lane(e.Queue)
		i.encrypt.Record(ctx, e.Duration.Seconds(), l.plain.record...)
		l.sealed.of(&i.keyUses, labels{byKeyUse, e.Queue, string(e.KeyID), "seal"}).n.Add(1)
	case queue.EventOpened:
		l := i.lane(e.Queue)
		i.decrypt.Record(ctx, e.Duration.Seconds(), l.plain.record...)
		if e.Err == nil {
			l.opened.of(&i.keyUses, labels{byKeyUse, e.Queue, string(e.KeyID), "open"}).n.Add(1) // otherwise the key ID is whatever an attacker wrote
		}
	case queue.EventCryptoError:
		one(i.cryptoErrors, byErrorType, e.ErrorType)
	case queue.EventRejected:
		one(i.rejected, byDisposition, e.Reason)
	case queue.EventDeadLettered:
		one(i.deadLettered, byReason, i.code(e.Reason))
	case queue.EventDuplicate:
		one(i.duplicates, byQueue, "")
	case queue.EventRetry:
		one(i.retries, byQueue, "")
	case queue.EventRedriven:
		one(i.redriven, byQueue, "")
	case queue.EventRenewed:
		one(i.renewals, byResult, result(e.Err))
	case queue.EventConfigured:
		i.configure(ctx, e)
	case queue.EventPaused:
		set(i.paused, 1, byReason, e.ErrorType)
	case queue.EventResumed:
		set(i.paused, 0, byReason, e.ErrorType)
	case queue.EventBreaker:
		set(i.breaker, map[string]int64{string(queue.BreakerHalfOpen): 1, string(queue.BreakerOpen): 2}[e.Reason], byQueue, "")
	case queue.EventKeyUsed:
		s := i.series(labels{byKey, e.Queue, string(e.KeyID), ""})
		if !e.Created.IsZero() {
			i.keyCreated.Record(ctx, seconds(e.Created), s.record...)
		}
		if !e.Expires.IsZero() {
			i.keyExpires.Record(ctx, seconds(e.Expires), s.record...)
		}
	case queue.EventSession:
		i.activeSessions.Add(ctx, int64(e.Delta), i.series(labels{byQueue, e.Queue, "", ""}).add...)
		if e.Delta < 0 {
			one(i.sessionsEnded, byReason, e.Reason)
		}
	case queue.EventInFlight:
		i.lane(e.Queue).running.of(&i.processing, labels{byQueue, e.Queue, "", ""}).n.Add(int64(e.Delta))
	case queue.EventHandled:
		by := i.lane(e.Queue).handled
		if e.Reason != complete {
			by = i.series(labels{byOutcome, e.Queue, e.Reason, ""})
		}
		i.process.Record(ctx, e.Duration.Seconds(), by.record...)
	}
}

// ended times a call to the broker, and counts it where it failed. Handlers are
// timed by their event.
func (i *instruments) ended(ctx context.Context, kind queue.OperationKind, name, queueName string, took time.Duration, err error) {
	if err != nil && kind != queue.OpProcess {
		operation := string(kind)
		if name != "" {
			operation = name
		}
		i.failures.Add(ctx, 1, i.series(labels{byFailure, queueName, operation, errorType(err)}).add...)
	}
	switch kind {
	case queue.OpSend, queue.OpRedrive:
		i.send.Record(ctx, took.Seconds(), i.lane(queueName).plain.record...)
	case queue.OpReceive:
		i.receive.Record(ctx, took.Seconds(), i.lane(queueName).plain.record...)
	case queue.OpSettle:
		by := i.lane(queueName).completed
		if name != complete {
			by = i.series(labels{byOperation, queueName, name, ""})
		}
		i.settle.Record(ctx, took.Seconds(), by.record...)
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func word(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func result(err error) string {
	if err == nil {
		return "ok"
	}
	return errorType(err)
}

// errorType is an error as a label: a code of the receive pipeline, or one of a
// few words.
func errorType(err error) string {
	if code := queue.ErrorType(err); code != "" {
		return code
	}
	for _, known := range [...]struct {
		err  error
		code string
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
	} {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return "other"
}
