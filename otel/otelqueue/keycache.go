package otelqueue

import (
	"context"
	"errors"

	"github.com/queue-runtime/queue/keys"
)

// KeyCache returns what a keys.Cached tells its events to, as
// keys.CachedOptions.OnEvent:
//
//	keys.NewCached(vault, &keys.CachedOptions{OnEvent: o.KeyCache("vault")})
//
// cache is the label by which caches are told apart: queue_key_cache_requests_total
// {cache,call,result} with the results hit, miss, unknown and stale, and
// queue_key_cache_fetch_duration_seconds{cache,call,result} with ok, not_found and
// error. A stale answer means that the key store is away and the time that it may
// be so is running out. No label holds a key ID: with unknown it is an attacker's.
func (o *Observer) KeyCache(cache string) func(keys.CacheEvent) {
	i := o.metrics
	return func(e keys.CacheEvent) {
		l := labels{byCache, cache, e.Call, e.Kind.String()}
		switch e.Kind {
		case keys.CacheHit, keys.CacheMiss, keys.CacheUnknown, keys.CacheStale:
			i.one(context.Background(), i.keyCache, l)
		case keys.CacheFetch, keys.CacheError:
			switch {
			case e.Kind == keys.CacheFetch:
				l.third = "ok"
			case errors.Is(e.Err, keys.ErrNotFound):
				l.third = "not_found"
			}
			i.keyFetch.Record(context.Background(), e.Took.Seconds(), i.series(l).record...)
		}
	}
}
