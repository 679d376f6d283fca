package queue_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/observe"
)

// Batches are split by count and by sealed size, and each message has its own
// result.
func TestSendBatchSplits(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		var calls [][]*driver.Message
		limits := func(c *driver.Capabilities) { c.MaxBatch, c.MaxBatchBytes, c.MaxBody = 10, 20_000, 9_000 }
		p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: limits}
		p.OnSend = func(m []*driver.Message) []driver.SendResult { calls = append(calls, m); return nil }
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
		x.Must(err)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		var batch []*queue.Message
		for i := range 25 {
			batch = append(batch, &queue.Message{ID: fmt.Sprint(i), Body: make([]byte, 100)})
		}
		for i := range 5 {
			batch = append(batch, &queue.Message{ID: fmt.Sprint("big", i), Body: make([]byte, 8_000)})
		}
		batch = append(batch,
			&queue.Message{ID: "too big", Body: make([]byte, 9_001)},
			&queue.Message{ID: "sealed too big", Body: make([]byte, 8_950)},
			nil,
			&queue.Message{ID: "last", Body: []byte("x")})
		results, err := s.SendBatch(x.Context(), batch)
		var failed *queue.BatchError
		if !errors.As(err, &failed) || failed.Failed != 3 || failed.Total != 34 || !errors.Is(err, queue.ErrMessageTooLarge) {
			x.Fatalf("SendBatch = %v, want a BatchError of 3 in 34", err)
		}
		for i, r := range results {
			want := error(nil)
			switch i {
			case 30, 31:
				want = queue.ErrMessageTooLarge
			case 32:
				want = queue.ErrInvalidMessage
			}
			if !errors.Is(r.Err, want) {
				x.Errorf("result %d: %v, want %v", i, r.Err, want)
			}
		}
		var large *driver.TooLargeError
		if !errors.As(results[30].Err, &large) || large.Size != 9_001 || large.Limit != 9_000 {
			x.Errorf("%v lacks size and limit", results[30].Err)
		}
		var sizes []int
		for _, c := range calls {
			sizes = append(sizes, len(c))
			bytes := 0
			for _, m := range c {
				bytes += len(m.Body)
			}
			if len(c) > 10 || bytes > 20_000 {
				x.Errorf("a call of %d messages and %d bytes", len(c), bytes)
			}
		}
		if !slices.Equal(sizes, []int{10, 10, 7, 2, 2}) {
			x.Errorf("calls of %v messages", sizes)
		}
		if n := len(x.Stored(orders)); n != 31 {
			x.Errorf("%d stored, want 31", n)
		}
	})
}

// When a message of a session fails, the later ones of that session stay behind:
// sending the failed ones again keeps the order.
func TestSendBatchKeepsSessionOrder(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.MaxBatch = 2 }}
		call := 0
		p.OnSend = func(m []*driver.Message) []driver.SendResult {
			if call++; call > 1 {
				return nil
			}
			r := make([]driver.SendResult, len(m))
			for i := range r {
				r[i].Err = &driver.Error{Kind: driver.Throttled, RetryAfter: 3 * time.Second}
			}
			return r
		}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true}})
		x.Must(err)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		var batch []*queue.Message
		for i, session := range []string{"a", "b", "a", "c", "b", ""} {
			batch = append(batch, &queue.Message{ID: fmt.Sprint(i), SessionID: session})
		}
		results, err := s.SendBatch(x.Context(), batch)
		if err == nil {
			x.Fatal("no error")
		}
		want := []error{queue.ErrThrottled, queue.ErrThrottled, queue.ErrNotSent, nil, queue.ErrNotSent, nil}
		for i := range want {
			if !errors.Is(results[i].Err, want[i]) {
				x.Errorf("result %d: %v, want %v", i, results[i].Err, want[i])
			}
		}
		var e *queue.Error
		if !errors.As(results[0].Err, &e) || !e.Transient || e.RetryAfter != 3*time.Second || e.Op != "send" || e.Queue != orders {
			x.Errorf("%+v, want a transient error of send that asks to wait for 3 s", e)
		}
	})
}

