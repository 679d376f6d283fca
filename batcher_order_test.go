package queue_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
)

// unordered is a broker whose calls store some messages of a session and not others, as
// SendMessageBatch of SQS does. Its send stores what refuse does not name.
func (x *fixture) unordered(refuse func(id string) error) (*queue.Sender, *[]string) {
	x.Helper()
	var mu sync.Mutex
	stored := &[]string{}
	p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.OrderedBatch = false }}
	p.OnSend = func(m []*driver.Message) []driver.SendResult {
		mu.Lock()
		defer mu.Unlock()
		r := make([]driver.SendResult, len(m))
		for i, m := range m {
			if r[i].Err = refuse(m.ID); r[i].Err == nil {
				*stored = append(*stored, m.ID)
			}
		}
		return r
	}
	c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
	x.Must(err)
	s, err := c.Sender(x.Context(), orders, nil)
	x.Must(err)
	return s, stored
}

// ofSessions makes n messages of each session, in turn.
func ofSessions(n int, sessions ...string) []*queue.Message {
	var all []*queue.Message
	for i := range n {
		for _, s := range sessions {
			all = append(all, &queue.Message{ID: fmt.Sprintf("%s%d", s, i), SessionID: s, Body: []byte("x")})
		}
	}
	return all
}

// only are the IDs of one session.
func only(ids []string, session string) (out []string) {
	for _, id := range ids {
		if id[:1] == session {
			out = append(out, id)
		}
	}
	return out
}

// A message that a call leaves out for a passing reason is not overtaken by the later ones
// of its session, whether a batch or a Batcher sends it, on a broker without OrderedBatch.
func TestSessionOrderOnAnUnorderedBroker(t *testing.T) {
	for _, batcher := range []bool{false, true} {
		for _, kind := range []driver.Kind{driver.Unavailable, driver.Throttled} {
			inBubble(t, nil, func(x *fixture) {
				failures := map[string]int{"a0": 1, "b2": 2}
				s, stored := x.unordered(func(id string) error {
					if failures[id]--; failures[id] >= 0 {
						return driver.Errorf(kind, "for a while")
					}
					return nil
				})
				all := ofSessions(5, "a", "b")
				if batcher {
					b, err := queue.NewBatcher(s, &queue.BatcherOptions{InFlight: 1})
					x.Must(err)
					for _, m := range all {
						x.Must(b.SendAsync(x.Context(), m, func(r queue.SendResult) {
							if r.Err != nil {
								x.Errorf("%s: %v", r.MessageID, r.Err)
							}
						}))
					}
					x.Must(b.Close(x.Context()))
				} else {
					for again := all; len(again) > 0; {
						r, _ := s.SendBatch(x.Context(), again)
						var failed []*queue.Message
						for i := range r {
							if r[i].Err != nil {
								failed = append(failed, again[i])
							}
						}
						again = failed
					}
				}
				for _, session := range []string{"a", "b"} {
					if got := only(*stored, session); !slices.IsSorted(got) || len(got) != 5 {
						x.Errorf("batcher %t, %v: session %s reads %v", batcher, kind, session, got)
					}
				}
			})
		}
	}
}

// Calls are full although no two messages of one session share one.
func TestSessionsShareCalls(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		var calls [][]string
		p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.OrderedBatch = false }}
		p.OnSend = func(m []*driver.Message) []driver.SendResult {
			var of []string
			for _, m := range m {
				of = append(of, m.SessionID)
			}
			calls = append(calls, of)
			return nil
		}
		c, err := queue.New(p, &queue.Options{Logger: quiet()})
		x.Must(err)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		all := append(ofSessions(3, "a"), ofSessions(3, "b", "c")...)
		all = append(all, &queue.Message{}, &queue.Message{})
		_, err = s.SendBatch(x.Context(), all)
		x.Must(err)
		if len(calls) != 3 || len(calls[0]) != 5 {
			x.Errorf("calls of %v, want three, and both messages without a session in the first", calls)
		}
		for _, of := range calls {
			sessions := slices.DeleteFunc(of, func(s string) bool { return s == "" })
			if n := len(sessions); n != len(slices.Compact(slices.Sorted(slices.Values(sessions)))) {
				x.Errorf("one call holds several messages of a session: %v", of)
			}
		}
	})
}

// A message that is refused before it is sent holds back those behind it in its session, and no
// other.
func TestBatchBehindAnInvalidMessage(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.Sender(orders)
		all := []*queue.Message{
			{ID: strings.Repeat("x", 1<<16), SessionID: "s"}, {ID: "behind", SessionID: "s"}, {ID: "beside", SessionID: "other"},
		}
		r, err := s.SendBatch(x.Context(), all)
		if len(r) != 3 || r[0].Err == nil || errors.Is(r[0].Err, queue.ErrNotSent) || !errors.Is(r[1].Err, queue.ErrNotSent) || r[2].Err != nil || err == nil {
			x.Errorf("%+v, %v; want the second not sent, and the third sent", r, err)
		}
	})
}

