package otelqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue/driver"
)

// statsTimeout bounds how long brokers delay a collection, well below the ten
// seconds that Prometheus waits for a scrape.
const statsTimeout = 3 * time.Second

// Counted is what has counts: a *queue.Receiver. Its methods are called by whatever
// goroutine collects metrics.
type Counted interface {
	// Queue is the queue's name, the label of its series.
	Queue() string
	// Stats returns the counts of now.
	Stats(ctx context.Context) (driver.Stats, error)
}

// WatchDepth makes the meter ask the queues for their counts whenever metrics are
// collected: queue_depth{queue,state} with the states ready, in_flight, scheduled and
// dead_letters, and queue_oldest_message_age_seconds{queue}. What a broker does not
// tell within three seconds has no series. stop ends it. It fails if m is nil or refuses
// an instrument.
//
// The age is the age of the oldest message that could be delivered now. It is 0 if there
// is none: a message that is scheduled, that waits out a retry, or that a handler holds
// does not wait for a consumer. driver.Stats tells when it was enqueued, and it may have
// waited out a delay since. It became deliverable after a collection last found none
// waiting, and so the age is never more than the time since then.
func WatchDepth(m metric.MeterProvider, queues ...Counted) (stop func() error, err error) {
	if m == nil {
		return nil, errors.New("otelqueue: WatchDepth needs a MeterProvider")
	}
	meter := m.Meter(scopeName)
	depth, age, err := depthGauges(meter)
	if err != nil {
		return nil, err
	}
	w := &depthWatch{depth: depth, age: age, queues: make([]watchedQueue, len(queues))}
	for i, q := range queues {
		w.queues[i].Counted = q
	}
	r, err := meter.RegisterCallback(w.collect, depth, age)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}

// depthWatch asks queues for their counts.
type depthWatch struct {
	depth metric.Int64Observable
	age   metric.Float64Observable

	collecting sync.Mutex // one collection at a time; guards queues
	queues     []watchedQueue
}

// watchedQueue is a queue and what the last collections found.
type watchedQueue struct {
	Counted
	stats     driver.Stats
	err       error
	noneReady time.Time // when a collection last found no message waiting
}

// collect observes the counts of all queues. A broker that does not answer must not
// take the other metrics with it, which are the ones that tell of it.
func (w *depthWatch) collect(ctx context.Context, o metric.Observer) error {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	w.collecting.Lock()
	defer w.collecting.Unlock()
	var asked sync.WaitGroup
	for i := range w.queues {
		q := &w.queues[i]
		asked.Go(func() { q.stats, q.err = q.Stats(ctx) })
	}
	asked.Wait()
	errs := make([]error, len(w.queues))
	for i := range w.queues {
		q := &w.queues[i]
		if errs[i] = q.err; q.err == nil {
			w.report(o, q, time.Now())
		}
	}
	return errors.Join(errs...)
}

// report observes the counts of one queue.
func (w *depthWatch) report(o metric.Observer, q *watchedQueue, now time.Time) {
	name, s := attribute.String("queue", q.Queue()), &q.stats
	for _, c := range [...]struct {
		state string
		n     int64
	}{{"ready", s.Ready}, {"in_flight", s.InFlight}, {"scheduled", s.Scheduled}, {"dead_letters", s.DeadLetters}} {
		if c.n >= 0 {
			o.ObserveInt64(w.depth, c.n, metric.WithAttributes(name, attribute.String("state", c.state)))
		}
	}
	if s.Ready == 0 {
		q.noneReady = now
	}
	if age, ok := waited(s, q.noneReady, now); ok {
		o.ObserveFloat64(w.age, age.Seconds(), metric.WithAttributes(name))
	}
}

// waited returns how long the oldest message that could be delivered now has waited,
// false if that is unknown. noneReady is when there last was none, zero if never.
func waited(s *driver.Stats, noneReady, now time.Time) (time.Duration, bool) {
	switch {
	case s.Ready == 0:
		return 0, true
	case s.Oldest.IsZero():
		return 0, false
	case s.Oldest.Before(noneReady):
		// It was held or scheduled then: it waits since later.
		return now.Sub(noneReady), true
	}
	return max(0, now.Sub(s.Oldest)), true
}
