package queue

import (
	"context"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// Observer is told what happens, for metrics and traces. Package otelqueue
// implements it with OpenTelemetry. All methods are called from many goroutines
// at once, must not block, and must not retain the maps or slices they are
// given. Implementations embed [NopObserver], so that the interface can grow.
//
// A nil Observer costs a branch and no allocation. One that makes no spans can have a
// method Traces() bool that answers false, which is asked when a sender or receiver
// opens: it is then neither asked for trace contexts nor given Links, which spares
// their allocations.
type Observer interface {
	// Begin is called before an operation; the function it returns, after. The
	// context it returns is used for the operation's calls.
	Begin(ctx context.Context, op Operation) (context.Context, func(Result))

	// Event is called when something happened to one message, key, session,
	// queue or breaker.
	Event(ctx context.Context, e Event)

	// Inject hands the trace context of ctx to set as W3C traceparent and
	// tracestate (W3C Trace Context, Section 3). Other names are ignored.
	Inject(ctx context.Context, set func(name, value string))

	// Extract returns ctx with the trace context that get gives. It is not
	// authenticated: whoever controls the broker can set it.
	Extract(ctx context.Context, get func(name string) string) context.Context
}

// OperationKind names an operation of the library.
type OperationKind string

// The operations.
const (
	OpSend    OperationKind = "send"    // one call to the broker, Count messages
	OpReceive OperationKind = "receive" // one call to the broker, and the opening of what came
	OpSettle  OperationKind = "settle"  // one delivery; Name says how
	OpProcess OperationKind = "process" // one run of a handler
	OpRedrive OperationKind = "redrive" // one dead letter
)

// Operation is what begins.
type Operation struct {
	Kind        OperationKind
	Queue       string
	Environment string
	// Name is the way of settling: "complete", "abandon", "dead-letter", "renew".
	Name string
	// Count is the number of messages that are sent, or asked for.
	Count int
	// MessageID, SessionID and Trace are set where the operation concerns one
	// message. They belong on spans, never in labels of metrics.
	MessageID string
	SessionID string
	Encrypted bool
	KeyID     keys.ID
	// Delivered is the count of deliveries so far, for OpProcess.
	Delivered int
	// Links are the trace contexts that messages carry already, in order; a nil
	// entry has none. For OpSettle, OpRedrive, and the OpSend of a Batcher,
	// whose messages keep the contexts of those who sent them.
	Links []map[string]string
}

// Result is how an operation ended.
type Result struct {
	// Err is why it failed. That of an OpProcess is what the handler returned: its
	// text may hold payload.
	Err   error
	Count int // messages sent or received
	// Took is how long the broker took, where the operation goes on after its
	// answer: an OpReceive ends when its messages are opened and what is wrong
	// with them was reported. 0: until now.
	Took time.Duration
	// Outcome is how the Processor settled the message of an OpProcess:
	// "complete", "retry", "dead_letter", "release", "lost", "unsettled".
	Outcome string
	// Links are as in Operation, of the messages that OpReceive brought.
	Links []map[string]string
}

// EventKind names something that happened.
type EventKind string

// The events, and which fields of Event they set beside Queue and Environment.
const (
	EventSent         EventKind = "sent"          // Encrypted, KeyID, Bytes
	EventReceived     EventKind = "received"      // Encrypted, KeyID, Bytes; delivered to the application
	EventSealed       EventKind = "sealed"        // Duration, KeyID, Bytes
	EventOpened       EventKind = "opened"        // Duration, KeyID, Bytes; Err where it failed
	EventRejected     EventKind = "rejected"      // ErrorType, Reason (the Disposition), KeyID (not authenticated)
	EventCryptoError  EventKind = "crypto_error"  // ErrorType; also plaintext_allowed and a sender's encryption_failed, which are no rejections
	EventDeadLettered EventKind = "dead_lettered" // Reason: a code of this library or the application's
	EventDuplicate    EventKind = "duplicate"     // a handled message came back and was completed
	EventConfigured   EventKind = "configured"    // Encrypted: whether it has encryption enabled; Reason: "sender" or "receiver"
	EventKeyUsed      EventKind = "key_used"      // KeyID, Created, Expires; when a sender takes up a key
	EventPaused       EventKind = "paused"        // ErrorType: why fetching stopped
	EventResumed      EventKind = "resumed"       // ErrorType: what is over
	EventRenewed      EventKind = "renewed"       // Err where the lock could not be renewed
	EventSession      EventKind = "session"       // Delta: +1 accepted, -1 closed or lost; Reason
	EventHandled      EventKind = "handled"       // Duration, Reason (the outcome), Err (the handler's, whose text may hold payload)
	EventRetry        EventKind = "retry"         // Delay
	EventBreaker      EventKind = "breaker"       // Reason: the new state
	EventInFlight     EventKind = "in_flight"     // Delta: handlers that run
	EventRedriven     EventKind = "redriven"      // Reason: the outcome
)

// Event is something that happened.
type Event struct {
	Kind        EventKind
	Queue       string
	Environment string
	Encrypted   bool
	KeyID       keys.ID
	ErrorType   string
	Reason      string
	Duration    time.Duration
	Delay       time.Duration
	Bytes       int
	Delta       int
	Created     time.Time
	Expires     time.Time
	Err         error
}

// NopObserver does nothing.
type NopObserver struct{}

// Begin returns ctx and a function that does nothing.
func (NopObserver) Begin(ctx context.Context, _ Operation) (context.Context, func(Result)) {
	return ctx, func(Result) {}
}

// Event does nothing.
func (NopObserver) Event(context.Context, Event) {}

// Inject does nothing.
func (NopObserver) Inject(context.Context, func(string, string)) {}

// Extract returns ctx.
func (NopObserver) Extract(ctx context.Context, _ func(string) string) context.Context { return ctx }

// scope is the Observer as one sender or receiver uses it: it fills in queue and
// environment, and is one branch where there is none.
type scope struct {
	o           Observer
	traces      bool // whether o makes spans
	queue       string
	environment string
}

func newScope(o Observer, queue, environment string) scope {
	s := scope{o: o, traces: o != nil, queue: queue, environment: environment}
	if t, ok := o.(interface{ Traces() bool }); ok {
		s.traces = t.Traces()
	}
	return s
}

func ended(Result) {}

func (s *scope) begin(ctx context.Context, op Operation) (context.Context, func(Result)) {
	if s.o == nil {
		return ctx, ended
	}
	op.Queue, op.Environment = s.queue, s.environment
	return s.o.Begin(ctx, op)
}

// clock is the time, where somebody is told how long something takes.
func (s *scope) clock() time.Time {
	if s.o == nil {
		return time.Time{}
	}
	return time.Now()
}

func (s *scope) event(ctx context.Context, e Event) {
	if s.o == nil {
		return
	}
	e.Queue, e.Environment = s.queue, s.environment
	s.o.Event(ctx, e)
}

// inject returns the trace context of ctx, nil where there is none.
func (s *scope) inject(ctx context.Context) map[string]string {
	if !s.traces {
		return nil
	}
	var t map[string]string
	s.o.Inject(ctx, func(name, value string) {
		if value == "" || name != "traceparent" && name != "tracestate" {
			return
		}
		if t == nil {
			t = make(map[string]string, 2)
		}
		t[name] = value
	})
	return t
}

func (s *scope) extract(ctx context.Context, trace map[string]string) context.Context {
	if !s.traces || len(trace) == 0 {
		return ctx
	}
	return s.o.Extract(ctx, func(name string) string { return trace[name] })
}
