package postgresqueue

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/internal/sqldriver"
)

// calls is what a settler's calls go to. Each takes a second, or as long as stuck says.
type calls struct {
	mu    sync.Mutex // guards what follows
	sizes []int
	stuck time.Duration // of the first
	err   error
}

func (c *calls) perform(ctx context.Context, orders []order) ([]bool, error) {
	c.mu.Lock()
	took := 10 * time.Millisecond
	if len(c.sizes) == 0 && c.stuck > 0 {
		took = c.stuck
	}
	c.sizes = append(c.sizes, len(orders))
	err := c.err
	c.mu.Unlock()
	t := time.NewTimer(took)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	done := make([]bool, len(orders))
	for i, o := range orders {
		done[i] = o.receipt.Seq%2 == 0 // the locks of the others are over
	}
	return done, err
}

func numbered(seqs ...int64) (orders []order) {
	for _, n := range seqs {
		orders = append(orders, order{receipt: &sqldriver.Receipt{Seq: n}})
	}
	return orders
}

// TestSettlerShares: what comes while a call is under way shares the next, and each caller
// gets its own answers.
func TestSettlerShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &calls{}
		s := &settler{perform: c.perform}
		go func() { _, _ = s.settle(t.Context(), numbered(0)) }()
		synctest.Wait()
		var wg sync.WaitGroup
		begin := time.Now()
		for n := range int64(20) {
			wg.Go(func() {
				done, err := s.settle(t.Context(), numbered(2*n, 2*n+1))
				if err != nil || len(done) != 2 || !done[0] || done[1] {
					t.Errorf("caller %d: %v, %v", n, done, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took > 20*time.Millisecond || len(c.sizes) != 2 || c.sizes[1] != 40 {
			t.Errorf("%s and calls of %d, want two calls, the second of 40", took, c.sizes)
		}
		c.err = errors.New("no answer")
		for range 3 {
			wg.Go(func() {
				if _, err := s.settle(t.Context(), numbered(2)); !errors.Is(err, c.err) {
					t.Errorf("%v, want the error of the call", err)
				}
			})
		}
		wg.Wait()
		s.close()
	})
}

// TestSettlerIsNotHeldUp: a call that gets no answer holds up no other, and a caller
// leaves when its context ends.
func TestSettlerIsNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &calls{stuck: time.Minute}
		s := &settler{perform: c.perform}
		go func() { _, _ = s.settle(t.Context(), numbered(0)) }()
		synctest.Wait()
		begin := time.Now()
		if done, err := s.settle(t.Context(), numbered(2)); err != nil || !done[0] || time.Since(begin) > time.Second {
			t.Errorf("%v, %v after %s", done, err, time.Since(begin))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin = time.Now()
		if _, err := s.settle(ctx, numbered(4)); !errors.Is(err, context.Canceled) || time.Since(begin) > 0 {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		s.close() // waits for the first
		if len(c.sizes) != 2 || time.Since(begin) < 50*time.Second {
			t.Errorf("calls of %d; closed after %s", c.sizes, time.Since(begin))
		}
		if done, err := s.settle(t.Context(), numbered(6)); err != nil || !done[0] {
			t.Errorf("after close: %v, %v", done, err)
		}
	})
}