func TestSendFailsClosed(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		s := x.Sender(orders)
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		x.Must(x.Ring.SetCurrent("k2"))
		expired, err := keys.New("old", bytes.Repeat([]byte{5}, keys.Size), &keys.Options{Expires: time.Now().Add(time.Minute)})
		x.Must(err)
		x.Must(x.Ring.Add(expired))
		x.Must(x.Ring.SetCurrent("old"))
		x.Wait(2 * time.Minute)
		_, err = s.Send(x.Context(), &queue.Message{Body: []byte("secret")})
		if !errors.Is(err, queue.ErrEncryptionFailed) || !errors.Is(err, queue.ErrKeyExpired) {
			x.Errorf("Send under an expired key = %v", err)
		}
		empty := newRing(x.T)
		x.Must(empty.Add(newKey(x.T, "k9", 9)))
		x.Must(empty.SetCurrent("k9"))
		s, err = x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Keys: empty})
		x.Must(err)
		x.Must(empty.Remove("k9"))
		if _, err := s.Send(x.Context(), &queue.Message{Body: []byte("secret")}); !errors.Is(err, queue.ErrEncryptionFailed) {
			x.Errorf("Send without a current key = %v", err)
		}
		if n := len(x.Stored(orders)); n != 0 {
			x.Errorf("%d messages were sent all the same", n)
		}
	})
}

func TestBadInput(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		ctx := x.Context()
		s := x.Sender(orders)
		r := x.Receiver(orders, nil)
		long := strings.Repeat("x", 300)
		for what, m := range map[string]*queue.Message{
			"nil message":          nil,
			"ID":                   {ID: long},
			"UTF-8":                {SessionID: "\xff"},
			"reserved":             {Attributes: map[string]string{"qrt-x": "1"}},
			"traceparent":          {Attributes: map[string]string{"traceparent": "1"}},
			"empty name":           {Attributes: map[string]string{"": "1"}},
			"name of an attribute": {Attributes: map[string]string{long: "1"}},
			"TTL":                  {TTL: -1},
			"NotBefore":            {NotBefore: time.Unix(-5, 0)},
			"years 1970 to 9999":   {NotBefore: time.Unix(1<<60+1<<50, 0)},
		} {
			_, err := s.Send(ctx, m)
			if !errors.Is(err, queue.ErrInvalidMessage) || !strings.Contains(err.Error(), what) {
				x.Errorf("%s: %v", what, err)
			}
			if err != nil && strings.Contains(err.Error(), long) {
				x.Errorf("%s: the error repeats the value", what)
			}
		}
		var none context.Context // must be an error, not a panic
		_, err := s.Send(none, &queue.Message{})
		if err == nil || !strings.Contains(err.Error(), "nil context") {
			x.Errorf("nil context: %v", err)
		}
		if _, err := r.Receive(ctx, 0); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("Receive 0: %v", err)
		}
		for _, name := range []string{"", long, "\xff"} {
			if _, err := x.Client.Sender(ctx, name, nil); !errors.Is(err, queue.ErrInvalidQueueName) {
				x.Errorf("queue name %q: %v", name, err)
			}
		}
		for what, o := range map[string]*queue.Options{
			"Options.ReplayStore": {Crypto: queue.CryptoConfig{TrackReplays: true}},
			"no keys":             {Crypto: queue.CryptoConfig{Enabled: true}},
			"negative":            {Crypto: queue.CryptoConfig{MaxMessageAge: -1}},
			"freshness":           {Crypto: queue.CryptoConfig{TrackReplays: true, InsecureSkipFreshness: true}, ReplayStore: x.Store},
			"unknown":             {Crypto: queue.CryptoConfig{PlaintextPolicy: 7}},
		} {
			if _, err := queue.New(x.Broker, o); !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), what) {
				x.Errorf("%s: %v", what, err)
			}
		}
		if _, err := queue.New(nil, nil); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("nil provider: %v", err)
		}
		d := func() *queue.Delivery {
			x.Send(&queue.Message{Body: []byte("a")})
			return x.One(r)
		}()
		for _, reason := range []queue.Reason{{}, {Code: "No Spaces"}, {Code: "ok", Description: strings.Repeat("x", 600)}} {
			if err := d.DeadLetter(ctx, reason); !errors.Is(err, queue.ErrInvalidMessage) {
				x.Errorf("reason %q: %v", reason.Code, err)
			}
		}
		x.Must(x.Client.Close(ctx))
		x.Must(x.Client.Close(ctx))
		if _, err := s.Send(ctx, &queue.Message{}); !errors.Is(err, queue.ErrClosed) {
			x.Errorf("Send after Close: %v", err)
		}
		if _, err := r.Receive(ctx, 1); !errors.Is(err, queue.ErrClosed) {
			x.Errorf("Receive after Close: %v", err)
		}
		if _, err := x.Client.Receiver(ctx, orders, nil); !errors.Is(err, queue.ErrClosed) {
			x.Errorf("Receiver after Close: %v", err)
		}
	})
}

