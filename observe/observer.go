package observe

import "context"

// Observer gets the events and operations of the library. Implementations embed [Nop],
// so that the interface can grow.
//
// The library calls a method only if the program set an Observer; without one an
// event costs a call of an empty method and no allocation.
type Observer interface {
	// Begin is called before an operation, and the function that it returns after
	// it. Calls of the operation run in the context that Begin returns.
	Begin(ctx context.Context, s Source, op Operation) (context.Context, func(Result))

	// Traces reports whether the Observer makes spans. It is asked once, when a
	// sender or receiver opens. If it is false, Inject and Extract are never
	// called and Links are nil, which saves their allocations.
	Traces() bool

	// Inject hands the trace context of ctx to set, as W3C traceparent and
	// tracestate (W3C Trace Context, Section 3). Other names are ignored.
	Inject(ctx context.Context, set func(name, value string))

	// Extract returns ctx with the trace context that get gives. The broker can
	// set it: it is not authenticated.
	Extract(ctx context.Context, get func(name string) string) context.Context

	// The other methods are called after the event of their name; the event's type says
	// what happened.

	// Sealed: see the type [Sealed].
	Sealed(ctx context.Context, s Source, e Sealed)
	// Sent: see the type [Sent].
	Sent(ctx context.Context, s Source, e Sent)
	// Opened: see the type [Opened].
	Opened(ctx context.Context, s Source, e Opened)
	// Received: see the type [Received].
	Received(ctx context.Context, s Source, e Received)
	// Rejected: see the type [Rejected].
	Rejected(ctx context.Context, s Source, e Rejected)
	// Duplicate: see the type [Duplicate].
	Duplicate(ctx context.Context, s Source, e Duplicate)
	// Gap: see the type [Gap].
	Gap(ctx context.Context, s Source, e Gap)
	// Accounted: see the type [Accounted].
	Accounted(ctx context.Context, s Source, e Accounted)
	// Late: see the type [Late].
	Late(ctx context.Context, s Source, e Late)
	// Missing: see the type [Missing].
	Missing(ctx context.Context, s Source, e Missing)
	// DeadLettered: see the type [DeadLettered].
	DeadLettered(ctx context.Context, s Source, e DeadLettered)
	// Flood: see the type [Flood].
	Flood(ctx context.Context, s Source, e Flood)
	// Redriven: see the type [Redriven].
	Redriven(ctx context.Context, s Source, e Redriven)
	// CryptoError: see the type [CryptoError].
	CryptoError(ctx context.Context, s Source, e CryptoError)
	// Handled: see the type [Handled].
	Handled(ctx context.Context, s Source, e Handled)
	// Retried: see the type [Retried].
	Retried(ctx context.Context, s Source, e Retried)
	// Renewed: see the type [Renewed].
	Renewed(ctx context.Context, s Source, e Renewed)
	// Configured: see the type [Configured].
	Configured(ctx context.Context, s Source, e Configured)
	// Closed: see the type [Closed].
	Closed(ctx context.Context, s Source, e Closed)
	// KeyUsed: see the type [KeyUsed].
	KeyUsed(ctx context.Context, s Source, e KeyUsed)
	// Paused: see the type [Paused].
	Paused(ctx context.Context, s Source, e Paused)
	// Resumed: see the type [Resumed].
	Resumed(ctx context.Context, s Source, e Resumed)
	// Session: see the type [Session].
	Session(ctx context.Context, s Source, e Session)
	// Breaker: see the type [Breaker].
	Breaker(ctx context.Context, s Source, e Breaker)
	// InFlight: see the type [InFlight].
	InFlight(ctx context.Context, s Source, e InFlight)
}

// Source says which part of a program an event or operation is about.
type Source struct {
	Queue       string // the queue's name
	Environment string // Options.Environment of the client; empty if it has none
	// ID tells the senders and receivers of one process apart. [NewScope] numbers
	// them from 1. A worker has the ID of its receiver.
	ID uint64
}

// Nop is an Observer that does nothing.
type Nop struct{}

var _ Observer = Nop{}

// Begin returns ctx and a function that does nothing.
func (Nop) Begin(ctx context.Context, _ Source, _ Operation) (context.Context, func(Result)) {
	return ctx, ended
}

func ended(Result) {}

// Traces returns false.
func (Nop) Traces() bool { return false }

// Inject does nothing.
func (Nop) Inject(context.Context, func(string, string)) {}

// Extract returns ctx.
func (Nop) Extract(ctx context.Context, _ func(string) string) context.Context { return ctx }

// Sealed does nothing.
func (Nop) Sealed(context.Context, Source, Sealed) {}

// Sent does nothing.
func (Nop) Sent(context.Context, Source, Sent) {}

// Opened does nothing.
func (Nop) Opened(context.Context, Source, Opened) {}

// Received does nothing.
func (Nop) Received(context.Context, Source, Received) {}

// Rejected does nothing.
func (Nop) Rejected(context.Context, Source, Rejected) {}

// Duplicate does nothing.
func (Nop) Duplicate(context.Context, Source, Duplicate) {}

// Gap does nothing.
func (Nop) Gap(context.Context, Source, Gap) {}

// Accounted does nothing.
func (Nop) Accounted(context.Context, Source, Accounted) {}

// Late does nothing.
func (Nop) Late(context.Context, Source, Late) {}

// Missing does nothing.
func (Nop) Missing(context.Context, Source, Missing) {}

// DeadLettered does nothing.
func (Nop) DeadLettered(context.Context, Source, DeadLettered) {}

// Flood does nothing.
func (Nop) Flood(context.Context, Source, Flood) {}

// Redriven does nothing.
func (Nop) Redriven(context.Context, Source, Redriven) {}

// CryptoError does nothing.
func (Nop) CryptoError(context.Context, Source, CryptoError) {}

// Handled does nothing.
func (Nop) Handled(context.Context, Source, Handled) {}

// Retried does nothing.
func (Nop) Retried(context.Context, Source, Retried) {}

// Renewed does nothing.
func (Nop) Renewed(context.Context, Source, Renewed) {}

// Configured does nothing.
func (Nop) Configured(context.Context, Source, Configured) {}

// Closed does nothing.
func (Nop) Closed(context.Context, Source, Closed) {}

// KeyUsed does nothing.
func (Nop) KeyUsed(context.Context, Source, KeyUsed) {}

// Paused does nothing.
func (Nop) Paused(context.Context, Source, Paused) {}

// Resumed does nothing.
func (Nop) Resumed(context.Context, Source, Resumed) {}

// Session does nothing.
func (Nop) Session(context.Context, Source, Session) {}

// Breaker does nothing.
func (Nop) Breaker(context.Context, Source, Breaker) {}

// InFlight does nothing.
func (Nop) InFlight(context.Context, Source, InFlight) {}
