package worker

import (
	"container/heap"
	"context"
	"runtime"
	"sync"
)

// slots share a number of concurrent handlers among queues by weight. Invariant: each
// queue that uses no slot has one kept for it, so that a busy queue never starves
// another. The rest goes to the waiting queue that uses the fewest for its weight.
//
// Taking and giving back a slot costs constant time, and log n comparisons if n queues
// wait: a message does not cost more because other queues exist.
type slots struct {
	mu    sync.Mutex // guards the fields below and the shares
	total int
	used  int
	// unused is how many shares use no slot. One slot is kept for each.
	unused int
	// waiting are the shares that wait for a slot that any queue could have.
	waiting waiters
	turns   uint64 // counts the waits, for their order among equals
}

// share is one queue's part.
type share struct {
	weight int
	limit  int // of slots at once
	used   int

	state waitState
	want  int      // slots that its fetcher waits for
	turn  uint64   // of its wait
	index int      // in waiters, while queued
	got   chan int // the slots that the fetcher was granted; holds one answer
}

// waitState says what the one fetcher of a share does.
type waitState uint8

const (
	idle   waitState = iota // it does not wait
	queued                  // it waits for a slot that any queue could have
	full                    // its share is at its limit: only a slot of its own helps
)

func newShare(weight, limit int) *share {
	return &share{weight: weight, limit: limit, got: make(chan int, 1)}
}

// reserve keeps one slot for one more share. It must not be called while slots are in
// use.
func (p *slots) reserve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unused++
}

// free returns how many slots s may take now. Called under mu.
func (p *slots) free(s *share) int {
	common := p.total - p.used - p.unused
	if s.used == 0 {
		common++ // the one that is kept for it
	}
	return min(common, s.limit-s.used)
}

// acquire takes 1 to want slots; ctx.Err() if ctx ends first. One goroutine at a time
// acquires for a share.
func (p *slots) acquire(ctx context.Context, s *share, want int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	want = min(want, s.limit)
	p.mu.Lock()
	if free := p.free(s); free > 0 && len(p.waiting.shares) == 0 {
		n := min(free, want)
		p.take(s, n)
		p.mu.Unlock()
		return n, nil
	}
	p.turns++
	s.want, s.turn = want, p.turns
	p.wait(s)
	p.grant()
	p.mu.Unlock()
	select {
	case n := <-s.got:
		return n + p.more(s, want-n), nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case n := <-s.got: // granted meanwhile
		p.give(s, n)
	default:
		p.leave(s)
	}
	return 0, ctx.Err()
}

// more takes up to want slots beside those that were just granted, without waiting for
// them. It lets other goroutines run first: handlers that end at about the same time
// are then replaced by one call to the broker, and not by one each.
func (p *slots) more(s *share, want int) int {
	if want < 1 {
		return 0
	}
	runtime.Gosched()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting.shares) > 0 {
		return 0
	}
	n := max(0, min(p.free(s), want))
	p.take(s, n)
	return n
}

// release gives n slots back.
func (p *slots) release(s *share, n int) {
	if n == 0 {
		return
	}
	p.mu.Lock()
	p.give(s, n)
	p.mu.Unlock()
}

// take and give are called under mu.
func (p *slots) take(s *share, n int) {
	if s.used == 0 && n > 0 {
		p.unused--
	}
	p.used += n
	s.used += n
}

func (p *slots) give(s *share, n int) {
	p.used -= n
	s.used -= n
	if s.used == 0 && n > 0 {
		p.unused++
	}
	switch s.state {
	case queued:
		heap.Fix(&p.waiting, s.index) // it uses fewer now
	case full:
		if len(p.waiting.shares) == 0 { // the usual case, without the heap
			p.serve(s, min(p.free(s), s.want))
			return
		}
		p.wait(s)
	case idle:
	}
	p.grant()
}

// serve ends the wait of s with n slots. Called under mu.
func (p *slots) serve(s *share, n int) {
	p.leave(s)
	p.take(s, n)
	s.got <- n
}

// wait makes s wait for what it lacks. Called under mu.
func (p *slots) wait(s *share) {
	if s.used == s.limit {
		s.state = full
		return
	}
	s.state = queued
	heap.Push(&p.waiting, s)
}

// leave ends the wait of s. Called under mu.
func (p *slots) leave(s *share) {
	if s.state == queued {
		heap.Remove(&p.waiting, s.index)
	}
	s.state = idle
}

// grant serves waiting shares while there are slots: the one that uses the fewest for
// its weight first, one slot at a time while others wait. A share that uses none comes
// first and always has its own. Called under mu.
func (p *slots) grant() {
	for len(p.waiting.shares) > 0 {
		s := p.waiting.shares[0]
		free := p.free(s)
		if free < 1 {
			return
		}
		n := 1
		if len(p.waiting.shares) == 1 {
			n = min(free, s.want)
		}
		p.serve(s, n)
	}
}

// waiters is a heap of shares: the next to be served is the first.
type waiters struct {
	shares []*share
	steps  uint64 // comparisons so far, for the test of what a message costs
}

func (w *waiters) Len() int { return len(w.shares) }

func (w *waiters) Less(i, j int) bool {
	w.steps++
	a, b := w.shares[i], w.shares[j]
	if x, y := a.used*b.weight, b.used*a.weight; x != y {
		return x < y
	}
	return a.turn < b.turn
}

func (w *waiters) Swap(i, j int) {
	w.shares[i], w.shares[j] = w.shares[j], w.shares[i]
	w.shares[i].index, w.shares[j].index = i, j
}

// Push is for package heap.
func (w *waiters) Push(x any) {
	s := x.(*share) //nolint:forcetypeassert // only shares are pushed
	s.index = len(w.shares)
	w.shares = append(w.shares, s)
}

// Pop is for package heap.
func (w *waiters) Pop() any {
	last := len(w.shares) - 1
	s := w.shares[last]
	w.shares[last] = nil
	w.shares = w.shares[:last]
	return s
}
