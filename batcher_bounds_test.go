package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/queuetest"
)

// sends keeps the calls that reach a broker, and answers them.
type sends struct {
	mu     sync.Mutex
	begin  time.Time
	calls  [][]string // IDs
	at     []time.Duration
	traces []int // messages with a trace, by call
	answer func(call int, m *driver.Message) error
}

func (s *sends) send(m []*driver.Message) []driver.SendResult {
	s.mu.Lock()
	n := len(s.calls)
	var ids []string
	traces := 0
	for _, m := range m {
		ids = append(ids, m.ID)
		if m.Trace != nil {
			traces++
		}
	}
	s.calls, s.at, s.traces = append(s.calls, ids), append(s.at, time.Since(s.begin)), append(s.traces, traces)
	s.mu.Unlock()
	if s.answer == nil {
		return nil
	}
	r := make([]driver.SendResult, len(m))
	for i := range m {
		r[i].BrokerID, r[i].Err = "b", s.answer(n, m[i])
	}
	return r
}

func (s *sends) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.calls)
}

// every is a retry policy of one delay.
type every time.Duration

func (d every) Delay(int) time.Duration { return time.Duration(d) }

var (
	errThrottled = &driver.Error{Kind: driver.Throttled}
	errRefused   = driver.Errorf(driver.Invalid, "no")
)

// steady has no breaker that opens.
var steady = backoff.BreakerOptions{Failures: 1000}

// upTo returns the first n whole numbers.
func upTo(n int) (all []time.Duration) {
	for i := range n {
		all = append(all, time.Duration(i))
	}
	return all
}

// TestBatcherAttempts: what fails for a passing reason is sent MaxAttempts times, after the
// policy's delay or what the broker asks for; a negative delay, and what was refused, ends it.
func TestBatcherAttempts(t *testing.T) {
	for name, c := range map[string]struct {
		o    queue.BatcherOptions
		err  error
		want []time.Duration
	}{
		"a delay":                   {queue.BatcherOptions{Retry: every(time.Second), MaxAttempts: 3}, errThrottled, []time.Duration{0, 1, 2}},
		"one attempt":               {queue.BatcherOptions{Retry: every(time.Second), MaxAttempts: 1}, errThrottled, []time.Duration{0}},
		"the default":               {queue.BatcherOptions{Retry: every(time.Second)}, errThrottled, upTo(64)},
		"a negative delay":          {queue.BatcherOptions{Retry: every(-1)}, errThrottled, []time.Duration{0}},
		"the broker asks for more":  {queue.BatcherOptions{Retry: every(time.Second), MaxAttempts: 2}, &driver.Error{Kind: driver.Throttled, RetryAfter: 5 * time.Second}, []time.Duration{0, 5}},
		"the broker asks for less":  {queue.BatcherOptions{Retry: every(3 * time.Second), MaxAttempts: 2}, &driver.Error{Kind: driver.Throttled, RetryAfter: time.Second}, []time.Duration{0, 3}},
		"refused":                   {queue.BatcherOptions{Retry: every(time.Second)}, errRefused, []time.Duration{0}},
		"accepted":                  {queue.BatcherOptions{Retry: every(time.Second)}, nil, []time.Duration{0}},
		"too old after some":        {queue.BatcherOptions{Retry: every(time.Minute), MaxAttempts: 9}, errThrottled, []time.Duration{0, 60, 120}},
		"too old, at half its life": {queue.BatcherOptions{Retry: every(150 * time.Second), MaxAttempts: 9}, errThrottled, []time.Duration{0, 150}},
	} {
		inBubble(t, nil, func(x *fixture) {
			s := &sends{begin: time.Now(), answer: func(int, *driver.Message) error { return c.err }}
			c.o.Breaker = steady
			b := x.batching(&c.o, s.send)
			r, err := b.Send(x.Context(), &queue.Message{ID: "m", Body: []byte("a")})
			if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || r.MessageID != "m" || (r.BrokerID != "") != (c.err == nil) && c.err == nil {
				x.Errorf("%s: %+v, %v", name, r, err)
			}
			var at []time.Duration
			for _, d := range s.at {
				at = append(at, d/time.Second)
			}
			if !slices.Equal(at, c.want) {
				x.Errorf("%s: sent after %v s, want %v", name, at, c.want)
			}
			x.Must(b.Close(x.Context()))
		})
	}
}

