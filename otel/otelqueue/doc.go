// Package otelqueue observes package queue with OpenTelemetry: metrics, traces,
// and the trace context that travels in messages.
//
//	o, err := otelqueue.New(&otelqueue.Options{System: "aws_sqs"})
//	client, err := queue.New(provider, &queue.Options{Observer: o})
//
// It uses the API of OpenTelemetry alone: which exporters run is the
// application's choice. Through the Prometheus exporter the metrics have the names
// of the original: queue_messages_sent_total{queue,encrypted} and their kin, listed
// in docs/metrics.md.
//
// Labels come from bounded sets: queues, key IDs that were used or authenticated,
// codes. Message and session IDs are on spans alone. Codes that applications give
// dead letters are counted up to a hundred, and as "other" beyond. What is counted
// of a queue begins at 0 when its sender or receiver opens, so that the first
// forged message is an increase and not the beginning of a series.
//
// Spans follow the semantic conventions for messaging: "send", "receive",
// "process", and "complete", "abandon" or "dead-letter" for settling, each with the
// queue's name. A message carries the span of its send, or with a Batcher that
// of whoever sent it; its processing is a child of that, and the calls that carry
// many messages link to theirs. What is found out about messages (sealed, opened,
// rejected and why) is an event on the span of the call. Whoever controls the
// broker can forge a trace context: it says where a message claims to come from,
// and nothing more.
//
// An Observer is safe for concurrent use and starts no goroutine.
package otelqueue
