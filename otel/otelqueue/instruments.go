package otelqueue

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
)

// The bounds of histograms, in seconds: cryptography from a microsecond to a tenth
// of a second, calls to brokers from half a millisecond to a long poll, handlers up
// to their hour.
var (
	cryptoBounds  = []float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 1e-2, 1e-1}
	brokerBounds  = []float64{5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, .1, .25, .5, 1, 2.5, 5, 10, 20, 30}
	handlerBounds = []float64{1e-3, 5e-3, 1e-2, 5e-2, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600, 3600}
)

// maxReasons bounds the reasons of dead letters that are told apart, beside the
// library's own. An application that puts an error's text into the code would
// otherwise fill the meter.
const maxReasons = 100

// libraryReasons are the codes that the library gives dead letters.
var libraryReasons = map[string]bool{
	driver.ReasonPlaintext: true, driver.ReasonUnsupportedVersion: true, driver.ReasonInvalidEnvelope: true,
	driver.ReasonKeyProvider: true, driver.ReasonKeyNotFound: true, driver.ReasonReplayStore: true,
	driver.ReasonAuthentication: true, driver.ReasonMessageExpired: true, driver.ReasonMessageFromFuture: true,
	driver.ReasonNonceReused: true, driver.ReasonSender: true, driver.ReasonCollision: true, driver.ReasonQuota: true, driver.ReasonNonceBusy: true, driver.ReasonPlaintextAllowed: true,
	driver.ReasonEncryptionFailed: true, driver.ReasonMaxDeliveries: true, driver.ReasonExpired: true,
	driver.ReasonPermanent: true, driver.ReasonUndecodable: true, driver.ReasonAccounting: true,
}

// instruments are the metrics. The exporter for Prometheus makes their names out
// of these: dots become underscores, counters end in _total, and the unit s
// becomes _seconds.
type instruments struct {
	sent, received, keyUses, processing                                           sums
	cryptoErrors, rejected, deadLettered, duplicates, retries, renewals, redriven metric.Int64Counter
	keyCache, failures, sessionsEnded, floods                                     metric.Int64Counter
	activeSessions                                                                metric.Int64UpDownCounter
	encrypt, decrypt, send, receive, settle, process, keyFetch                    metric.Float64Histogram
	states                                                                        states

	all    table[labels, series]
	queues table[string, queueSeries]

	mu      sync.Mutex // guards reasons
	reasons map[string]struct{}
}

func newInstruments(m metric.Meter) (*instruments, error) {
	i := &instruments{
		reasons: make(map[string]struct{}),
		states:  states{endpoints: make(map[observe.Source]*endpointState), breakers: make(map[observe.Source]int64)},
	}
	b := &builder{meter: m}
	i.countMessages(b)
	i.countOperations(b)
	i.timeOperations(b)
	i.gaugeStates(b)
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	// For as long as the MeterProvider lives: what was counted is not taken back.
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, s := range []*sums{&i.sent, &i.received, &i.keyUses, &i.processing} {
			s.report(o)
		}
		i.reportStates(o)
		return nil
	}, b.observed...)
	return i, err
}

func (i *instruments) countMessages(b *builder) {
	i.sent.instrument = b.sum("queue.messages.sent", "{message}", "Messages that the broker confirmed.")
	i.received.instrument = b.sum("queue.messages.received", "{message}", "Messages handed to the application.")
	i.rejected = b.counter("queue.messages.rejected", "{message}", "Messages received and not delivered, by what became of them.")
	i.deadLettered = b.counter("queue.messages.dead_lettered", "{message}", "Messages moved to the dead-letter queue, by reason.")
	i.duplicates = b.counter("queue.messages.duplicate", "{message}", "Handled messages that came back and were completed.")
	i.retries = b.counter("queue.messages.retried", "{message}", "Messages given back to be delivered again, by whether their handler planned it.")
	i.redriven = b.counter("queue.messages.redriven", "{message}", "Dead letters sent back to their queue.")
	i.cryptoErrors = b.counter("queue.crypto.errors", "{error}", "What was wrong with received messages, and messages that could not be sealed, by reason.")
	i.floods = b.counter("queue.floods", "{alarm}", "Alarms of dead letters that could not be read and come faster than by chance, by the reason of the last one.")
	i.keyUses.instrument = b.sum("queue.crypto.key_uses", "{message}", "Messages sealed and authentic messages opened, by key.")
}

func (i *instruments) countOperations(b *builder) {
	i.renewals = b.counter("queue.lock.renewals", "{renewal}", "Renewals of locks, by result.")
	i.failures = b.counter("queue.operation.errors", "{error}", "Operations that failed, by error type.")
	i.sessionsEnded = b.counter("queue.sessions.ended", "{session}", "Sessions that are no longer held, by how they ended.")
	i.activeSessions = b.upDownCounter("queue.active_sessions", "{session}", "Sessions held.")
	i.processing.instrument = b.upDownSum("queue.processing_messages", "{message}", "Handlers that run.")
	i.keyCache = b.counter("queue.key_cache.requests", "{request}", "Questions to a key cache, by result.")
}