// TestBatcherWaitsForKeys: a key provider that does not answer is asked after 1 s, 2 s and so on,
// and after the last attempt its error is the message's.
func TestBatcherWaitsForKeys(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		half := &halfKeys{Provider: x.Ring}
		s := &sends{begin: time.Now()}
		c, err := queue.New(&fixturetest.FaultyBroker{Broker: x.Broker, OnSend: s.send}, &queue.Options{Keys: half, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
		x.Must(err)
		sender, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		b, err := queue.NewBatcher(sender, &queue.BatcherOptions{Retry: every(time.Millisecond), MaxAttempts: 4, Breaker: steady})
		x.Must(err)
		x.Wait(3 * time.Hour) // what was cached is over
		half.mu.Lock()
		half.current = errFailing
		half.mu.Unlock()
		begin := time.Now()
		_, err = b.Send(x.Context(), &queue.Message{Body: []byte("a")})
		if took := time.Since(begin); !errors.Is(err, errFailing) || took < 7*time.Second || took > 8*time.Second || s.count() != 0 {
			x.Errorf("%v after %s and %d calls, want the provider's error after 1 + 2 + 4 s", err, took, s.count())
		}
		half.mu.Lock()
		half.current = nil
		half.mu.Unlock()
		x.Wait(time.Minute)
		x.Must(second(b.Send(x.Context(), &queue.Message{Body: []byte("a")})))
		x.Must(b.Close(x.Context()))
	})
}

// TestBatcherWithoutKeysAfterAnOutage: a batch that is let through to test a broker that was away,
// and cannot be sealed, does not keep the next one from being let through.
func TestBatcherWithoutKeysAfterAnOutage(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		half := &halfKeys{Provider: x.Ring}
		s := &sends{answer: func(call int, _ *driver.Message) error {
			if call == 0 {
				return queuetest.Unavailable()
			}
			return nil
		}}
		c, err := queue.New(&fixturetest.FaultyBroker{Broker: x.Broker, OnSend: s.send}, &queue.Options{Keys: half, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
		x.Must(err)
		sender, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		b, err := queue.NewBatcher(sender, &queue.BatcherOptions{MaxAttempts: 1, Breaker: backoff.BreakerOptions{Failures: 1, Open: time.Second}})
		x.Must(err)
		send := func() error {
			ctx, cancel := context.WithTimeout(x.Context(), time.Hour)
			defer cancel()
			return second(b.Send(ctx, &queue.Message{Body: []byte("a")}))
		}
		if err := send(); !errors.Is(err, driver.ErrUnavailable) {
			x.Errorf("while the broker is away: %v", err)
		}
		keysFail := func(err error) {
			half.mu.Lock()
			defer half.mu.Unlock()
			half.current = err
		}
		x.Wait(3 * time.Hour) // what was cached is over
		keysFail(errFailing)
		if err := send(); !errors.Is(err, errFailing) || s.count() != 1 {
			x.Errorf("without keys: %v after %d calls", err, s.count())
		}
		keysFail(nil)
		x.Wait(time.Minute)
		if err := send(); err != nil || s.count() != 2 {
			x.Errorf("with keys: %v after %d calls", err, s.count())
		}
		ctx, cancel := context.WithTimeout(x.Context(), time.Hour)
		defer cancel()
		x.Must(b.Close(ctx))
	})
}

// TestBatcherOpenBreaker: nothing is sent while the breaker is open.
func TestBatcherOpenBreaker(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := &sends{answer: func(call int, _ *driver.Message) error {
			if call == 0 {
				return queuetest.Unavailable()
			}
			return nil
		}}
		b := x.batching(&queue.BatcherOptions{MaxAttempts: 2, Retry: every(time.Millisecond), Breaker: backoff.BreakerOptions{Failures: 1, Open: 10 * time.Second}}, s.send)
		x.Must(b.SendAsync(x.Context(), &queue.Message{Body: []byte("a")}, nil))
		x.Wait(9 * time.Second)
		if n := s.count(); n != 1 {
			x.Errorf("%d calls while the breaker is open, want the one that opened it", n)
		}
		x.Wait(2 * time.Second)
		if n := s.count(); n != 2 {
			x.Errorf("%d calls when it has closed, want 2", n)
		}
		x.Must(b.Close(x.Context()))
	})
}

