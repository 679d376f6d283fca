// Package otelqueue observes package queue with OpenTelemetry: metrics, traces,
// and the trace context that travels in messages.
//
//	o, err := otelqueue.New(&otelqueue.Options{System: "aws_sqs"})
//	client, err := queue.New(broker, &queue.Options{Observer: o})
//
// It uses the API of OpenTelemetry alone: which exporters run is the
// application's choice. The names here are those that the exporter for Prometheus
// makes; docs/metrics.md lists them all.
//
// # Labels
//
// One word means one thing in every metric, span and log line:
//
//   - disposition: what became of a message (completed, abandoned, released,
//     dead_lettered, lost)
//   - reason: the code of a finding, of a dead letter, or of what paused a receiver
//   - error_type: the class of a failed operation
//   - operation: an operation's observe.Kind, renew, seal or open
//   - state: of messages in a queue, or of sessions that ended
//
// Message and session IDs are on spans only, and so are key IDs that were not
// authenticated. Codes that applications give dead letters are counted up to a hundred,
// and as "other" beyond.
//
// # Series
//
// A counter has no series before its first event, and a gauge has none after its
// sender, receiver or worker was closed. A forged message is therefore a series that
// begins at 1, which increase() of Prometheus does not see: the recording rules in
// folder observability do, and alerts should be built on them.
//
// A MeterProvider of OpenTelemetry's SDK keeps 2,000 series of an instrument unless
// sdk/metric.WithCardinalityLimit says otherwise, and counts what is beyond in one
// series with the label otel_metric_overflow and no other. An instrument has one or
// two series for each queue that is used normally (queue_crypto_key_uses_total two for
// each key), so raise the limit in a process of more than 500 queues. The alert
// QueueMetricsOverflow fires if it was reached.
//
// # Spans
//
// Spans follow the semantic conventions for messaging: "send", "receive", "process",
// "settle" and "redrive", each with the queue's name; queue.disposition says how a
// message was settled. A message carries the span of its send, with a Batcher that of
// its caller; its processing is a child of that, and the calls that carry many messages
// link to theirs. The results for each message (sealed, opened, rejected and why) are
// events on the span of the call. An attacker who controls the broker can forge a trace
// context: it says where a message claims to come from, and nothing more.
//
// # Concurrency
//
// An Observer is safe for concurrent use and starts no goroutine.
package otelqueue