func (i *instruments) timeOperations(b *builder) {
	i.encrypt = b.histogram("queue.crypto.encrypt.duration", "Sealing one message.", cryptoBounds)
	i.decrypt = b.histogram("queue.crypto.decrypt.duration", "Opening one message.", cryptoBounds)
	i.send = b.histogram("queue.send.duration", "One call to the broker that sends.", brokerBounds)
	i.receive = b.histogram("queue.receive.duration", "One call to the broker that receives, its wait included.", brokerBounds)
	i.settle = b.histogram("queue.settle.duration", "Settling one message.", brokerBounds)
	i.process = b.histogram("queue.message.processing.duration", "One run of a handler.", handlerBounds)
	i.keyFetch = b.histogram("queue.key_cache.fetch.duration", "One question of a key cache to its key store.", brokerBounds)
}

func (i *instruments) gaugeStates(b *builder) {
	i.states.enabled = b.gauge("queue.crypto.enabled", "1 if every open sender and receiver of the queue in this process has encryption enabled.")
	i.states.paused = b.gauge("queue.receiving.paused", "1 while nothing is fetched, by the reason.")
	i.states.breaker = b.gauge("queue.breaker.state", "The circuit breaker: 0 closed, 1 half open, 2 open.")
	i.states.late = b.gauge("queue.messages.late", "Messages that are late: confirmed by the broker, and seen by no receiver of the group for MissingAfter.")
	i.states.missing = b.gauge("queue.messages.missing", "Messages that are missing: late, and too old to be handled if they come.")
	i.states.full = b.floatGauge("queue.replay_store.full", "How much of the tightest bound of the replay store is used, 0 to 1.")
	i.states.created = b.floatGauge("queue.crypto.key_created_timestamp", "When the key in use was made, in seconds since 1970.")
	i.states.expires = b.floatGauge("queue.crypto.key_expires_timestamp", "When the key in use expires, in seconds since 1970.")
}

// depthGauges are the gauges of WatchDepth.
func depthGauges(m metric.Meter) (depth metric.Int64ObservableGauge, age metric.Float64ObservableGauge, err error) {
	depth, err1 := m.Int64ObservableGauge("queue.depth", metric.WithDescription("Messages in the queue, by state, by the broker's word."))
	age, err2 := m.Float64ObservableGauge("queue.oldest_message.age", metric.WithUnit("s"), metric.WithDescription("How long the oldest message that could be delivered now has waited."))
	return depth, age, errors.Join(err1, err2)
}

// reason is the reason of a dead letter as a label: "other" if the application has
// given more than maxReasons.
func (i *instruments) reason(code string) string {
	if libraryReasons[code] {
		return code
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, ok := i.reasons[code]; ok {
		return code
	}
	if len(i.reasons) >= maxReasons {
		return "other"
	}
	i.reasons[code] = struct{}{}
	return code
}

// builder makes instruments and keeps the errors.
type builder struct {
	meter    metric.Meter
	observed []metric.Observable // those that are read when metrics are collected
	errs     []error
}

func (b *builder) counter(name, unit, text string) metric.Int64Counter {
	c, err := b.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
	b.errs = append(b.errs, err)
	return c
}

func (b *builder) upDownCounter(name, unit, text string) metric.Int64UpDownCounter {
	c, err := b.meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
	b.errs = append(b.errs, err)
	return c
}

func (b *builder) histogram(name, text string, bounds []float64) metric.Float64Histogram {
	h, err := b.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(text), metric.WithExplicitBucketBoundaries(bounds...))
	b.errs = append(b.errs, err)
	return h
}

func (b *builder) sum(name, unit, text string) metric.Int64Observable {
	c, err := b.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
	b.observe(c, err)
	return c
}

func (b *builder) upDownSum(name, unit, text string) metric.Int64Observable {
	c, err := b.meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(text))
	b.observe(c, err)
	return c
}

func (b *builder) gauge(name, text string) metric.Int64Observable {
	g, err := b.meter.Int64ObservableGauge(name, metric.WithDescription(text))
	b.observe(g, err)
	return g
}

func (b *builder) floatGauge(name, text string) metric.Float64Observable {
	g, err := b.meter.Float64ObservableGauge(name, metric.WithDescription(text))
	b.observe(g, err)
	return g
}

func (b *builder) observe(o metric.Observable, err error) {
	b.observed, b.errs = append(b.observed, o), append(b.errs, err)
}