// TestSendUntilItsContextEnds: no further call to the driver is made once the context has ended.
func TestSendUntilItsContextEnds(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		ctx, cancel := context.WithCancel(x.Context())
		defer cancel()
		calls := 0
		p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.MaxBatch = 1 }}
		p.OnSend = func([]*driver.Message) []driver.SendResult {
			calls++
			cancel()
			return []driver.SendResult{{BrokerID: "b"}}
		}
		c, err := queue.New(p, &queue.Options{Logger: quiet()})
		x.Must(err)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		r, err := s.SendBatch(ctx, []*queue.Message{{Body: []byte("a")}, {Body: []byte("b")}})
		if calls != 1 || len(r) != 2 || r[0].Err != nil || !errors.Is(r[1].Err, context.Canceled) || errors.Is(r[1].Err, queue.ErrUnconfirmed) {
			x.Errorf("%+v, %v after %d calls; want the first sent, and the second not tried", r, err, calls)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// TestBatcherWaitsForRoom: at most MaxPending messages are accepted and not answered. A caller
// that leaves waits for room no longer.
func TestBatcherWaitsForRoom(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		open := make(chan struct{})
		s := &sends{begin: time.Now(), answer: func(int, *driver.Message) error { <-open; return nil }}
		b := x.batching(&queue.BatcherOptions{MaxPending: 2, InFlight: 1}, s.send)
		for range 2 {
			x.Must(b.SendAsync(x.Context(), &queue.Message{Body: []byte("a")}, nil))
		}
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := b.SendAsync(ctx, &queue.Message{Body: []byte("a")}, nil); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			x.Errorf("without room: %v after %s", err, time.Since(begin))
		}
		if err := b.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("Flush of a caller that left: %v", err)
		}
		close(open)
		x.Must(b.Flush(x.Context()))
		x.Must(b.SendAsync(x.Context(), &queue.Message{Body: []byte("a")}, nil))
		x.Must(b.Close(x.Context()))
	})
}

// TestBatcherCloseEndsWaits: Close fails what was not answered, and callers that wait for room.
func TestBatcherCloseEndsWaits(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		ends := make(chan struct{})
		s := &sends{begin: time.Now(), answer: func(int, *driver.Message) error { <-ends; return errThrottled }}
		b := x.batching(&queue.BatcherOptions{MaxPending: 1, InFlight: 1, Retry: every(time.Hour)}, s.send)
		var first, waiting error
		x.Must(b.SendAsync(x.Context(), &queue.Message{Body: []byte("a")}, func(r queue.SendResult) { first = r.Err }))
		done := make(chan struct{})
		go func() {
			defer close(done)
			waiting = b.SendAsync(x.Context(), &queue.Message{Body: []byte("b")}, nil)
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(x.Context(), time.Second)
		defer cancel()
		go func() {
			<-ctx.Done()
			close(ends)
		}()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("Close: %v", err)
		}
		<-done
		x.failed("what was not answered", first, queue.ErrClosed, "send")
		x.failed("what waited for room", waiting, queue.ErrClosed, "send")
	})
}

// TestBatcherDefaults: four calls at once, batches of what the broker takes but at most 100, and
// 5 ms for others to come.
func TestBatcherDefaults(t *testing.T) {
	for limit, want := range map[int]int{0: 1, 30: 30, 100: 100, 500: 100} {
		inBubble(t, nil, func(x *fixture) {
			open := make(chan struct{})
			s := &sends{begin: time.Now(), answer: func(int, *driver.Message) error { <-open; return nil }}
			p := &fixturetest.FaultyBroker{Broker: x.Broker, OnSend: s.send, Caps: func(c *driver.Capabilities) { c.MaxBatch, c.MaxBatchBytes = limit, 0 }}
			c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
			x.Must(err)
			sender, err := c.Sender(x.Context(), orders, nil)
			x.Must(err)
			b, err := queue.NewBatcher(sender, nil)
			x.Must(err)
			for i := range 990 {
				x.Must(b.SendAsync(x.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("a")}, nil))
				if i < 4 {
					synctest.Wait()
				}
			}
			synctest.Wait()
			if limit == 0 && s.count() != 4 {
				x.Errorf("%d calls at once, want 4", s.count())
			}
			close(open)
			x.Must(b.Flush(x.Context()))
			most := 0
			for _, c := range s.calls {
				most = max(most, len(c))
			}
			if most != want {
				x.Errorf("a broker that takes %d: calls of up to %d, want %d", limit, most, want)
			}
			x.Must(b.Close(x.Context()))
		})
	}
	inBubble(t, nil, func(x *fixture) {
		open := make(chan struct{})
		s := &sends{begin: time.Now(), answer: func(call int, _ *driver.Message) error {
			if call == 0 {
				<-open
			}
			return nil
		}}
		b := x.batching(&queue.BatcherOptions{MaxMessages: 2, InFlight: 2}, s.send)
		for i := range 2 {
			x.Must(b.SendAsync(x.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("a")}, nil))
			synctest.Wait()
		}
		x.Wait(time.Second)
		if len(s.at) != 2 || s.at[1] != 5*time.Millisecond {
			x.Errorf("sent after %v, want the second after 5ms", s.at)
		}
		close(open)
		x.Must(b.Close(x.Context()))
	})
}

