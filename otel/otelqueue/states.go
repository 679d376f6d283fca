package otelqueue

import (
	"context"
	"math"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/observe"
)

// states are what the gauges tell: how each sender, receiver and worker is now. Closed
// removes one, and a gauge has no series for what is not there.
type states struct {
	enabled, paused, breaker metric.Int64Observable
	created, expires         metric.Float64Observable
	late, missing            metric.Int64Observable
	full                     metric.Float64Observable

	mu        sync.Mutex // guards the rest
	endpoints map[observe.Source]*endpointState
	breakers  map[observe.Source]int64
}

// endpointState is how one sender, receiver or dead-letter tool is.
type endpointState struct {
	configured bool
	encrypted  bool
	paused     map[string]bool // whether it is now, for each reason that it ever was
	key        observe.KeyUsed
	account    *observe.Accounted // the last; nil before the first
	wasLate    bool               // a message ever was
	wasMissing bool               // a message ever was
}

// breakerStates are the values of queue_breaker_state.
var breakerStates = map[string]int64{string(backoff.Closed): 0, string(backoff.HalfOpen): 1, string(backoff.Open): 2}

// change calls f with the state of s.
func (x *states) change(s observe.Source, f func(*endpointState)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.endpoints[s]
	if e == nil {
		e = &endpointState{paused: make(map[string]bool)}
		x.endpoints[s] = e
	}
	f(e)
}

func (x *states) setBreaker(s observe.Source, state string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.breakers[s] = breakerStates[state]
}

// closed forgets what s was in that role.
func (x *states) closed(s observe.Source, role observe.Role) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if role == observe.Worker {
		delete(x.breakers, s)
		return
	}
	delete(x.endpoints, s)
}

// gaugeValues are the series of the gauges at one moment.
type gaugeValues struct {
	enabled, paused, breaker map[labels]int64
	created, expires         map[labels]time.Time
	late, missing            map[labels]int64
	full                     map[labels]float64
}

// values sums up the states by labels. Of several senders and receivers of a queue the
// one that fares worst counts: the one without encryption, the paused one, the open
// breaker.
func (x *states) values() gaugeValues {
	v := gaugeValues{
		enabled: make(map[labels]int64), paused: make(map[labels]int64), breaker: make(map[labels]int64),
		created: make(map[labels]time.Time), expires: make(map[labels]time.Time),
		late: make(map[labels]int64), missing: make(map[labels]int64), full: make(map[labels]float64),
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for s, e := range x.endpoints {
		if e.configured {
			l := labels{byEnvironment, s.Queue, s.Environment, ""}
			n, ok := v.enabled[l]
			if v.enabled[l] = number(e.encrypted); ok {
				v.enabled[l] = min(n, v.enabled[l])
			}
		}
		for reason, now := range e.paused {
			l := labels{byReason, s.Queue, reason, ""}
			v.paused[l] = max(v.paused[l], number(now))
		}
		v.addAccount(s.Queue, e)
		key := labels{byKey, s.Queue, string(e.key.KeyID), ""}
		if !e.key.Created.IsZero() {
			v.created[key] = e.key.Created
		}
		if !e.key.Expires.IsZero() {
			v.expires[key] = e.key.Expires
		}
	}
	for s, state := range x.breakers {
		l := labels{byQueue, s.Queue, "", ""}
		v.breaker[l] = max(v.breaker[l], state)
	}
	return v
}

// addAccount takes in the account of one receiver; all receivers of a group say the same. Late
// and missing messages have series from the first one on.
func (v *gaugeValues) addAccount(queue string, e *endpointState) {
	if e.account == nil {
		return
	}
	l := labels{byQueue, queue, "", ""}
	v.full[l] = max(v.full[l], e.account.Full)
	if e.wasLate {
		v.late[l] = max(v.late[l], int64(min(e.account.Late, math.MaxInt64))) //nolint:gosec // G115: bounded
	}
	if e.wasMissing {
		v.missing[l] = max(v.missing[l], int64(min(e.account.Missing, math.MaxInt64))) //nolint:gosec // G115: bounded
	}
}

// reportStates observes the gauges.
func (i *instruments) reportStates(o metric.Observer) {
	v := i.states.values()
	for gauge, all := range map[metric.Int64Observable]map[labels]int64{
		i.states.enabled: v.enabled, i.states.paused: v.paused, i.states.breaker: v.breaker,
		i.states.late: v.late, i.states.missing: v.missing,
	} {
		for l, n := range all {
			o.ObserveInt64(gauge, n, i.series(l).observe...)
		}
	}
	for l, share := range v.full {
		o.ObserveFloat64(i.states.full, share, i.series(l).observe...)
	}
	for gauge, all := range map[metric.Float64Observable]map[labels]time.Time{i.states.created: v.created, i.states.expires: v.expires} {
		for l, t := range all {
			o.ObserveFloat64(gauge, float64(t.UnixMilli())/1000, i.series(l).observe...)
		}
	}
}

// Configured records whether the sender or receiver has encryption enabled.
func (o *Observer) Configured(_ context.Context, s observe.Source, e observe.Configured) {
	o.metrics.states.change(s, func(x *endpointState) { x.configured, x.encrypted = true, e.Encrypted })
}

// Closed ends the gauges of what was closed.
func (o *Observer) Closed(_ context.Context, s observe.Source, e observe.Closed) {
	o.metrics.states.closed(s, e.Role)
}

// KeyUsed records when the key in use was made and when it expires.
func (o *Observer) KeyUsed(ctx context.Context, s observe.Source, e observe.KeyUsed) {
	o.metrics.states.change(s, func(x *endpointState) { x.key = e })
	if span := o.recording(ctx); span != nil {
		note{}.keyID(attrKey, e.KeyID).addTo(span, "queue.key_used")
	}
}

// Accounted records how many messages are late and missing, and how full the replay store
// is. One that comes just after Closed changes nothing.
func (o *Observer) Accounted(_ context.Context, s observe.Source, e observe.Accounted) {
	x := &o.metrics.states
	x.mu.Lock()
	defer x.mu.Unlock()
	if state := x.endpoints[s]; state != nil {
		state.account = &e
		state.wasLate = state.wasLate || e.Late > 0
		state.wasMissing = state.wasMissing || e.Missing > 0
	}
}

// Paused records that a receiver fetches nothing.
func (o *Observer) Paused(ctx context.Context, s observe.Source, e observe.Paused) {
	o.metrics.states.change(s, func(x *endpointState) { x.paused[e.Reason] = true })
	if span := o.recording(ctx); span != nil {
		note{}.text(attrReason, e.Reason).addTo(span, "queue.paused")
	}
}

// Resumed records that a receiver fetches again.
func (o *Observer) Resumed(ctx context.Context, s observe.Source, e observe.Resumed) {
	o.metrics.states.change(s, func(x *endpointState) { x.paused[e.Reason] = false })
	if span := o.recording(ctx); span != nil {
		note{}.text(attrReason, e.Reason).addTo(span, "queue.resumed")
	}
}

// Breaker records the state of a circuit breaker.
func (o *Observer) Breaker(_ context.Context, s observe.Source, e observe.Breaker) {
	o.metrics.states.setBreaker(s, e.State)
}

func number(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
