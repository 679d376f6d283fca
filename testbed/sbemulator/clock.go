package sbemulator

import (
	"container/heap"
	"fmt"
	"time"
)

// clock tells the time of queues: the system's, moved by an offset, or one that
// stands still. Server.mu guards it.
type clock struct {
	offset time.Duration
	frozen time.Time // if not zero, the time without the offset
	due    timerHeap
	count  uint64
	sooner func() // called when a timer is set that is due before all others
}

func (c *clock) now() time.Time {
	if !c.frozen.IsZero() {
		return c.frozen.Add(c.offset)
	}
	return time.Now().Add(c.offset)
}

// timer is a function that is due at a time of its clock. Due functions run
// with Server.mu held.
type timer struct {
	at    time.Time
	order uint64 // among timers of one time: the order of their making
	fire  func()
	index int // in the heap; -1 = not there
}

// at has fire called once, when the clock reads t or later.
func (c *clock) at(t time.Time, fire func()) *timer {
	c.count++
	tm := &timer{at: t, order: c.count, fire: fire}
	heap.Push(&c.due, tm)
	if tm.index == 0 && c.sooner != nil {
		c.sooner()
	}
	return tm
}

// stop takes tm out, if it is not nil and has not fired.
func (c *clock) stop(tm *timer) {
	if tm != nil && tm.index >= 0 {
		heap.Remove(&c.due, tm.index)
	}
}

// run fires what is due now. A function that sets a timer which is due too has
// it fired in the same run; every timer of queues lies in the future.
func (c *clock) run() {
	now := c.now()
	for len(c.due) > 0 && !c.due[0].at.After(now) {
		tm := heap.Pop(&c.due).(*timer)
		tm.fire()
	}
}

// wait is how long until the next timer by the system's clock; ok is false when
// none will come by itself.
func (c *clock) wait() (d time.Duration, ok bool) {
	if len(c.due) == 0 || !c.frozen.IsZero() {
		return 0, false
	}
	return max(0, c.due[0].at.Sub(c.now())), true
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].order < h[j].order
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timerHeap) Push(x any) {
	tm := x.(*timer)
	tm.index = len(*h)
	*h = append(*h, tm)
}

func (h *timerHeap) Pop() any {
	old := *h
	tm := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	tm.index = -1
	return tm
}

// Now is the emulator's time.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clock.now()
}

// Advance moves the emulator's clock forward by d at once and does everything
// that has thereby come due, before it returns: locks run out, messages expire
// or become active. It is one jump: a lock that is taken anew because of it
// counts from the new time.
//
// Clients do not see the jump: times that the emulator tells them, such as the
// end of a lock, are then ahead of their own clocks by the sum of all jumps.
// Timeouts of the protocol run by the system's clock whatever this one reads.
//
// d must not be negative: the error says so and nothing moves.
func (s *Server) Advance(d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("sbemulator: the clock cannot go back by %v", -d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock.offset += d
	s.clock.run()
	s.wake()
	return nil
}

// wake has the timer goroutine look anew at when it is needed.
func (s *Server) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// keepTime fires timers until Close. It is the one goroutine of a Server that
// is neither a listener's nor a connection's.
func (s *Server) keepTime() {
	defer s.wg.Done()
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		s.mu.Lock()
		s.clock.run()
		s.system.run()
		next := time.Hour
		for _, c := range []*clock{&s.clock, &s.system} {
			if d, ok := c.wait(); ok && d < next {
				next = d
			}
		}
		s.mu.Unlock()
		t.Reset(next)
		select {
		case <-t.C:
		case <-s.kick:
		case <-s.done:
			return
		}
	}
}