// TestBatcherHurries: Flush and Close send what lingers at once.
func TestBatcherHurries(t *testing.T) {
	for _, how := range []string{"Flush", "Close"} {
		inBubble(t, nil, func(x *fixture) {
			s := &sends{begin: time.Now(), answer: func(call int, _ *driver.Message) error {
				if call == 0 {
					time.Sleep(time.Minute) // of the bubble
				}
				return nil
			}}
			b := x.batching(&queue.BatcherOptions{Linger: time.Hour, MaxMessages: 2, InFlight: 2}, s.send)
			for i := range 2 {
				x.Must(b.SendAsync(x.Context(), &queue.Message{ID: fmt.Sprint(i), Body: []byte("a")}, nil))
				synctest.Wait()
			}
			if s.count() != 1 {
				x.Fatalf("%d calls, want that the second message lingers", s.count())
			}
			x.Wait(time.Second)
			if how == "Flush" {
				x.Must(b.Flush(x.Context()))
			} else {
				x.Must(b.Close(x.Context()))
			}
			if len(s.at) != 2 || s.at[1] != time.Second {
				x.Errorf("%s: sent after %v, want the second after 1s", how, s.at)
			}
			x.Must(b.Close(x.Context()))
		})
	}
}

// TestBatcherOwnsItsMessages: the caller's attributes may change after the call, an ID is made
// once for all attempts, and a session key is asked for.
func TestBatcherOwnsItsMessages(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		var seen []driver.Message
		n := 0
		b := x.batching(&queue.BatcherOptions{Retry: every(time.Second), Breaker: steady}, func(m []*driver.Message) []driver.SendResult {
			seen = append(seen, *m[0])
			if n++; n < 3 {
				return []driver.SendResult{{Err: errThrottled}}
			}
			return nil
		})
		attributes := map[string]string{"a": "1"}
		done := make(chan queue.SendResult, 1)
		x.Must(b.SendAsync(x.Context(), &queue.Message{Attributes: attributes, Body: []byte("a")}, func(r queue.SendResult) { done <- r }))
		attributes["a"] = "changed"
		r := <-done
		x.Must(r.Err)
		for _, m := range seen {
			if m.ID != r.MessageID || m.ID == "" || m.Attributes["a"] != "1" || string(m.Body) != string(seen[0].Body) {
				x.Errorf("sent %q %v, want %q", m.ID, m.Attributes, r.MessageID)
			}
		}
		if len(seen) != 3 {
			x.Errorf("%d attempts", len(seen))
		}
		x.Must(b.Close(x.Context()))
	})
}

// TestUnconfirmedByItsContext: a caller that leaves is told that its message may be sent, and
// under which ID.
func TestUnconfirmedByItsContext(t *testing.T) {
	for name, id := range map[string]string{"its own ID": "m", "an ID that Send makes": ""} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				open, sent := make(chan struct{}), make(chan string, 1)
				b := x.batching(nil, (&sends{begin: time.Now(), answer: func(_ int, m *driver.Message) error { sent <- m.ID; <-open; return nil }}).send)
				ctx, cancel := context.WithTimeout(x.Context(), time.Second)
				defer cancel()
				r, err := b.Send(ctx, &queue.Message{ID: id, Body: []byte("a")})
				if !errors.Is(err, queue.ErrUnconfirmed) || !errors.Is(err, context.DeadlineExceeded) || r.Err == nil {
					x.Errorf("%+v, %v; want it unconfirmed, and the deadline", r, err)
				}
				if want := <-sent; r.MessageID != want || id != "" && r.MessageID != id {
					x.Errorf("MessageID is %q, want %q, which was sent", r.MessageID, want)
				}
				close(open)
				x.Must(b.Close(x.Context()))
			})
		})
	}
}

