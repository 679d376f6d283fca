package cas_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

// mortal is the backend of a process that may die before and after each request, or stand still for
// minutes.
type mortal struct {
	m           *memory
	random      *rand.Rand // guarded by the mutex of m
	dead        bool
	dies, waits int // of 10,000 requests
}

// step reports whether the process dies here.
func (o *mortal) step() error {
	o.m.mu.Lock()
	wait := 1 + time.Duration(o.random.Int64N(int64(20*time.Millisecond)))
	if o.random.IntN(10_000) < o.waits {
		wait += time.Duration(o.random.Int64N(int64(30 * time.Minute)))
	}
	o.dead = o.dead || o.random.IntN(20_000) < o.dies
	dead := o.dead
	o.m.mu.Unlock()
	if dead {
		return errDead
	}
	time.Sleep(wait)
	return nil
}

// around makes a request of a process that may die.
func around[T any](o *mortal, do func() (T, bool, error)) (out T, done bool, err error) {
	if err := o.step(); err != nil {
		return out, false, err
	}
	result, done, err := do()
	if dead := o.step(); dead != nil {
		return out, false, dead
	}
	return result, done, err
}

func (o *mortal) Get(ctx context.Context, key string) (cas.Item, error) {
	item, _, err := around(o, func() (cas.Item, bool, error) {
		item, err := o.m.Get(ctx, key)
		return item, true, err
	})
	return item, err
}

func (o *mortal) Create(ctx context.Context, key string, value []byte) (cas.Item, bool, error) {
	return around(o, func() (cas.Item, bool, error) { return o.m.Create(ctx, key, value) })
}

func (o *mortal) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	return around(o, func() (cas.Item, bool, error) { return o.m.Swap(ctx, key, version, value) })
}

func (o *mortal) Scan(ctx context.Context, prefix string) iter.Seq2[cas.Item, error] {
	return func(yield func(cas.Item, error) bool) {
		for item, err := range o.m.Scan(ctx, prefix) {
			if dead := o.step(); dead != nil {
				yield(cas.Item{}, dead)
				return
			}
			if !yield(item, err) {
				return
			}
		}
	}
}

// letter is a message of TestCrashes.
type letter struct {
	request   replay.Request
	lost      bool // by the broker, before any delivery
	completed bool
	doubtful  bool // it may be completed: the answer was lost
	ended     bool // not delivered again
	taken     bool // by a process
	next      time.Time
}

// crashes is a broker with one stream, and what its messages came to.
type crashes struct {
	*testing.T
	m       *memory
	random  *rand.Rand
	letters []*letter
}

// isDead reports whether the process has died.
func (o *mortal) isDead() bool {
	o.m.mu.Lock()
	defer o.m.mu.Unlock()
	return o.dead
}

// take returns a message that is due.
func (c *crashes) take(r *rand.Rand) *letter {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	var due []*letter
	for _, l := range c.letters {
		if !l.ended && !l.lost && !l.taken && !time.Now().Before(l.next) {
			due = append(due, l)
		}
	}
	if len(due) == 0 {
		return nil
	}
	l := due[r.IntN(len(due))]
	l.taken = true
	return l
}

// deliver has a process handle a message. It is delivered again after the answer of it, if not ended.
func (c *crashes) deliver(s *cas.Store, random *rand.Rand, l *letter) {
	r := l.request
	r.Token, r.Now = replay.NewToken(), time.Now()
	end := func() {
		c.m.mu.Lock()
		defer c.m.mu.Unlock()
		l.ended = true
	}
	again := func(after time.Duration) {
		c.m.mu.Lock()
		defer c.m.mu.Unlock()
		l.taken, l.next = false, time.Now().Add(after+time.Duration(random.Int64N(int64(time.Minute))))
	}
	claims, err := s.Begin(c.Context(), "group", []replay.Request{r})
	if err != nil {
		again(time.Minute)
		return
	}
	switch err := claims[0].Err; {
	case err == nil && l.completed:
		c.Errorf("%d is granted again", r.ID.Sequence)
	case errors.Is(err, replay.ErrNotFresh):
		end()
		return
	case errors.Is(err, replay.ErrDuplicate), errors.Is(err, replay.ErrReused):
		if !l.completed && !l.doubtful {
			c.Errorf("%d was never completed: %v", r.ID.Sequence, err)
		}
		l.completed = true
		end()
		return
	case err != nil:
		again(time.Minute)
		return
	}
	kind := replay.Consumed
	switch random.IntN(20) {
	case 0, 1, 2, 3, 4:
		kind = replay.Released
	case 5:
		again(5 * time.Minute) // the handler is dead; its claim stays
		return
	}
	time.Sleep(time.Duration(random.Int64N(int64(time.Second))))
	f, err := s.Finish(c.Context(), "group", []replay.Finish{{ID: r.ID, Token: r.Token, Kind: kind}})
	switch {
	case kind == replay.Released:
		again(time.Duration(random.Int64N(int64(20 * time.Minute))))
	case err == nil && (f[0].Err == nil || errors.Is(f[0].Err, replay.ErrHandled)):
		l.completed = true
		if random.IntN(4) == 0 {
			again(time.Minute) // its acknowledgement is lost
		} else {
			end()
		}
	default:
		l.doubtful = l.doubtful || err != nil
		again(time.Minute)
	}
}