// After a message that failed for good, those of its session that were accepted before
// its answer are not sent, so that the caller can repair the order.
func TestBatcherOrderAfterAFailure(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		var mu sync.Mutex
		var notSent []int
		calls := 0
		b := x.batching(&queue.BatcherOptions{
			MaxMessages: 2, InFlight: 1, MaxAttempts: 3, Retry: backoff.Fixed(time.Second), Breaker: backoff.BreakerOptions{Failures: 100},
		}, func(m []*driver.Message) []driver.SendResult {
			if calls++; calls <= 3 {
				return slices.Repeat([]driver.SendResult{{Err: queuetest.Unavailable()}}, len(m))
			}
			return nil
		})
		for i := range 7 {
			session := "s"
			if i == 6 {
				session = "another"
			}
			x.Must(b.SendAsync(x.Context(), &queue.Message{ID: fmt.Sprint(i), SessionID: session}, func(r queue.SendResult) {
				if r.Err == nil {
					return
				}
				mu.Lock()
				defer mu.Unlock()
				notSent = append(notSent, i)
				if i >= 2 && !errors.Is(r.Err, queue.ErrNotSent) {
					x.Errorf("%d: %v, want ErrNotSent", i, r.Err)
				}
			}))
		}
		x.Must(b.Flush(x.Context()))
		for _, i := range notSent {
			if _, err := b.Send(x.Context(), &queue.Message{ID: fmt.Sprint(i), SessionID: "s"}); err != nil {
				x.Error(err)
			}
		}
		x.Must(b.Close(x.Context()))
		var order []string
		for _, m := range x.Stored(orders) {
			if m.SessionID == "s" {
				order = append(order, m.ID)
			}
		}
		if got := fmt.Sprint(order); got != "[0 1 2 3 4 5]" || slices.Contains(notSent, 6) {
			x.Errorf("failed: %v; after they were sent again the session reads %v", notSent, got)
		}
	})
}

// The same with one message that the broker refuses for good in the middle of a call.
func TestBatcherOrderAfterARefusal(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s, stored := x.unordered(func(id string) error {
			if id == "a1" {
				return driver.Errorf(driver.Invalid, "refused")
			}
			return nil
		})
		b, err := queue.NewBatcher(s, &queue.BatcherOptions{InFlight: 1})
		x.Must(err)
		for _, m := range ofSessions(4, "a", "b") {
			x.Must(b.SendAsync(x.Context(), m, func(r queue.SendResult) {
				if want := m.ID > "a1" && m.SessionID == "a"; errors.Is(r.Err, queue.ErrNotSent) != want {
					x.Errorf("%s: %v, want ErrNotSent: %t", m.ID, r.Err, want)
				}
			}))
		}
		x.Must(b.Close(x.Context()))
		if a, b := only(*stored, "a"), only(*stored, "b"); fmt.Sprint(a, b) != "[a0] [b0 b1 b2 b3]" {
			x.Errorf("stored %v and %v", a, b)
		}
	})
}

// Flush does not wait for Linger, however many messages wait.
func TestFlushWithMoreThanOneBatch(t *testing.T) {
	for _, n := range []int{5, 15, 25, 37} {
		inBubble(t, nil, func(x *fixture) {
			b := x.batching(&queue.BatcherOptions{Linger: 10 * time.Second, MaxMessages: 10, InFlight: 1}, func([]*driver.Message) []driver.SendResult {
				x.Wait(20 * time.Millisecond) // so that messages pile up behind the first batch
				return nil
			})
			for range n {
				x.Must(b.SendAsync(x.Context(), &queue.Message{}, nil))
			}
			begin := time.Now()
			x.Must(b.Flush(x.Context()))
			if took := time.Since(begin); took > time.Second {
				x.Errorf("%d messages, batches of 10: Flush took %s", n, took)
			}
			x.Must(b.Close(x.Context()))
		})
	}
}