// TestCallsAreFilled: each call has as many messages as it may, by count and by bytes, in order,
// and on a broker that keeps no order one of each session.
func TestCallsAreFilled(t *testing.T) {
	for name, c := range map[string]struct {
		sessions []string
		caps     func(*driver.Capabilities, int)
		want     [][]string
	}{
		"by count":          {[]string{"", "", "", "", ""}, func(c *driver.Capabilities, _ int) { c.MaxBatch, c.OrderedBatch = 2, true }, [][]string{{"0", "1"}, {"2", "3"}, {"4"}}},
		"one by one":        {[]string{"", ""}, func(c *driver.Capabilities, _ int) { c.MaxBatch, c.OrderedBatch = 0, true }, [][]string{{"0"}, {"1"}}},
		"by bytes":          {[]string{"", "", "", "", ""}, func(c *driver.Capabilities, size int) { c.MaxBatchBytes, c.OrderedBatch = 2*size, true }, [][]string{{"0", "1"}, {"2", "3"}, {"4"}}},
		"by bytes, not all": {[]string{"", "", ""}, func(c *driver.Capabilities, size int) { c.MaxBatchBytes, c.OrderedBatch = 2*size-1, true }, [][]string{{"0"}, {"1"}, {"2"}}},
		"sessions, ordered": {[]string{"a", "a", "b", "a"}, func(c *driver.Capabilities, _ int) { c.OrderedBatch = true }, [][]string{{"0", "1", "2", "3"}}},
		"sessions":          {[]string{"a", "a", "b", "a", "", ""}, func(c *driver.Capabilities, _ int) { c.OrderedBatch = false }, [][]string{{"0", "2", "4", "5"}, {"1"}, {"3"}}},
	} {
		inBubble(t, nil, func(x *fixture) {
			size := 0
			for range 2 { // first to measure a message
				s := &sends{begin: time.Now()}
				p := &fixturetest.FaultyBroker{Broker: x.Broker, OnSend: s.send}
				if size > 0 {
					p.Caps = func(k *driver.Capabilities) { k.MaxBatch = 100; c.caps(k, size) }
				}
				client, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
				x.Must(err)
				sender, err := client.Sender(x.Context(), orders, nil)
				x.Must(err)
				var batch []*queue.Message
				for i, session := range c.sessions {
					batch = append(batch, &queue.Message{ID: fmt.Sprint(i), SessionID: session, Body: []byte("body")})
				}
				results, err := sender.SendBatch(x.Context(), batch)
				x.Must(err)
				for i, r := range results {
					if r.MessageID != fmt.Sprint(i) || r.BrokerID == "" || r.KeyID != "k1" || !r.Encrypted {
						x.Errorf("%s: result %d is %+v", name, i, r)
					}
				}
				if size == 0 {
					q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
					x.Must(err)
					for _, m := range x.Stored(orders) {
						size = max(size, q.Size(&m))
					}
					continue
				}
				if !slices.EqualFunc(s.calls, c.want, slices.Equal) {
					x.Errorf("%s: calls of %v, want %v", name, s.calls, c.want)
				}
			}
		})
	}
}

