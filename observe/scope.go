package observe

import (
	"context"
	"sync/atomic"
	"time"
)

var lastID atomic.Uint64 // of a Source

// Scope is an Observer as one part of the library uses it, with the Source that it
// tells of. The zero Scope is not usable; see [NewScope].
type Scope struct {
	Observer
	Source Source
	active bool // an Observer is set
	traces bool // and makes spans
}

// NewScope returns a Scope over o, which may be nil. If o is set, a Source without an
// ID is given the next one.
func NewScope(o Observer, s Source) Scope {
	switch o.(type) {
	case nil, Nop:
		return Scope{Observer: Nop{}, Source: s}
	}
	if s.ID == 0 {
		s.ID = lastID.Add(1)
	}
	return Scope{Observer: o, Source: s, active: true, traces: o.Traces()}
}

// Active reports whether an Observer is set. Callers use it to leave out what only
// an Observer would read.
func (s *Scope) Active() bool { return s.active }

// Traces reports whether the Observer makes spans.
func (s *Scope) Traces() bool { return s.traces }

// Start calls Begin of the Observer with the scope's Source.
func (s *Scope) Start(ctx context.Context, op Operation) (context.Context, func(Result)) {
	if !s.active {
		return ctx, ended
	}
	return s.Observer.Begin(ctx, s.Source, op)
}

// Now is the time if an Observer is set, and zero otherwise.
func (s *Scope) Now() time.Time {
	if !s.active {
		return time.Time{}
	}
	return time.Now()
}

// TraceOf returns the trace context of ctx as a message carries it, nil if there is
// none.
func (s *Scope) TraceOf(ctx context.Context) map[string]string {
	if !s.traces {
		return nil
	}
	var t map[string]string
	s.Observer.Inject(ctx, func(name, value string) {
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

// WithTrace returns ctx with the trace context that a message carried.
func (s *Scope) WithTrace(ctx context.Context, trace map[string]string) context.Context {
	if !s.traces || len(trace) == 0 {
		return ctx
	}
	return s.Observer.Extract(ctx, func(name string) string { return trace[name] })
}