// Whatever the Batcher confirms after an outage is young enough for a receiver.
func TestBatcherOutageLongerThanMaxMessageAge(t *testing.T) {
	for _, outage := range []time.Duration{time.Minute, 4 * time.Minute, 6 * time.Minute, 12 * time.Minute} {
		for _, tracked := range []bool{false, true} {
			inBubble(t, func(x *fixture, o *queue.Options) {
				x.Broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: 30 * time.Second, Retention: 24 * time.Hour}})
				o.Crypto.TrackReplays, o.Crypto.MaxMessageAge = tracked, 5*time.Minute
			}, func(x *fixture) {
				begin := time.Now()
				b := x.batching(&queue.BatcherOptions{MaxMessages: 10}, func(m []*driver.Message) []driver.SendResult {
					if time.Since(begin) < outage {
						return slices.Repeat([]driver.SendResult{{Err: queuetest.Unavailable()}}, len(m))
					}
					return nil
				})
				const n = 200
				var mu sync.Mutex
				confirmed := 0
				for range n {
					x.Must(b.SendAsync(x.Context(), &queue.Message{Body: []byte("x")}, func(r queue.SendResult) {
						mu.Lock()
						defer mu.Unlock()
						if r.Err == nil {
							confirmed++
						}
					}))
				}
				r := x.Receiver(orders, nil)
				closed := make(chan struct{})
				go func() {
					defer close(closed)
					x.Must(b.Close(x.Context()))
				}()
				got := 0
				for over := false; ; {
					batch := x.Some(r.Receive(x.Context(), 100))
					for _, d := range batch {
						x.Must(d.Complete(x.Context()))
					}
					got += len(batch)
					if over && len(batch) == 0 {
						break
					}
					select {
					case <-closed:
						over = true
					default:
					}
				}
				if got != confirmed || confirmed == 0 {
					x.Errorf("outage of %s, replays tracked %t: %d of %d confirmed, %d received, dead letters %v", outage, tracked, confirmed, n, got, x.DeadReasons(orders))
				}
			})
		}
	}
}

// While the failure of one session is answered, messages of another that failed in the same
// batch are accepted: they fail, too, as long as their own session's failure is not answered.
func TestBatcherOrderWhileAFailureIsAnswered(t *testing.T) {
	for _, unsealed := range []bool{false, true} {
		inBubble(t, nil, func(x *fixture) {
			s, stored := x.unordered(func(id string) error {
				if id == "a0" || id == "b0" {
					return driver.Errorf(driver.Invalid, "refused")
				}
				return nil
			})
			if unsealed { // all of a batch fails, because it cannot be sealed
				x.Must(x.Ring.Remove("k1"))
			}
			b, err := queue.NewBatcher(s, &queue.BatcherOptions{InFlight: 1, MaxMessages: 2, Linger: time.Hour})
			x.Must(err)
			late := make(chan error, 1)
			message := func(id string) *queue.Message {
				return &queue.Message{ID: id, SessionID: id[:1], Body: []byte("x")}
			}
			accept := func(id string, then func(queue.SendResult)) { x.Must(b.SendAsync(x.Context(), message(id), then)) }
			accept("z0", func(queue.SendResult) { // goes alone: the next two share a batch
				accept2 := make(chan struct{})
				go func() {
					defer close(accept2)
					accept("a0", func(queue.SendResult) {
						accepted := make(chan struct{})
						go func() {
							defer close(accepted)
							accept("b1", func(r queue.SendResult) { late <- r.Err })
						}()
						<-accepted
					})
					accept("b0", func(queue.SendResult) {})
				}()
				<-accept2
			})
			if err := <-late; !errors.Is(err, queue.ErrNotSent) {
				x.Errorf("a message that was accepted before the failure in front of it was answered: %v, want ErrNotSent", err)
			}
			x.Must(b.Close(x.Context()))
			if got := only(*stored, "b"); len(got) > 0 {
				x.Errorf("stored %v: the first message of the session was refused", got)
			}
		})
	}
}

// A message that is accepted once the failure in front of it was answered is sent, although a
// further message of its session, which failed with the first, is answered after that.
func TestBatcherOrderAfterAFailureIsAnswered(t *testing.T) {
	for _, unsealed := range []bool{false, true} {
		inBubble(t, nil, func(x *fixture) {
			s, stored := x.unordered(func(id string) error {
				if id == "a0" {
					return driver.Errorf(driver.Invalid, "refused")
				}
				return nil
			})
			if unsealed { // all of a batch fails, because it cannot be sealed
				x.Must(x.Ring.Remove("k1"))
			}
			b, err := queue.NewBatcher(s, &queue.BatcherOptions{InFlight: 1, MaxMessages: 2, Linger: time.Hour})
			x.Must(err)
			repaired := make(chan error, 1)
			accept := func(id string, then func(queue.SendResult)) {
				done := make(chan struct{})
				go func() {
					defer close(done)
					x.Must(b.SendAsync(x.Context(), &queue.Message{ID: id, SessionID: id[:1], Body: []byte("x")}, then))
				}()
				<-done
			}
			accept("z0", func(queue.SendResult) { // goes alone: the next two share a batch
				accept("a0", func(queue.SendResult) {
					if unsealed {
						if err := errors.Join(x.Ring.Add(newKey(x.T, "k1", 1)), x.Ring.SetCurrent("k1")); err != nil {
							x.Error(err)
						}
					}
					accept("a2", func(r queue.SendResult) { repaired <- r.Err })
				})
				accept("a1", func(queue.SendResult) {})
			})
			if err := <-repaired; err != nil {
				x.Errorf("the message that repairs the failure: %v", err)
			}
			x.Must(b.Close(x.Context()))
			if got := only(*stored, "a"); !slices.Equal(got, []string{"a2"}) {
				x.Errorf("stored %v, want the message that repairs the failure", got)
			}
		})
	}
}
