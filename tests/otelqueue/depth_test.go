package otelqueue_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/otel/otelqueue"
)

// counted is a queue with counts, or with a broker that does not answer.
type counted struct {
	name  string
	stats driver.Stats
	err   error
	hangs bool
}

func (c *counted) Queue() string { return c.name }

func (c *counted) Stats(ctx context.Context) (driver.Stats, error) {
	if c.hangs {
		<-ctx.Done()
		return driver.Stats{}, ctx.Err()
	}
	return c.stats, c.err
}

// One broker that is away costs three seconds and its own series, not those of
// the others.
func TestDepthOutlivesBrokers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
		stop, err := otelqueue.WatchDepth(provider,
			&counted{name: "hangs", hangs: true},
			&counted{name: "fails", err: errors.New("no answer")},
			&counted{name: "waits", stats: driver.Stats{Ready: 2, InFlight: -1, Scheduled: 1, DeadLetters: 3, Oldest: time.Now().Add(-time.Minute)}},
			&counted{name: "empty", stats: driver.Stats{InFlight: -1, Scheduled: -1, DeadLetters: -1}},
		)
		if err != nil {
			t.Fatal(err)
		}
		collect := func() map[string]float64 {
			t.Helper()
			var data metricdata.ResourceMetrics
			_ = reader.Collect(t.Context(), &data) // tells of the two that are away
			got := map[string]float64{}
			for _, scope := range data.ScopeMetrics {
				for _, m := range scope.Metrics {
					switch d := m.Data.(type) {
					case metricdata.Gauge[int64]:
						for _, p := range d.DataPoints {
							queue, _ := p.Attributes.Value("queue")
							state, _ := p.Attributes.Value("state")
							got[queue.AsString()+" "+state.AsString()] = float64(p.Value)
						}
					case metricdata.Gauge[float64]:
						for _, p := range d.DataPoints {
							queue, _ := p.Attributes.Value("queue")
							got[queue.AsString()+" age"] = p.Value
						}
					}
				}
			}
			return got
		}
		begin := time.Now()
		got := collect()
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("a collection took %v, want 3s", took)
		}
		want := map[string]float64{
			"waits ready": 2, "waits scheduled": 1, "waits dead_letters": 3, "waits age": 63, // three of them while another hung
			"empty ready": 0, "empty age": 0,
		}
		if len(got) != len(want) {
			t.Errorf("series %v, want %v", got, want)
		}
		for name, n := range want {
			if got[name] != n {
				t.Errorf("%s is %v, want %v", name, got[name], n)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := collect(); len(got) > 0 {
			t.Errorf("stopped, and there is %v", got)
		}
	})
}

// TestOldestMessageAge: the age is that of a message that could be delivered now. One
// that is scheduled for next week, or that a handler has held for five minutes, does not
// wait for a consumer, and what comes after it has waited since then at most.
func TestOldestMessageAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		q := &counted{name: "orders"}
		_, err := otelqueue.WatchDepth(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), q)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for _, c := range []struct {
			what  string
			at    time.Duration
			stats driver.Stats
			want  float64 // seconds; -1 for no series
		}{
			{"unknown", 0, driver.Stats{Ready: 1}, -1},
			{"one has waited since before the first collection", 0, driver.Stats{Ready: 1, Oldest: begin.Add(-time.Minute)}, 60},
			{"scheduled", time.Minute, driver.Stats{Scheduled: 1, Oldest: begin}, 0},
			{"held by a handler", 6 * time.Minute, driver.Stats{InFlight: 1, Oldest: begin}, 0},
			{"another waits behind it", 6*time.Minute + 30*time.Second, driver.Stats{Ready: 1, InFlight: 1, Oldest: begin}, 30},
			{"it was given back", 7 * time.Minute, driver.Stats{Ready: 2, Oldest: begin}, 60},
			{"handled, the other still waits", 8 * time.Minute, driver.Stats{Ready: 1, Oldest: begin.Add(6*time.Minute + 10*time.Second)}, 110},
			{"empty", 9 * time.Minute, driver.Stats{}, 0},
			{"the broker's clock is ahead", 10 * time.Minute, driver.Stats{Ready: 1, Oldest: begin.Add(time.Hour)}, 0},
		} {
			time.Sleep(time.Until(begin.Add(c.at)))
			q.stats = c.stats
			var data metricdata.ResourceMetrics
			if err := reader.Collect(t.Context(), &data); err != nil {
				t.Fatal(err)
			}
			got := -1.0
			for _, m := range data.ScopeMetrics[0].Metrics {
				if g, ok := m.Data.(metricdata.Gauge[float64]); ok {
					got = g.DataPoints[0].Value
				}
			}
			if got != c.want {
				t.Errorf("%s: age %v s, want %v", c.what, got, c.want)
			}
		}
	})
}
