package otelqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue"
)

// The bounds of histograms, in seconds: cryptography from a microsecond to a tenth
// of a second, calls to brokers from half a millisecond to a long poll, handlers up
// to their hour.
var (
	cryptoBounds  = []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2, 1e-1}
	brokerBounds  = []float64{5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, .1, .25, .5, 1, 2.5, 5, 10, 20, 30}
	handlerBounds = []float64{1e-3, 5e-3, 1e-2, 5e-2, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600, 3600}
)

// maxCodes bounds the reasons of dead letters that are told apart.
const maxCodes = 100

// instruments are the metrics. The exporter for Prometheus makes their names out
// of these: dots become underscores, counters end in _total, and the unit s
// becomes _seconds.
type instruments struct {
	sent, received, cryptoErrors, rejected, deadLettered, duplicates, retries, renewals, redriven metric.Int64Counter
	activeSessions, processing                                                                    metric.Int64UpDownCounter
	enabled, paused, breaker                                                                      metric.Int64Gauge
	keyCreated, keyExpires                                                                        metric.Float64Gauge
	encrypt, decrypt, send, receive, settle, process                                              metric.Float64Histogram
	keyCache                                                                                      metric.Int64Counter

	sets sync.Map // labels -> []metric.MeasurementOption: what was made once

	mu    sync.Mutex // guards codes
	codes map[string]struct{}
}

func newInstruments(m metric.Meter) (*instruments, error) {
	i := &instruments{codes: make(map[string]struct{})}
	var errs []error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
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
	i.sent = counter("queue.messages.sent", "{message}", "Messages that the broker confirmed.")
	i.received = counter("queue.messages.received", "{message}", "Messages handed to the application.")
	i.cryptoErrors = counter("queue.crypto.errors", "{error}", "Findings of the receive pipeline, by error type.")
	i.rejected = counter("queue.messages.rejected", "{message}", "Messages received and not delivered, by what became of them.")
	i.deadLettered = counter("queue.messages.dead_lettered", "{message}", "Messages moved to the dead-letter queue, by reason.")
	i.duplicates = counter("queue.messages.duplicate", "{message}", "Handled messages that came back and were completed.")
	i.retries = counter("queue.messages.retried", "{message}", "Messages given back after their handler failed.")
	i.redriven = counter("queue.messages.redriven", "{message}", "Dead letters sent back to their queue.")
	i.renewals = counter("queue.lock.renewals", "{renewal}", "Renewals of locks, by result.")
	i.keyCache = counter("queue.key_cache.requests", "{request}", "Questions to the key cache, by result.")
	i.activeSessions = upDown("queue.active_sessions", "{session}", "Sessions held.")
	i.processing = upDown("queue.processing_messages", "{message}", "Handlers that run.")
	i.enabled = gauge("queue.crypto.enabled", "1 where encryption is enabled.")
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
	return i, errors.Join(errs...)
}

// labels are the labels of one series: two at most.
type labels struct {
	queue      string
	name       string // of the second label; empty: there is none
	value      string
	hasBoolean bool
	boolean    bool
}

// series are the labels as options, made once: what is counted for each message
// allocates nothing.
type series struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func (i *instruments) series(l labels) *series {
	if s, ok := i.sets.Load(l); ok {
		return s.(*series)
	}
	attributes := []attribute.KeyValue{attribute.String("queue", l.queue)}
	switch {
	case l.hasBoolean:
		attributes = append(attributes, attribute.Bool(l.name, l.boolean))
	case l.name != "":
		attributes = append(attributes, attribute.String(l.name, l.value))
	}
	o := metric.WithAttributeSet(attribute.NewSet(attributes...))
	s, _ := i.sets.LoadOrStore(l, &series{add: []metric.AddOption{o}, record: []metric.RecordOption{o}})
	return s.(*series)
}

// code is a code that an application chose, or "other" when there are too many.
func (i *instruments) code(c string) string {
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
	one := func(c metric.Int64Counter, name, value string) {
		c.Add(ctx, 1, i.series(labels{queue: e.Queue, name: name, value: value}).add...)
	}
	set := func(g metric.Int64Gauge, v int64, name, value string) {
		g.Record(ctx, v, i.series(labels{queue: e.Queue, name: name, value: value}).record...)
	}
	switch e.Kind {
	case queue.EventSent:
		i.sent.Add(ctx, 1, i.series(labels{queue: e.Queue, name: "encrypted", hasBoolean: true, boolean: e.Encrypted}).add...)
	case queue.EventReceived:
		i.received.Add(ctx, 1, i.series(labels{queue: e.Queue, name: "encrypted", hasBoolean: true, boolean: e.Encrypted}).add...)
	case queue.EventSealed:
		i.encrypt.Record(ctx, e.Duration.Seconds(), i.series(labels{queue: e.Queue}).record...)
	case queue.EventOpened:
		i.decrypt.Record(ctx, e.Duration.Seconds(), i.series(labels{queue: e.Queue}).record...)
	case queue.EventCryptoError:
		one(i.cryptoErrors, "error_type", e.ErrorType)
	case queue.EventRejected:
		one(i.rejected, "disposition", e.Reason)
	case queue.EventDeadLettered:
		one(i.deadLettered, "reason", i.code(e.Reason))
	case queue.EventDuplicate:
		one(i.duplicates, "", "")
	case queue.EventRetry:
		one(i.retries, "", "")
	case queue.EventRedriven:
		one(i.redriven, "", "")
	case queue.EventRenewed:
		one(i.renewals, "result", result(e.Err))
	case queue.EventConfigured:
		set(i.enabled, boolean(e.Encrypted), "environment", e.Environment)
	case queue.EventPaused:
		set(i.paused, 1, "reason", e.ErrorType)
	case queue.EventResumed:
		set(i.paused, 0, "reason", e.ErrorType)
	case queue.EventBreaker:
		set(i.breaker, map[string]int64{string(queue.BreakerHalfOpen): 1, string(queue.BreakerOpen): 2}[e.Reason], "", "")
	case queue.EventKeyUsed:
		s := i.series(labels{queue: e.Queue, name: "key_id", value: string(e.KeyID)})
		if !e.Created.IsZero() {
			i.keyCreated.Record(ctx, seconds(e.Created), s.record...)
		}
		if !e.Expires.IsZero() {
			i.keyExpires.Record(ctx, seconds(e.Expires), s.record...)
		}
	case queue.EventSession:
		i.activeSessions.Add(ctx, int64(e.Delta), i.series(labels{queue: e.Queue}).add...)
	case queue.EventInFlight:
		i.processing.Add(ctx, int64(e.Delta), i.series(labels{queue: e.Queue}).add...)
	case queue.EventHandled:
		i.process.Record(ctx, e.Duration.Seconds(), i.series(labels{queue: e.Queue, name: "outcome", value: e.Reason}).record...)
	}
}

// ended times a call to the broker. Handlers are timed by their event.
func (i *instruments) ended(ctx context.Context, kind queue.OperationKind, name, queueName string, took time.Duration) {
	switch kind {
	case queue.OpSend, queue.OpRedrive:
		i.send.Record(ctx, took.Seconds(), i.series(labels{queue: queueName}).record...)
	case queue.OpReceive:
		i.receive.Record(ctx, took.Seconds(), i.series(labels{queue: queueName}).record...)
	case queue.OpSettle:
		i.settle.Record(ctx, took.Seconds(), i.series(labels{queue: queueName, name: "operation", value: name}).record...)
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
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
		{queue.ErrPanic, "panic"},
	} {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	return "other"
}
