package observe

import "context"

// Func is an Observer that is called with each event, for programs that look at
// few of them and for tests:
//
//	observe.Func(func(_ context.Context, s observe.Source, event any) {
//		if e, ok := event.(observe.Rejected); ok {
//			count(s.Queue, e.Reason)
//		}
//	})
//
// It makes no spans, and each event costs an allocation.
type Func func(ctx context.Context, s Source, event any)

var _ Observer = Func(nil)

// Begin returns ctx and a function that does nothing.
func (Func) Begin(ctx context.Context, _ Source, _ Operation) (context.Context, func(Result)) {
	return ctx, ended
}

// Traces returns false.
func (Func) Traces() bool { return false }

// Inject does nothing.
func (Func) Inject(context.Context, func(string, string)) {}

// Extract returns ctx.
func (Func) Extract(ctx context.Context, _ func(string) string) context.Context { return ctx }

// Sealed calls f.
func (f Func) Sealed(ctx context.Context, s Source, e Sealed) { f(ctx, s, e) }

// Sent calls f.
func (f Func) Sent(ctx context.Context, s Source, e Sent) { f(ctx, s, e) }

// Opened calls f.
func (f Func) Opened(ctx context.Context, s Source, e Opened) { f(ctx, s, e) }

// Received calls f.
func (f Func) Received(ctx context.Context, s Source, e Received) { f(ctx, s, e) }

// Rejected calls f.
func (f Func) Rejected(ctx context.Context, s Source, e Rejected) { f(ctx, s, e) }

// Duplicate calls f.
func (f Func) Duplicate(ctx context.Context, s Source, e Duplicate) { f(ctx, s, e) }

// Gap calls f.
func (f Func) Gap(ctx context.Context, s Source, e Gap) { f(ctx, s, e) }

// Accounted calls f.
func (f Func) Accounted(ctx context.Context, s Source, e Accounted) { f(ctx, s, e) }

// Late calls f.
func (f Func) Late(ctx context.Context, s Source, e Late) { f(ctx, s, e) }

// Missing calls f.
func (f Func) Missing(ctx context.Context, s Source, e Missing) { f(ctx, s, e) }

// DeadLettered calls f.
func (f Func) DeadLettered(ctx context.Context, s Source, e DeadLettered) { f(ctx, s, e) }

// Flood calls f.
func (f Func) Flood(ctx context.Context, s Source, e Flood) { f(ctx, s, e) }

// Redriven calls f.
func (f Func) Redriven(ctx context.Context, s Source, e Redriven) { f(ctx, s, e) }

// CryptoError calls f.
func (f Func) CryptoError(ctx context.Context, s Source, e CryptoError) { f(ctx, s, e) }

// Handled calls f.
func (f Func) Handled(ctx context.Context, s Source, e Handled) { f(ctx, s, e) }

// Retried calls f.
func (f Func) Retried(ctx context.Context, s Source, e Retried) { f(ctx, s, e) }

// Renewed calls f.
func (f Func) Renewed(ctx context.Context, s Source, e Renewed) { f(ctx, s, e) }

// Configured calls f.
func (f Func) Configured(ctx context.Context, s Source, e Configured) { f(ctx, s, e) }

// Closed calls f.
func (f Func) Closed(ctx context.Context, s Source, e Closed) { f(ctx, s, e) }

// KeyUsed calls f.
func (f Func) KeyUsed(ctx context.Context, s Source, e KeyUsed) { f(ctx, s, e) }

// Paused calls f.
func (f Func) Paused(ctx context.Context, s Source, e Paused) { f(ctx, s, e) }

// Resumed calls f.
func (f Func) Resumed(ctx context.Context, s Source, e Resumed) { f(ctx, s, e) }

// Session calls f.
func (f Func) Session(ctx context.Context, s Source, e Session) { f(ctx, s, e) }

// Breaker calls f.
func (f Func) Breaker(ctx context.Context, s Source, e Breaker) { f(ctx, s, e) }

// InFlight calls f.
func (f Func) InFlight(ctx context.Context, s Source, e InFlight) { f(ctx, s, e) }