// process receives until the end, and starts again when it has died.
func (c *crashes) process(random *rand.Rand, until time.Time) {
	o := &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 30 * time.Minute}}
	for time.Now().Before(until) {
		b := &mortal{m: c.m, random: rand.New(rand.NewPCG(random.Uint64(), 1)), dies: 100, waits: 30} //nolint:gosec // G404: faults, not secrets
		s, err := cas.Open(c.Context(), b, o)
		if err != nil {
			continue
		}
		for !b.isDead() && time.Now().Before(until) {
			if l := c.take(random); l != nil {
				c.deliver(s, random, l)
			} else {
				time.Sleep(time.Second + time.Duration(random.Int64N(int64(20*time.Second))))
				_ = s.Probe(c.Context(), "group") // it may be dead
			}
		}
		if err := s.Close(c.Context()); err != nil {
			c.Errorf("Close: %v", err)
		}
	}
}

// TestCrashes: processes die between any two requests and stand still for minutes, in calls and in
// sweeps. Nothing that is completed is granted again, nothing that arrived is missing, and all that
// is lost is.
func TestCrashes(t *testing.T) {
	seeds := uint64(4)
	if os.Getenv("QRT_SOAK") == "1" {
		seeds = 500
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &crashes{T: t, m: newMemory(), random: rand.New(rand.NewPCG(seed, 7))} //nolint:gosec // G404: faults, not secrets
				judge := open(t, c.m, &cas.Options{PageSpan: 64, Bounds: replay.Bounds{KeepStream: 30 * time.Minute}})
				time.Sleep(2 * time.Second)
				start := time.Now()
				until := start.Add(6 * time.Hour)
				for p := range uint64(2) {
					random := rand.New(rand.NewPCG(seed, 100+p)) //nolint:gosec // G404: faults, not secrets
					go c.process(random, until)
				}
				v := young(t)
				binary.BigEndian.PutUint64(v.stream[:], uint64(start.UnixMilli())<<16)
				n := uint64(0)
				for time.Since(start) < 4*time.Hour {
					for range c.random.IntN(40) {
						n++
						r := v.request(n)
						r.MaxMessageAge, r.Settled, r.RetryWindow, r.FreshUntil = 30*time.Minute, n-1, 3*time.Hour, r.SealedAt.Add(30*time.Minute)
						l := &letter{request: r, lost: c.random.IntN(30) == 0, next: time.Now()}
						if c.random.IntN(10) == 0 {
							l.next = l.next.Add(time.Duration(c.random.Int64N(int64(29 * time.Minute))))
						}
						c.m.mu.Lock()
						c.letters = append(c.letters, l)
						c.m.mu.Unlock()
					}
					time.Sleep(time.Duration(c.random.Int64N(int64(20 * time.Minute))))
				}
				time.Sleep(time.Until(until))
				v.sweep(judge, time.Hour)
				v.sweep(judge, time.Hour)
				c.judge(v.account(judge))
			})
		})
	}
}

// judge compares the account with what became of the messages.
func (c *crashes) judge(a *replay.Stream) {
	if a == nil {
		c.Fatal("the stream is not held")
	}
	missing := make(map[uint64]bool)
	for _, x := range a.Missing {
		for n := x.Range.First; n <= x.Range.Last; n++ {
			missing[n] = true
		}
	}
	var lost, either, completed uint64
	for _, l := range c.letters {
		n := l.request.ID.Sequence
		switch {
		case n > a.Settled:
		case l.completed:
			completed++
			if missing[n] {
				c.Errorf("%d is completed and missing", n)
			}
		case l.lost:
			lost++
		default: // rejected, perhaps after it was counted as lost, or its answers are
			either++
		}
	}
	count := uint64(len(missing)) + a.MissingForgotten
	c.Logf("%d messages, %d completed, %d lost, %d either; %d missing and %d forgotten; start %d", len(c.letters), completed, lost, either, len(missing), a.MissingForgotten, a.Start)
	if count < lost || count > lost+either {
		c.Errorf("%d are missing, want %d to %d: %+v", count, lost, lost+either, a)
	}
}
