package otelqueue

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

// The attributes of spans (OpenTelemetry semantic conventions 1.43, messaging spans).
const (
	attrSystem      = semconv.MessagingSystemKey
	attrOperation   = semconv.MessagingOperationNameKey
	attrType        = semconv.MessagingOperationTypeKey
	attrDestination = semconv.MessagingDestinationNameKey
	attrMessageID   = semconv.MessagingMessageIDKey
	attrCount       = semconv.MessagingBatchMessageCountKey
	attrErrorType   = semconv.ErrorTypeKey

	// Of this library.
	attrSession   = attribute.Key("queue.session.id")
	attrEncrypted = attribute.Key("queue.encrypted")
	attrKey       = attribute.Key("queue.key.id")
	attrClaimed   = attribute.Key("queue.key.claimed_id") // of a message that is not authentic
	attrDelivery  = attribute.Key("queue.delivery.count")

	attrDisposition = attribute.Key("queue.disposition")
	attrReason      = attribute.Key("queue.reason")
	attrPlanned     = attribute.Key("queue.retry.planned")
	attrDelay       = attribute.Key("queue.retry.delay") // seconds
)

func isNoop(p trace.TracerProvider) bool {
	_, ok := p.(noop.TracerProvider)
	return ok
}

// role is the kind of span and the messaging.operation.type of an operation.
type role struct {
	kind          trace.SpanKind
	operationType string
}

var roles = map[observe.Kind]role{
	observe.Send:    {trace.SpanKindProducer, "send"},
	observe.Receive: {trace.SpanKindClient, "receive"},
	observe.Settle:  {trace.SpanKindClient, "settle"},
	observe.Process: {trace.SpanKindConsumer, "process"},
	observe.Redrive: {trace.SpanKindProducer, "send"},
}

// start begins the span of an operation. The span is nil if none are made.
func (o *Observer) start(ctx context.Context, queue string, op *observe.Operation) (context.Context, trace.Span) {
	if o.silent {
		return ctx, nil
	}
	r := roles[op.Kind]
	related := links(op.Links)
	if op.Kind == observe.Process {
		// Parent and link: backends that follow either find the message's sender.
		if sender := trace.SpanContextFromContext(ctx); sender.IsRemote() {
			related = append(related, trace.Link{SpanContext: sender})
		}
	}
	attributes := append([]attribute.KeyValue{
		attrSystem.String(o.system),
		attrType.String(r.operationType),
		attrDestination.String(queue),
		attrOperation.String(string(op.Kind)),
	}, describe(op)...)
	return o.tracer.Start(ctx, string(op.Kind)+" "+queue,
		trace.WithSpanKind(r.kind), trace.WithAttributes(attributes...), trace.WithLinks(related...))
}

// describe returns the attributes that not every operation has.
func describe(op *observe.Operation) []attribute.KeyValue {
	n := note{}.text(attrDisposition, string(op.Disposition)).text(attrMessageID, op.MessageID).
		text(attrSession, op.SessionID).keyID(attrKey, op.KeyID)
	if op.MessageID == "" && op.Count > 0 && op.Kind != observe.Receive {
		n = append(n, attrCount.Int(op.Count))
	}
	if op.Kind == observe.Send || op.Kind == observe.Process {
		n = append(n, attrEncrypted.Bool(op.Encrypted))
	}
	if op.Deliveries > 0 {
		n = append(n, attrDelivery.Int(op.Deliveries))
	}
	return n
}

// links are the spans that messages came from.
func links(carried []map[string]string) []trace.Link {
	var all []trace.Link
	for _, c := range carried {
		if len(c) == 0 {
			continue
		}
		sc := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier(c)))
		if sc.IsValid() {
			all = append(all, trace.Link{SpanContext: sc})
		}
	}
	return all
}

// finish ends the span of an operation.
func finish(span trace.Span, kind observe.Kind, r *observe.Result) {
	if kind == observe.Receive {
		span.SetAttributes(attrCount.Int(r.Count))
	}
	for _, l := range links(r.Links) {
		span.AddLink(l)
	}
	if r.Disposition != "" {
		span.SetAttributes(attrDisposition.String(string(r.Disposition)))
	}
	if r.Err != nil {
		// The text of a handler's error may hold payload: only its class is shown.
		class := errorType(r.Err)
		span.SetAttributes(attrErrorType.String(class))
		span.SetStatus(codes.Error, class)
	}
	span.End()
}

// recording returns the span of ctx if it records, otherwise nil.
func (o *Observer) recording(ctx context.Context) trace.Span {
	if o.silent {
		return nil
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return span
	}
	return nil
}

// note is what an event on a span says. Keys are named, never shown.
type note []attribute.KeyValue

// text adds v unless it is empty.
func (n note) text(name attribute.Key, v string) note {
	if v == "" {
		return n
	}
	return append(n, name.String(v))
}

// keyID adds id unless it is empty.
func (n note) keyID(name attribute.Key, id keys.ID) note { return n.text(name, string(id)) }

// failure adds the class of err unless it is nil.
func (n note) failure(err error) note {
	if err == nil {
		return n
	}
	return append(n, attrErrorType.String(errorType(err)))
}

func (n note) addTo(span trace.Span, event string) { span.AddEvent(event, trace.WithAttributes(n...)) }
