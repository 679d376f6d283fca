package drivertest_test

import (
	"context"
	"errors"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// settledAs settles what is released as change wants it.
func (f *faulty) settledAs(change func(*driver.Settlement)) func(context.Context, []driver.Settlement) []error {
	return func(ctx context.Context, s []driver.Settlement) []error {
		for i := range s {
			if s[i].Kind == driver.Release {
				change(&s[i])
			}
		}
		return f.Queue.Settle(ctx, s)
	}
}

// releaseFaults are faults of driver.Release.
var releaseFaults = []fault{
	{"counts what is released", func(f *faulty) {
		f.settle = f.settledAs(func(s *driver.Settlement) { s.Kind = driver.Abandon })
	}, "Count is 2 after 1 released and 0 counted deliveries, want 1"},

	{"does not count what it says it counts", func(f *faulty) {
		f.caps = func(c driver.Capabilities) driver.Capabilities {
			c.ReleaseUncounted = false
			return c
		}
	}, "Count is 1 at delivery 2: without ReleaseUncounted a released delivery counts"},

	{"completes what is released", func(f *faulty) {
		f.settle = f.settledAs(func(s *driver.Settlement) { s.Kind = driver.Complete })
	}, "0 of 1 messages came"},

	{"releases at once", func(f *faulty) {
		f.settle = f.settledAs(func(s *driver.Settlement) { s.Delay = 0 })
	}, "a message that was released with a delay of 2s came back after"},

	{"forgets all deliveries at a release", func(f *faulty) {
		forgiven := make(map[string]int)
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			f.world.mu.Lock()
			for i := range s {
				if s[i].Kind == driver.Release {
					forgiven[s[i].Delivery.ID] += s[i].Delivery.Count - 1
				}
			}
			f.world.mu.Unlock()
			return f.Queue.Settle(ctx, s)
		}
		f.receive = f.receiveChanged(func(d *driver.Delivery) {
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			d.Count -= forgiven[d.ID]
		})
	}, "released and 2 counted deliveries, want 3"},

	{"does not count locks that run out", func(f *faulty) {
		f.receive = func(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
			all, err := f.Queue.Receive(ctx, max, wait)
			for _, d := range all {
				time.AfterFunc(time.Until(d.LockedUntil)-time.Millisecond, func() {
					f.Queue.Settle(context.Background(), []driver.Settlement{{Delivery: d, Kind: driver.Release}})
				})
			}
			return all, err
		}
	}, "the message has had its deliveries: a lock that runs out counts"},

	{"releases by a stale receipt", byStaleReceipt(driver.Release), "a stale receipt (released) must not release it"},

	{"releases what is settled", func(f *faulty) {
		f.settle = func(ctx context.Context, s []driver.Settlement) []error {
			errs := f.Queue.Settle(ctx, s)
			for i := range errs {
				if errors.Is(errs[i], driver.ErrSettled) && s[i].Kind == driver.Release {
					errs[i] = nil
				}
			}
			return errs
		}
	}, "Settle (released) of a delivery that is settled (abandoned): the error is nil"},

	{"releases behind the others", func(f *faulty) {
		f.accept = func(ctx context.Context, id string, wait time.Duration) (driver.Session, error) {
			s, err := f.Queue.AcceptSession(ctx, id, wait)
			if err != nil {
				return nil, err
			}
			return named(s, func(s driver.StatefulSession) driver.Session { return &hasty{s, f, driver.Release} }), nil
		}
	}, "it was released and comes before the later ones"},

	{"counts what is released of dead letters", func(f *faulty) {
		f.dead = func(q driver.Queue) driver.Queue {
			d := &faulty{Queue: q, world: f.world}
			d.settle = d.settledAs(func(s *driver.Settlement) { s.Kind = driver.Abandon })
			return d
		}
	}, "Count is 2 after 1 released and 0 counted deliveries, want 1"},
}