func TestQueueThatDriverRefuses(t *testing.T) {
	c, err := queue.New(memqueue.New(&memqueue.Options{DeclaredOnly: true}), &queue.Options{Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	_, err = c.Sender(t.Context(), "nowhere", nil)
	var e *queue.Error
	if !errors.Is(err, queue.ErrQueueNotFound) || !errors.As(err, &e) || e.Queue != "nowhere" {
		t.Errorf("Sender = %v", err)
	}
}

// A key that is retired between the question for the current one and its use is
// no failure: the next current one seals.
func TestSendWhileKeyIsRetired(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		p := &lateProvider{Provider: x.Ring}
		s, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{Keys: p})
		x.Must(err)
		x.Must(x.Ring.SetCurrent("k2"))
		x.Must(x.Ring.Remove("k1"))
		r, err := s.Send(x.Context(), &queue.Message{Body: []byte("a")})
		x.Must(err)
		if r.KeyID != "k2" {
			x.Errorf("sealed under %q, want k2", r.KeyID)
		}
		if d := x.One(x.Receiver(orders, nil)); d.KeyID != "k2" {
			x.Errorf("received under %q", d.KeyID)
		}
	})
}

// lateProvider names a retired key as current, once.
type lateProvider struct {
	keys.Provider
	asked bool
}

func (p *lateProvider) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if !p.asked {
		p.asked = true
		return "k1", nil
	}
	return p.Provider.CurrentKeyID(ctx)
}

// TestDedupID: the caller's is what the broker gets, and without one the message's ID.
func TestDedupID(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m"})
		x.Send(&queue.Message{ID: "n", DedupID: "d"})
		for i, want := range []string{"m", "d"} {
			if m := x.Stored(orders)[i]; m.DedupID != want {
				x.Errorf("message %s has DedupID %q, want %q", m.ID, m.DedupID, want)
			}
		}
	})
}

// tracer is an Observer whose trace contexts come with its own spans only, and
// with those that a caller began.
type tracer struct{ observe.Nop }

type spanKey struct{}

func (tracer) Traces() bool { return true }

func (tracer) Begin(ctx context.Context, _ observe.Source, _ observe.Operation) (context.Context, func(observe.Result)) {
	return context.WithValue(ctx, spanKey{}, true), func(observe.Result) {}
}

