package memqueue

import (
	"context"
	"time"
)

// line is a first-in first-out list whose elements can leave from the middle.
type line[E any] struct{ root turn[E] }

// turn is a place in a line.
type turn[E any] struct {
	value      E
	prev, next *turn[E]
}

func (l *line[E]) init() {
	if l.root.next == nil {
		l.root.prev, l.root.next = &l.root, &l.root
	}
}

func (l *line[E]) push(e E) *turn[E] {
	l.init()
	t := &turn[E]{value: e, prev: l.root.prev, next: &l.root}
	t.prev.next, t.next.prev = t, t
	return t
}

func (l *line[E]) remove(t *turn[E]) {
	t.prev.next, t.next.prev = t.next, t.prev
}

// first returns the first place, nil if the line is empty.
func (l *line[E]) first() *turn[E] {
	if l.empty() {
		return nil
	}
	return l.root.next
}

func (l *line[E]) empty() bool { return l.root.next == nil || l.root.next == &l.root }

// waiters are calls that wait for the same thing, in the order in which they came.
// Only the first is woken: it takes what is there, and when it returns, for whatever
// reason, it wakes the next if something is left. So no wake-up is lost if a call
// gives up as it is woken.
type waiters struct{ line[chan struct{}] }

func (w *waiters) wake() {
	if t := w.first(); t != nil {
		signal(t.value)
	}
}

func (w *waiters) wakeAll() {
	for t := w.root.next; t != nil && t != &w.root; t = t.next {
		signal(t.value)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is on its way
	}
}

// await calls try, under s.mu, until it reports true or fails, wait is over, or
// ctx ends: then try has had no effect. In between it waits in the waiters that
// in returns. after is called at the end. Both are called under s.mu.
func (s *store) await(ctx context.Context, in func() *waiters, wait time.Duration, try func(now time.Time) (bool, error), after func()) (bool, error) {
	now := s.lock()
	done, err := s.attempt(ctx, try, now)
	if done || err != nil || wait <= 0 {
		after()
		s.unlock()
		return done, err
	}
	c, w := make(chan struct{}, 1), in()
	place := w.push(c)
	s.waiting++
	s.unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for over := false; ; {
		select {
		case <-c:
		case <-ctx.Done():
		case <-timer.C:
			over = true
		}
		now := s.lock()
		done, err := s.attempt(ctx, try, now)
		if done || err != nil || over {
			w.remove(place)
			s.waiting--
			after()
			s.unlock()
			return done, err
		}
		s.unlock()
	}
}

func (s *store) attempt(ctx context.Context, try func(now time.Time) (bool, error), now time.Time) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return try(now)
}
