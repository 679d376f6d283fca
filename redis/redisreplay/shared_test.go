package redisreplay_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/faultproxy"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// wrongClock has the server's clock differ from this machine's by a number of
// milliseconds.
type wrongClock struct {
	clock
	by *atomic.Int64
}

func (c wrongClock) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		set := redis.NewCmd(ctx, "SET", "test-clock", time.Now().UnixMilli()+c.by.Load())
		return next(ctx, append([]redis.Cmder{set}, cmds...))
	}
}

// TestServerClockSet: a server's clock that is set forward or back gives no receiver a
// claim that is over at once, and takes none away early.
func TestServerClockSet(t *testing.T) {
	server := redispeer.Shared(t)
	var by atomic.Int64
	o := redisreplay.Options{Prefix: prefix(), Fsync: redisreplay.FsyncNever}
	stores := make([]*redisreplay.Store, 2)
	for i := range stores {
		s, err := redisreplay.OpenWithClock(t.Context(), server.URL(), o, wrongClock{by: &by})
		if err != nil {
			t.Fatal(err)
		}
		stores[i] = closing(t, s)
	}
	a, b := stores[0], stores[1]
	handle(t, a, message(1, 1))
	known(t, b, message(1, 1))
	for n, by2 := range []time.Duration{time.Hour, -time.Hour, 30 * time.Hour, 0} {
		r := message(1, 2+uint64(n)) //nolint:gosec // G115: small
		if by.Store(by2.Milliseconds()); n%2 == 0 {
			// The clock is set before the claim: it must not begin in the past.
			if _, err := begin(a, r); err != nil {
				t.Fatal(err)
			}
		} else {
			// After the claim: the other one's estimate must not be ahead.
			by.Store((by2 + time.Hour).Milliseconds())
			known(t, b, message(1, 1))
			by.Store(by2.Milliseconds())
			if _, err := begin(a, r); err != nil {
				t.Fatal(err)
			}
		}
		c, err := begin(b, again(r))
		if !errors.Is(err, replay.ErrBusy) {
			t.Errorf("%v: %v, want ErrBusy", by2, err)
		} else if left := time.Until(c.BusyUntil); left > r.Lease+time.Second || left < r.Lease-10*time.Second {
			t.Errorf("%v: busy for %v by this machine's clock, want about %v", by2, left, r.Lease)
		}
		if _, err := consume(a, r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSharedBounds: several processes together do not exceed a bound, although each counts
// by the last answer that it got.
func TestSharedBounds(t *testing.T) {
	server := redispeer.Shared(t)
	const bound = 50
	for name, b := range map[string]replay.Bounds{
		"store":  {Store: replay.Quota{Records: bound}, Group: replay.Quota{Records: 1000}, Sender: replay.Quota{Records: 1000}},
		"group":  {Group: replay.Quota{Records: bound}, Sender: replay.Quota{Records: 1000}},
		"sender": {Sender: replay.Quota{Records: bound}},
	} {
		o := redisreplay.Options{Prefix: prefix(), Fsync: redisreplay.FsyncNever, Bounds: b}
		stores := []*redisreplay.Store{open(t, server.URL(), o), open(t, server.URL(), o), open(t, server.URL(), o)}
		for i, s := range stores {
			handle(t, s, message(200+byte(i), 1)) // later calls change nothing of the group
		}
		var granted []replay.Request
		for n := range uint64(60) {
			// A few at once, each time through another process.
			r := messages(byte(n), 1, 7)
			c, err := stores[n%3].Begin(t.Context(), group, r)
			if err != nil {
				t.Fatal(err)
			}
			for i := range c {
				if c[i].Err == nil {
					granted = append(granted, r[i])
				} else if !errors.Is(c[i].Err, replay.ErrFull) && !errors.Is(c[i].Err, replay.ErrQuota) {
					t.Fatal(c[i].Err)
				}
			}
		}
		if len(granted) != bound {
			t.Errorf("%s: %d records are held, the bound is %d", name, len(granted), bound)
		}
		// A process that still counts the records of others finds out that they are gone.
		if _, err := consume(stores[0], granted...); err != nil {
			t.Fatal(err)
		}
		for i, s := range stores[1:] {
			if _, err := begin(s, message(100+byte(i), 1)); err != nil {
				t.Errorf("%s: %v, although there is room", name, err)
			}
		}
	}
}

// TestStreamWithPages: an old stream that a message is claimed of is not dropped.
func TestStreamWithPages(t *testing.T) {
	server := redispeer.Shared(t)
	o := redisreplay.Options{Prefix: prefix(), Fsync: redisreplay.FsyncNever}
	s := open(t, server.URL(), o)
	old := messages(1, 1, 2)
	for i := range old {
		old[i].SealedAt = old[i].SealedAt.Add(-60 * 24 * time.Hour)
	}
	if _, err := begin(s, old...); err != nil {
		t.Fatal(err)
	}
	if _, err := consume(s, old[0]); err != nil {
		t.Fatal(err)
	}
	gone := message(2, 1)
	gone.SealedAt = old[0].SealedAt
	handle(t, s, gone)
	handle(t, s, message(3, 1)) // the group's time
	other := open(t, server.URL(), o)
	if err := errors.Join(other.SweepNow(t.Context(), group), other.SweepNow(t.Context(), group)); err != nil {
		t.Fatal(err)
	}
	if n, err := other.Stats(t.Context()); err != nil || n.Streams != 2 || n.Records != 1 {
		t.Errorf("%+v, %v, want the old stream without claims to be gone", n, err)
	}
	if _, err := consume(other, old[1]); err != nil {
		t.Errorf("the claim of the old stream: %v", err)
	}
	for _, r := range append(old, gone) {
		if _, err := begin(s, again(r)); err == nil {
			t.Errorf("sequence %d of stream %d was granted again", r.ID.Sequence, r.ID.Stream[15])
		}
	}
}

// TestLargestBatch: a call with as many items as the interface allows, each of another
// sender, is one request.
func TestLargestBatch(t *testing.T) {
	server := redispeer.New(t, nil)
	s := open(t, server.URL(), patient)
	r := messages(1, 1, replay.MaxBatch)
	for i := range r {
		r[i].ID.Sender, r[i].ID.Sequence, r[i].Previous, r[i].Settled = fmt.Sprint("sender-", i), 1, 0, 0
	}
	before, start := calls(t, server, "evalsha"), time.Now()
	handle(t, s, r...)
	took := time.Since(start)
	// A call that takes a second to prepare has to estimate the server's clock again.
	if n := calls(t, server, "evalsha") - before; n != 2 && took < time.Second || n > 8 {
		t.Errorf("%d requests, want 2", n)
	}
	t.Logf("Begin and Finish took %v", took)
	if n, err := s.Stats(t.Context()); err != nil || n.Streams != replay.MaxBatch || n.Recent != replay.MaxBatch || n.Records != 0 {
		t.Errorf("stats %+v, %v; want a stream and a recent message for each claim", n, err)
	}
}

// TestCancelled: a call whose context ends returns, and the next one works.
func TestCancelled(t *testing.T) {
	server := redispeer.Shared(t)
	p, err := faultproxy.NewTCP(server.Address(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	s := open(t, "redis://"+p.Addr()+"/", redisreplay.Options{Prefix: prefix(), Fsync: redisreplay.FsyncNever, Timeout: 2 * time.Second})
	p.Stall()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Begin(ctx, group, messages(1, 1, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Begin: %v, want the end of its context", err)
	}
	p.Resume()
	eventually(t, func() error { _, err := begin(s, message(2, 1)); return err })
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := begin(s, message(2, 2)); !errors.Is(err, redisreplay.ErrClosed) {
		t.Errorf("Begin after Close: %v, want ErrClosed", err)
	}
	if _, err := s.Stats(t.Context()); !errors.Is(err, redisreplay.ErrClosed) {
		t.Errorf("Stats after Close: %v, want ErrClosed", err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}
