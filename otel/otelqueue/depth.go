package otelqueue

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue/driver"
)

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
// does not tell has no series. The
// function that it returns ends it.
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
		var errs []error
		for _, q := range queues {
			s, err := q.Stats(ctx)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			name := attribute.String("queue", q.Queue())
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
		return errors.Join(errs...)
	}, depth, age)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}
