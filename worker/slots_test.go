package worker

import (
	"context"
	"fmt"
	"math/bits"
	"testing"
	"testing/synctest"
)

// churn makes n queues busy with total slots, whose messages end one by one while every
// queue wants more, and returns the comparisons that one message costs.
func churn(t *testing.T, n, messages int) (perMessage float64) {
	synctest.Test(t, func(t *testing.T) {
		p := &slots{total: 2 * n}
		ctx, cancel := context.WithCancel(t.Context())
		shares := make([]*share, n)
		for i := range shares {
			shares[i] = newShare(1+i%3, p.total+1)
			p.reserve()
		}
		granted := make(chan *share, p.total)
		for _, s := range shares {
			go func() {
				for {
					got, err := p.acquire(ctx, s, 1)
					if err != nil {
						return
					}
					for range got {
						granted <- s
					}
				}
			}()
		}
		synctest.Wait() // all slots are in use, and every queue waits
		p.mu.Lock()
		if p.used != p.total || len(p.waiting.shares) != n {
			t.Errorf("%d queues: %d of %d slots in use, %d queues wait", n, p.used, p.total, len(p.waiting.shares))
		}
		before := p.waiting.steps
		p.mu.Unlock()
		for range messages {
			p.release(<-granted, 1)
			synctest.Wait()
		}
		p.mu.Lock()
		perMessage = float64(p.waiting.steps-before) / float64(messages)
		p.mu.Unlock()
		cancel()
	})
	return perMessage
}

// TestSlotsCostOfAMessage: what a message costs does not grow with the number of queues,
// but for the depth of a heap.
func TestSlotsCostOfAMessage(t *testing.T) {
	for _, n := range []int{1, 10, 100, 1000} {
		got := churn(t, n, 300)
		// Fix, Remove and Push go up or down the heap, with two comparisons a level.
		limit := float64(6 * bits.Len(uint(n)))
		if got > limit {
			t.Errorf("%d queues: %.1f comparisons for a message, want at most %.0f", n, got, limit)
		}
		t.Logf("%d queues: %.1f comparisons", n, got)
	}
}

// TestSlotsKeepOneForEach: a queue that uses none gets its own at once, whatever the
// others hold, and the counters agree with the shares.
func TestSlotsKeepOneForEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := &slots{total: 5}
		a, b, c := newShare(1, 5), newShare(1, 5), newShare(1, 2)
		for range []*share{a, b, c} {
			p.reserve()
		}
		take := func(s *share, want, expect int) {
			t.Helper()
			n, err := p.acquire(ctx, s, want)
			if err != nil || n != expect {
				t.Fatalf("acquired %d of %d (%v), want %d", n, want, err, expect)
			}
		}
		take(a, 5, 3) // two are kept
		take(b, 5, 1)
		take(c, 5, 1)
		got := make(chan int, 3)
		for _, s := range []*share{a, b, c} {
			go func() {
				n, _ := p.acquire(ctx, s, 5)
				got <- n
			}()
			synctest.Wait()
		}
		p.release(a, 1) // b and c use fewer than a, and b waits longer
		synctest.Wait()
		if b.used != 2 || c.used != 1 || a.used != 2 {
			t.Errorf("in use: %d, %d, %d; want 2, 2, 1", a.used, b.used, c.used)
		}
		p.release(b, 1)
		synctest.Wait()
		if c.used != 2 || c.state != idle {
			t.Errorf("the third uses %d in state %d, want 2 at its limit", c.used, c.state)
		}
		cancel()
		synctest.Wait()
		p.release(a, a.used)
		p.release(b, b.used)
		p.release(c, c.used)
		if p.used != 0 || p.unused != 3 || len(p.waiting.shares) != 0 {
			t.Errorf("at the end: %d in use, %d unused, %d wait", p.used, p.unused, len(p.waiting.shares))
		}
	})
}

// BenchmarkSlots is what the slots cost a message while n queues want more than there
// are.
func BenchmarkSlots(b *testing.B) {
	for _, n := range []int{1, 100, 1000, 3000} {
		b.Run(fmt.Sprint("queues=", n), func(b *testing.B) {
			p := &slots{total: 2 * n}
			shares := make([]*share, n)
			for i := range shares {
				shares[i] = newShare(1, p.total)
				p.reserve()
			}
			p.mu.Lock()
			for _, s := range shares {
				p.take(s, 2)
				s.want = 1
				p.wait(s)
			}
			p.mu.Unlock()
			for i := 0; b.Loop(); i++ {
				s := shares[i%n]
				p.release(s, 1)
				<-s.got // it uses the fewest now
				p.mu.Lock()
				p.wait(s)
				p.mu.Unlock()
			}
		})
	}
}