// TestSendIsTold: each call and each message that was sent, once; the log has a line for each.
func TestSendIsTold(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		inBubble(t, nil, func(x *fixture) {
			o, p := &diary{}, &failingBroker{}
			c := x.behind(p, func(c *queue.Options) {
				without(c)
				c.Observer, c.Crypto.Enabled, c.Crypto.PlaintextPolicy = o, sealed, queue.Allow
			})
			s, err := c.Sender(x.Context(), orders, nil)
			x.Must(err)
			key, line := `""`, "Message sent WITHOUT encryption"
			if sealed {
				key, line = `"k1"`, "Message sent with encryption"
			}
			_, err = s.Send(x.Context(), &queue.Message{ID: "m", SessionID: "s", Body: []byte("a")})
			x.Must(err)
			x.told("one", o.of("send"), fmt.Sprintf("%v  of 1, 0 links, encrypted %v, message %q, session %q, key %s: 1, failed false", observe.Send, sealed, "m", "s", key))
			if got := o.of("sent"); len(got) != 1 || x.logged(line) != 1 {
				x.Errorf("told %q, %d lines", got, x.logged(line))
			}
			p.set(func() { p.short = map[string]bool{"send": true} })
			_, err = s.SendBatch(x.Context(), []*queue.Message{{ID: "a", Body: []byte("a")}, {ID: "b", Body: []byte("b")}})
			var failed *queue.BatchError
			if !errors.As(err, &failed) || failed.Failed != 1 || failed.Total != 2 || failed.Queue != orders {
				x.Errorf("a driver that answers too little: %v", err)
			}
			last := o.of("send")
			if want := fmt.Sprintf("%v  of 2, 0 links, encrypted %v, message \"\", session \"\", key \"\": 1, failed true", observe.Send, sealed); last[1] != want {
				x.Errorf("told %q, want %q", last[1], want)
			}
			p.set(func() { p.short, p.fails = nil, map[string]error{"send": errRefused} })
			before, lines := len(o.of("sent")), x.logged(line)
			_, err = s.Send(x.Context(), &queue.Message{ID: "m", Body: []byte("a")})
			x.failed("refused", err, driver.ErrInvalid, "send")
			if len(o.of("sent")) != before || x.logged(line) != lines {
				x.Errorf("a message that was refused is told as sent: %q", o.of("sent"))
			}
		})
	}
}

// TestSendWithoutAnAnswer: a call that is not answered is repeated with the same bytes, five times
// at most and within 10 s, unless the caller leaves or a second copy does harm.
func TestSendWithoutAnAnswer(t *testing.T) {
	gone := driver.Errorf(driver.Unavailable, "connection reset")
	for name, c := range map[string]struct {
		err    error
		sealed bool
		dedup  driver.Support
		leaves time.Duration
		calls  int
	}{
		"sealed":                 {gone, true, driver.None, 0, 6},
		"plain":                  {gone, false, driver.None, 0, 1},
		"plain, and it dedups":   {gone, false, driver.Native, 0, 6},
		"closed":                 {driver.ErrClosed, true, driver.None, 0, 1},
		"refused":                {errRefused, true, driver.None, 0, 1},
		"another error":          {errFailing, true, driver.None, 0, 6},
		"unsupported":            {errors.ErrUnsupported, true, driver.None, 0, 1},
		"throttled":              {errThrottled, true, driver.None, 0, 1},
		"a caller that leaves":   {gone, true, driver.None, time.Nanosecond, 1},
		"a time-out of a driver": {context.DeadlineExceeded, true, driver.None, 0, 6},
		"a caller's of a driver": {&driver.Error{Kind: driver.Throttled, Err: context.Canceled}, true, driver.None, 0, 6},
		"one while it throttles": {&driver.Error{Kind: driver.Throttled, Err: context.DeadlineExceeded}, true, driver.None, 0, 6},
	} {
		inBubble(t, nil, func(x *fixture) {
			s := &sends{begin: time.Now(), answer: func(int, *driver.Message) error { return c.err }}
			p := &fixturetest.FaultyBroker{Broker: x.Broker, OnSend: s.send, Caps: func(k *driver.Capabilities) { k.Dedup = c.dedup }}
			client, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: c.sealed}})
			x.Must(err)
			sender, err := client.Sender(x.Context(), orders, nil)
			x.Must(err)
			ctx, cancel := context.WithCancel(x.Context())
			defer cancel()
			if c.leaves > 0 {
				ctx, cancel = context.WithTimeout(ctx, c.leaves)
				defer cancel()
			}
			_, err = sender.Send(ctx, &queue.Message{ID: "m", Body: []byte("a")})
			if err == nil || s.count() != c.calls || s.at[len(s.at)-1] > 10*time.Second {
				x.Errorf("%s: %v after %d calls at %v, want %d", name, err, s.count(), s.at, c.calls)
			}
			unknown := c.err != errRefused && !errors.Is(c.err, errors.ErrUnsupported) && c.err != error(errThrottled)
			if errors.Is(err, queue.ErrUnconfirmed) != unknown {
				x.Errorf("%s: %v, want ErrUnconfirmed: %v", name, err, unknown)
			}
		})
	}
}
