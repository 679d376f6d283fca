package otelqueue_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/otel/otelqueue"
)

// store is a key store that can be away.
type store struct {
	keys.Provider
	away atomic.Bool
}

func (s *store) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if s.away.Load() {
		return "", errors.New("no answer")
	}
	return s.Provider.CurrentKeyID(ctx)
}

// What a key cache does is counted, by cache and call; key IDs are not.
func TestKeyCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdkmetric.NewManualReader()
		o, err := otelqueue.New(&otelqueue.Options{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(err)
		key, err := keys.Generate("k1", nil)
		must(err)
		ring, err := keys.NewRing(key)
		must(err)
		vault := &store{Provider: ring}
		cached, err := keys.NewCached(vault, &keys.CachedOptions{TTL: time.Minute, OnEvent: o.KeyCache("vault")})
		must(err)
		defer func() { must(cached.Close(context.Background())) }()
		for range 3 {
			_, err = cached.CurrentKeyID(t.Context())
			must(err)
		}
		if _, err := cached.GetKey(t.Context(), "attackers-choice"); !errors.Is(err, keys.ErrNotFound) {
			t.Fatal(err)
		}
		vault.away.Store(true)
		time.Sleep(5 * time.Minute)
		_, err = cached.CurrentKeyID(t.Context())
		must(err)

		var data metricdata.ResourceMetrics
		must(reader.Collect(t.Context(), &data))
		got := map[string]int64{}
		for _, m := range data.ScopeMetrics[0].Metrics {
			count := func(set attribute.Set, n int64) {
				name := m.Name
				for _, label := range []attribute.Key{"cache", "call", "result"} {
					v, _ := set.Value(label)
					name += " " + v.AsString()
				}
				got[name] += n
			}
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					count(p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					count(p.Attributes, int64(p.Count)) //nolint:gosec // G115: a handful
				}
			}
		}
		for name, want := range map[string]int64{
			"queue.key_cache.requests vault CurrentKeyID miss":     1,
			"queue.key_cache.requests vault CurrentKeyID hit":      2,
			"queue.key_cache.requests vault CurrentKeyID stale":    1,
			"queue.key_cache.requests vault GetKey unknown":        1,
			"queue.key_cache.fetch.duration vault CurrentKeyID ok": 1,
		} {
			if got[name] != want {
				t.Errorf("%s is %d, want %d; there is %v", name, got[name], want, got)
			}
		}
		if got["queue.key_cache.fetch.duration vault CurrentKeyID error"] == 0 {
			t.Errorf("no failed question was timed: %v", got)
		}
	})
}
