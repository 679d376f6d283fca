package worker_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/worker"
)

// failedCalls collects the calls to the broker that were told as failed.
type failedCalls struct {
	observe.Nop
	mu  sync.Mutex // guards all
	all []error
}

func (o *failedCalls) Begin(ctx context.Context, _ observe.Source, _ observe.Operation) (context.Context, func(observe.Result)) {
	return ctx, func(r observe.Result) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if r.Err != nil {
			o.all = append(o.all, r.Err)
		}
	}
}

// A pool whose queue is empty, or brings nothing that may be handled, asks every Wait and says
// nothing: no line, no failed call, no change of the breaker. After an outage, such a call
// closes the breaker.
func TestIdleIsNoFailure(t *testing.T) {
	const (
		wait = 5 * time.Second
		idle = 30 * time.Minute
	)
	for name, c := range map[string]struct {
		parallel, sessions bool
		session            string // of the messages that are rejected
	}{
		"one call at a time":    {},
		"calls side by side":    {parallel: true},
		"sessions":              {sessions: true, session: "s"},
		"sessions of no name":   {sessions: true},
		"messages of a session": {session: "s"},
	} {
		inBubble(t, nil, func(x *fixture) {
			faulty := &fixturetest.FaultyBroker{Broker: x.Broker}
			far := &farBroker{Broker: faulty, parallel: c.parallel}
			o, log := &failedCalls{}, &fixturetest.Log{}
			logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
			client, err := queue.New(far, &queue.Options{Keys: x.Ring, Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject}, Logger: logger, Observer: o})
			x.Must(err)
			r, err := client.Receiver(x.Context(), orders, &queue.ReceiverOptions{Wait: wait})
			x.Must(err)
			var mu sync.Mutex
			var states []backoff.State
			handled := 0
			h := worker.HandlerFunc(func(context.Context, *queue.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				handled++
				return nil
			})
			_, stop := x.run(r, h, &worker.Options{Concurrency: 40, Breaker: backoff.BreakerOptions{OnChange: func(s backoff.State) {
				mu.Lock()
				defer mu.Unlock()
				states = append(states, s)
			}}}, &worker.HandleOptions{Sessions: c.sessions})
			x.Pass(idle)
			if n, most := far.calls.Load(), int64(idle/wait)+5; !c.sessions && (n > most || n < most/2) {
				x.Errorf("%s: %d calls in %s, want about one every %s", name, n, idle, wait)
			}
			x.Send(&queue.Message{SessionID: c.session, Body: []byte("a")})
			x.Pass(idle)
			mu.Lock()
			if said := log.String(); said != "" || len(states) > 0 || len(o.all) > 0 || handled != 1 {
				x.Errorf("%s: %d handled, states %v, failed calls %v, told %s; want 1 and nothing else", name, handled, states, o.all, said)
			}
			mu.Unlock()

			x.Inject(orders, driver.Message{ID: "plain", SessionID: c.session, Body: []byte("a")})
			x.Pass(idle)
			mu.Lock()
			if len(x.DeadReasons(orders)) != 1 || len(states) > 0 || len(o.all) > 0 || handled != 1 {
				x.Errorf("%s: %d dead letters, %d handled, states %v, failed calls %v; want one each, and nothing else", name, len(x.DeadReasons(orders)), handled, states, o.all)
			}
			mu.Unlock()

			if c.sessions {
				x.Must(stop())
				return // the calls that receive from a session are not what the breaker asks
			}
			faulty.FailReceive(driver.Errorf(driver.Unavailable, "connection refused"))
			x.Pass(time.Minute)
			faulty.FailReceive(nil)
			x.Pass(time.Minute)
			x.Must(stop())
			if n := len(states); n < 3 || !slices.Equal(states[n-2:], []backoff.State{backoff.HalfOpen, backoff.Closed}) {
				x.Errorf("%s: states %v after an outage, want half open and closed at the end", name, states)
			}
		})
	}
}
