package otelqueue

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/queue-runtime/queue"
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
	attrOutcome   = attribute.Key("queue.outcome")
)

func isNoop(p trace.TracerProvider) bool {
	_, ok := p.(noop.TracerProvider)
	return ok
}

// start begins the span of an operation; nil where none is wanted.
func (o *Observer) start(ctx context.Context, op *queue.Operation) (context.Context, trace.Span) {
	if o.silent {
		return ctx, nil
	}
	name := op.Name // as a settlement has: "complete", "abandon", "dead-letter"
	if name == "" {
		name = string(op.Kind)
	}
	kind := trace.SpanKindClient
	operationType := "settle"
	switch op.Kind {
	case queue.OpSend:
		kind, operationType = trace.SpanKindProducer, "send"
	case queue.OpReceive:
		operationType = "receive"
	case queue.OpProcess:
		kind, operationType = trace.SpanKindConsumer, "process"
	case queue.OpRedrive:
		kind, operationType = trace.SpanKindProducer, "send"
	}
	attributes := []attribute.KeyValue{
		attrSystem.String(o.system),
		attrType.String(operationType),
		attrDestination.String(op.Queue),
		attrOperation.String(name),
	}
	if op.MessageID != "" {
		attributes = append(attributes, attrMessageID.String(op.MessageID))
	} else if op.Count > 0 && op.Kind != queue.OpReceive {
		attributes = append(attributes, attrCount.Int(op.Count))
	}
	if op.SessionID != "" {
		attributes = append(attributes, attrSession.String(op.SessionID))
	}
	if op.Kind == queue.OpSend || op.Kind == queue.OpProcess {
		attributes = append(attributes, attrEncrypted.Bool(op.Encrypted))
	}
	if op.KeyID != "" {
		attributes = append(attributes, attrKey.String(string(op.KeyID)))
	}
	if op.Delivered > 0 {
		attributes = append(attributes, attrDelivery.Int(op.Delivered))
	}
	related := links(op.Links)
	if op.Kind == queue.OpProcess {
		// Parent and link: backends that follow either find the message's sender.
		if sender := trace.SpanContextFromContext(ctx); sender.IsRemote() {
			related = append(related, trace.Link{SpanContext: sender})
		}
	}
	return o.tracer.Start(ctx, name+" "+op.Queue,
		trace.WithSpanKind(kind), trace.WithAttributes(attributes...), trace.WithLinks(related...))
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

func finish(span trace.Span, kind queue.OperationKind, r *queue.Result) {
	if kind == queue.OpReceive {
		span.SetAttributes(attrCount.Int(r.Count))
	}
	for _, l := range links(r.Links) {
		span.AddLink(l)
	}
	if r.Outcome != "" {
		span.SetAttributes(attrOutcome.String(r.Outcome))
	}
	if r.Err != nil {
		// The text of a handler's error may hold payload: the code alone.
		code := errorType(r.Err)
		span.SetAttributes(attrErrorType.String(code))
		span.SetStatus(codes.Error, code)
	}
	span.End()
}

// note puts what happened to a message on the current span. Keys are named,
// never shown.
func note(ctx context.Context, e *queue.Event) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	switch e.Kind {
	case queue.EventSealed, queue.EventOpened, queue.EventKeyUsed, queue.EventCryptoError, queue.EventRejected,
		queue.EventDeadLettered, queue.EventDuplicate, queue.EventRetry, queue.EventRenewed, queue.EventPaused, queue.EventResumed:
	default:
		return
	}
	var attributes []attribute.KeyValue
	if e.KeyID != "" {
		key := attrKey
		if e.Kind == queue.EventCryptoError || e.Kind == queue.EventRejected || e.Kind == queue.EventOpened && e.Err != nil {
			key = attrClaimed
		}
		attributes = append(attributes, key.String(string(e.KeyID)))
	}
	if e.ErrorType != "" {
		attributes = append(attributes, attrErrorType.String(e.ErrorType))
	}
	if e.Reason != "" {
		attributes = append(attributes, attribute.String("queue.reason", e.Reason))
	}
	if e.Err != nil && e.ErrorType == "" {
		attributes = append(attributes, attrErrorType.String(errorType(e.Err)))
	}
	span.AddEvent("queue."+string(e.Kind), trace.WithAttributes(attributes...))
}