func (tracer) Inject(ctx context.Context, set func(name, value string)) {
	if ctx.Value(spanKey{}) != nil {
		set("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		set("tracestate", strings.Repeat("t", 200))
	}
}

// A trace context takes room, and must not push a batch or a message over the
// broker's limit: it is left out instead.
func TestTraceDoesNotExceedLimits(t *testing.T) {
	var limit int
	observed := func(x *fixture, o *queue.Options) { o.Observer = tracer{} }
	inBubble(t, observed, func(x *fixture) {
		s := x.Sender(orders)
		_, err := s.Send(x.Context(), &queue.Message{ID: "0", Body: make([]byte, 1000)})
		x.Must(err)
		m := x.Steal()
		if m.Trace["traceparent"] == "" {
			x.Fatal("no trace where there is room")
		}
		limit = len(m.Body) + len(m.ID) + len(m.DedupID) + 1 // with an ID as its DedupID
	})
	for _, c := range []struct {
		what  string
		limit int
		n     int
		ctx   func(context.Context) context.Context
	}{
		{"a batch", 3 * (limit - 1), 3, func(ctx context.Context) context.Context { return ctx }},
		{"one message", limit - 1, 1, func(ctx context.Context) context.Context { return ctx }},
		{"one message of a traced caller", limit - 1, 1, func(ctx context.Context) context.Context { return context.WithValue(ctx, spanKey{}, true) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			limited := func(x *fixture, o *queue.Options) {
				observed(x, o)
				x.Broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{MaxBatchBytes: c.limit}})
			}
			inBubble(t, limited, func(x *fixture) {
				s := x.Sender(orders)
				var batch []*queue.Message
				for i := range c.n {
					batch = append(batch, &queue.Message{ID: fmt.Sprint(i), Body: make([]byte, 1000)})
				}
				_, err := s.SendBatch(c.ctx(x.Context()), batch)
				x.Must(err)
				b, err := queue.NewBatcher(s, nil)
				x.Must(err)
				for i, m := range batch {
					x.Must(b.SendAsync(c.ctx(x.Context()), m, func(r queue.SendResult) {
						if r.Err != nil {
							x.Errorf("Batcher, message %d: %v", i, r.Err)
						}
					}))
				}
				x.Must(b.Close(x.Context()))
				if n := len(x.Stored(orders)); n != 2*c.n {
					x.Errorf("%d stored, want %d", n, 2*c.n)
				}
			})
		})
	}
}

// A message of which one call got no answer may be in the queue, although the broker
// refused it when the call was repeated: it is unconfirmed, and not void.
func TestRefusedAfterNoAnswer(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		broker := &fixturetest.FaultyBroker{Broker: x.Broker.Connect()}
		s := x.senderNamed("s1", broker)
		stored, err := x.Broker.Connect().Open(x.Context(), orders, nil)
		x.Must(err)
		calls := 0
		broker.OnSend = func(m []*driver.Message) []driver.SendResult {
			if calls++; calls == 1 {
				stored.Send(x.Context(), m)
				return []driver.SendResult{{Err: driver.Errorf(driver.Unavailable, "connection reset")}}
			}
			return []driver.SendResult{{Err: driver.Errorf(driver.Full, "full")}}
		}
		_, err = s.Send(x.Context(), &queue.Message{Body: []byte("a")})
		if !errors.Is(err, queue.ErrUnconfirmed) || calls != 2 || !strings.HasPrefix(err.Error(), `queue: send "orders": `) {
			x.Errorf("%v after %d calls, want ErrUnconfirmed after 2, of a send to orders", err, calls)
		}
		broker.OnSend = nil
		_, err = s.Send(x.Context(), &queue.Message{Body: []byte("b")})
		x.Must(err)
		for _, m := range x.Stored(orders) {
			e, err := envelope.Parse(m.Body)
			x.Must(err)
			if e.Settled != 0 || len(e.Void) > 0 {
				x.Errorf("message %d says settled %d, void %v", e.Sequence, e.Settled, e.Void)
			}
		}
	})
}

// A queue that takes sessions only is asked with messages of sessions only.
func TestQueueOfSessionsOnly(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{caps: func(c *driver.Capabilities) { c.SessionOnly = true }}
		c := x.behind(p, nil)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		m := &queue.Message{Body: []byte("a")}
		_, err = s.Send(x.Context(), m)
		x.failed("Send", err, queue.ErrInvalidMessage, "send")
		_, err = s.Prepare(x.Context(), m)
		x.failed("Prepare", err, queue.ErrInvalidMessage, "send")
		if p.count("send") != 0 || !strings.Contains(err.Error(), "SessionID") {
			x.Errorf("%v after %d calls, want that a SessionID is needed and none", err, p.count("send"))
		}
		r, err := s.SendBatch(x.Context(), []*queue.Message{{SessionID: "s", Body: []byte("a")}, m})
		if len(r) != 2 || r[0].Err != nil || !errors.Is(r[1].Err, queue.ErrInvalidMessage) || len(x.Stored(orders)) != 1 {
			x.Errorf("SendBatch = %+v, %v; want that the second is refused", r, err)
		}
		keyed, err := c.Sender(x.Context(), orders, &queue.SenderOptions{SessionKey: strategy{id: "s"}})
		x.Must(err)
		_, err = keyed.Send(x.Context(), m)
		x.Must(err)
	})
}
