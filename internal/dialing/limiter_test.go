package dialing

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var errRefused = errors.New("refused")

// TestLimiterAway: while a server is away, many callers that try again at once make few
// attempts, share their errors, and go on soon after it is back.
func TestLimiterAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		var mu sync.Mutex
		begin := time.Now()
		back := begin.Add(time.Minute)
		attempts, shared, longest := 0, 0, time.Duration(0)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for {
					began := time.Now()
					a, err := l.Begin(t.Context())
					mu.Lock()
					longest = max(longest, time.Since(began))
					if err != nil {
						shared++
						mu.Unlock()
						if !errors.Is(err, errRefused) {
							t.Errorf("Begin: %v, want the error of another", err)
							return
						}
						continue
					}
					attempts++
					mu.Unlock()
					if !time.Now().Before(back) {
						a.Reached()
						a.End()
						return
					}
					a.Failed(errRefused)
					a.End()
				}
			})
		}
		all.Wait()
		if late := time.Since(back); late > longestPause {
			t.Errorf("all went on %s after the server was back, want %s at most", late, longestPause)
		}
		if most := abreast + 50 + 2*60 + 10; attempts > most {
			t.Errorf("%d attempts in a minute, want %d at most, with those of %d callers when it was back", attempts, most, 50)
		}
		if longest > longestPause {
			t.Errorf("a caller waited %s, want %s at most", longest, longestPause)
		}
		if shared == 0 {
			t.Error("no caller had the error of another one's attempt")
		}
	})
}

// TestLimiterUnanswered: attempts that are not answered hold up others, which end with
// their contexts; what they then learn ends the wait.
func TestLimiterUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limiter
		var open []*Attempt
		for range abreast {
			a, err := l.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, a)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := l.Begin(short); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("a further attempt: %v after %s, want its context's end after 1 s", err, time.Since(begin))
		}
		got := make(chan error)
		go func() {
			a, err := l.Begin(t.Context())
			if err == nil {
				a.Reached()
				a.End()
			}
			got <- err
		}()
		synctest.Wait()
		// What began before the caller came fails without failing the caller.
		for _, a := range open {
			a.Failed(errRefused)
			a.End()
		}
		begin = time.Now()
		if err := <-got; err != nil || time.Since(begin) > longestPause {
			t.Errorf("the attempt after it: %v after %s, want none after a pause", err, time.Since(begin))
		}
		for range abreast {
			if _, err := l.Begin(t.Context()); err != nil {
				t.Errorf("after the server was reached: %v", err)
			}
		}
		if time.Since(begin) > longestPause {
			t.Error("attempts wait although the server was reached")
		}
	})
}

// TestLimiterStart: a program that opens hundreds of connections when it starts waits for one
// answer. Those that it opens a while later, when the server may be away, are few again.
func TestLimiterStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, roundTrip = 256, 40 * time.Millisecond
		var l Limiter
		connect := func() (most int) {
			var mu sync.Mutex
			var all sync.WaitGroup
			for range callers {
				all.Go(func() {
					a, err := l.Begin(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					defer a.End()
					l.mu.Lock()
					under := l.under
					l.mu.Unlock()
					mu.Lock()
					most = max(most, under)
					mu.Unlock()
					time.Sleep(roundTrip)
					a.Reached()
				})
			}
			all.Wait()
			return most
		}
		begin := time.Now()
		if most := connect(); most < callers-abreast || time.Since(begin) != 2*roundTrip {
			t.Errorf("%d attempts at once, all over after %s; want them after two round trips", most, time.Since(begin))
		}
		time.Sleep(recent)
		var open []*Attempt
		for range abreast {
			a, err := l.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, a)
		}
		short, cancel := context.WithTimeout(t.Context(), roundTrip)
		defer cancel()
		if _, err := l.Begin(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fifth attempt to a server that was silent for a while: %v", err)
		}
		for _, a := range open {
			a.End()
		}
	})
}

// TestTo: one server has one limiter.
func TestTo(t *testing.T) {
	a, again := To("a:1"), To("a:1")
	if a != again || a == To("b:1") {
		t.Error("limiters are not by server")
	}
}
