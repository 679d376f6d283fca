package queue

import (
	"context"
	"runtime"
	"sync"
)

// slots share a number of concurrent handlers among queues by weight. Each queue
// can always have one: a busy queue never starves another. The rest goes to
// whoever waits with the fewest in use for its weight.
type slots struct {
	mu      sync.Mutex // guards what follows and the shares
	total   int
	used    int
	shares  []*share
	waiting []*slotWait
}

// share is one queue's part.
type share struct {
	weight int
	max    int // most at once
	used   int
	wait   slotWait // of the queue's one fetcher
}

func newShare(weight, most int) *share {
	s := &share{weight: weight, max: most}
	s.wait = slotWait{share: s, got: make(chan int, 1)}
	return s
}

// slotWait is a caller who waits for slots.
type slotWait struct {
	share *share
	want  int
	got   chan int
}

// free returns how many slots s may take now. Called under mu.
func (p *slots) free(s *share) int {
	free := p.total - p.used
	for _, other := range p.shares {
		if other != s && other.used == 0 {
			free-- // kept for it
		}
	}
	return min(free, s.max-s.used)
}

// acquire takes 1 to want slots; ctx.Err() when ctx ends first. One goroutine at
// a time acquires for a share.
func (p *slots) acquire(ctx context.Context, s *share, want int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	want = min(want, s.max)
	p.mu.Lock()
	if free := p.free(s); free > 0 && len(p.waiting) == 0 {
		n := min(free, want)
		p.take(s, n)
		p.mu.Unlock()
		return n, nil
	}
	w := &s.wait
	w.want = want
	p.waiting = append(p.waiting, w)
	p.grant()
	p.mu.Unlock()
	select {
	case n := <-w.got:
		return n + p.more(s, want-n), nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case n := <-w.got: // granted meanwhile
		p.give(s, n)
	default:
		p.drop(w)
	}
	return 0, ctx.Err()
}

// more takes up to want slots beside those that were just granted, without
// waiting for them. It lets other goroutines run first: handlers that end at about
// the same time are then replaced by one call to the broker, and not by one each.
func (p *slots) more(s *share, want int) int {
	if want < 1 {
		return 0
	}
	runtime.Gosched()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) > 0 {
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

func (p *slots) take(s *share, n int) { p.used += n; s.used += n }

func (p *slots) give(s *share, n int) {
	p.used -= n
	s.used -= n
	p.grant()
}

// grant serves waiters while there are slots: the one whose queue uses least for
// its weight first, one slot at a time while others wait. Called under mu.
func (p *slots) grant() {
	for {
		var best *slotWait
		for _, w := range p.waiting {
			if p.free(w.share) < 1 {
				continue
			}
			if best == nil || w.share.used*best.share.weight < best.share.used*w.share.weight {
				best = w
			}
		}
		if best == nil {
			return
		}
		n := 1
		if len(p.waiting) == 1 {
			n = min(p.free(best.share), best.want)
		}
		p.drop(best)
		p.take(best.share, n)
		best.got <- n
	}
}

func (p *slots) drop(w *slotWait) {
	for i, x := range p.waiting {
		if x == w {
			p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
			return
		}
	}
}
