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

// Counted is what has counts: a *queue.Receiver.
type Counted interface {
	// Queue is the queue's name, the label of its series.
	Queue() string
	// Stats returns the counts of now.
	Stats(ctx context.Context) (driver.Stats, error)
}

// WatchDepth makes the meter ask the queues for their counts whenever metrics are
// collected: queue_depth{queue,state} with the states ready, in_flight, scheduled
// and dead_letters, and queue_oldest_message_age_seconds{queue}. What a broker
// does not tell, or not within three seconds, has no series. The function that it
// returns ends it.
func WatchDepth(m metric.MeterProvider, queues ...Counted) (stop func() error, err error) {
	if m == nil {
		return nil, errors.New("otelqueue: WatchDepth needs a MeterProvider")
	}
	meter := m.Meter(scopeName)
	depth, err1 := meter.Int64ObservableGauge("queue.depth", metric.WithDescription("Messages in the queue, by state, by the broker's word."))
	age, err2 := meter.Float64ObservableGauge("queue.oldest_message.age", metric.WithUnit("s"), metric.WithDescription("How long the oldest message has waited."))
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	r, err := meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		// A broker that is away must not take the other metrics with it, which
		// are the ones to tell of it.
		ctx, cancel := context.WithTimeout(ctx, statsTimeout)
		defer cancel()
		stats, errs := make([]driver.Stats, len(queues)), make([]error, len(queues))
		var asked sync.WaitGroup
		for i, q := range queues {
			asked.Go(func() { stats[i], errs[i] = q.Stats(ctx) })
		}
		asked.Wait()
		for i, q := range queues {
			if errs[i] == nil {
				report(o, depth, age, q.Queue(), &stats[i])
			}
		}
		return errors.Join(errs...)
	}, depth, age)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}

// report observes the counts of one queue.
func report(o metric.Observer, depth metric.Int64Observable, age metric.Float64Observable, queue string, s *driver.Stats) {
	name := attribute.String("queue", queue)
	for _, c := range [...]struct {
		state string
		n     int64
	}{{"ready", s.Ready}, {"in_flight", s.InFlight}, {"scheduled", s.Scheduled}, {"dead_letters", s.DeadLetters}} {
		if c.n >= 0 {
			o.ObserveInt64(depth, c.n, metric.WithAttributes(name, attribute.String("state", c.state)))
		}
	}
	switch {
	case !s.Oldest.IsZero():
		o.ObserveFloat64(age, max(0, time.Since(s.Oldest).Seconds()), metric.WithAttributes(name))
	case s.Ready == 0:
		o.ObserveFloat64(age, 0, metric.WithAttributes(name))
	}
}
