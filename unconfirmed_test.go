package queue_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
)

// outcome is what a broker answers to a try. A message without an answer may be stored.
type outcome struct {
	err    error
	stored bool
}

var (
	silence = outcome{driver.Errorf(driver.Unavailable, "connection reset"), true}
	refusal = outcome{driver.Errorf(driver.Permission, "no right to send"), false}
	slow    = outcome{&driver.Error{Kind: driver.Throttled}, false}
)

// scripted is a client over a broker that answers sends by the script, the last entry for
// ever, and keeps what every try carried. dedup says that it drops repeats.
type scripted struct {
	*queue.Client
	tries [][]byte
	times []time.Time
}

func (x *fixture) scripted(dedup driver.Support, encrypted bool, script ...outcome) *scripted {
	x.Helper()
	s := &scripted{}
	p := &fixturetest.FaultyBroker{Broker: x.Broker, Caps: func(c *driver.Capabilities) { c.Dedup = dedup }}
	p.OnSend = func(m []*driver.Message) []driver.SendResult {
		o := script[min(len(s.times), len(script)-1)]
		s.times = append(s.times, time.Now())
		for _, m := range m {
			s.tries = append(s.tries, bytes.Clone(m.Body))
		}
		if o.stored {
			for _, m := range m {
				x.Inject(orders, m.Clone())
			}
		}
		if o.err == nil {
			return nil
		}
		r := make([]driver.SendResult, len(m))
		for i := range r {
			r[i].Err = o.err
		}
		return r
	}
	c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: encrypted}})
	x.Must(err)
	s.Client = c
	return s
}

// What Send does, and says, if the broker did not answer a try.
func TestSendUnconfirmed(t *testing.T) {
	ok := outcome{}
	for name, tt := range map[string]struct {
		dedup     driver.Support
		plain     bool
		script    []outcome
		tries     int
		want      error
		uncertain bool
	}{
		"answered":                    {script: []outcome{ok}, tries: 1},
		"refused":                     {script: []outcome{refusal}, tries: 1, want: queue.ErrPermission},
		"throttled":                   {script: []outcome{slow}, tries: 1, want: queue.ErrThrottled},
		"unsupported":                 {script: []outcome{{driver.Unsupported("this"), false}}, tries: 1, want: errors.ErrUnsupported},
		"silent, then answered":       {script: []outcome{silence, silence, ok}, tries: 3},
		"silent":                      {script: []outcome{silence}, tries: 6, want: queue.ErrUnavailable, uncertain: true},
		"silent, then refused":        {script: []outcome{silence, refusal}, tries: 2, want: queue.ErrPermission, uncertain: true},
		"silent, then throttled":      {script: []outcome{silence, slow}, tries: 2, want: queue.ErrThrottled, uncertain: true},
		"plaintext, silent":           {plain: true, script: []outcome{silence}, tries: 1, want: queue.ErrUnavailable, uncertain: true},
		"plaintext and Dedup, silent": {plain: true, dedup: driver.Native, script: []outcome{silence, ok}, tries: 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				c := x.scripted(tt.dedup, !tt.plain, tt.script...)
				s, err := c.Sender(x.Context(), orders, nil)
				x.Must(err)
				_, err = s.Send(x.Context(), &queue.Message{ID: "m", Body: []byte("a")})
				if !errors.Is(err, tt.want) || errors.Is(err, queue.ErrUnconfirmed) != tt.uncertain {
					x.Errorf("Send = %v, want %v, ErrUnconfirmed %v", err, tt.want, tt.uncertain)
				}
				x.repeated(c, tt.tries)
				if last := c.times[len(c.times)-1]; last.Sub(c.times[0]) > 10*time.Second {
					x.Errorf("the last repeat after %v", last.Sub(c.times[0]))
				}
			})
		})
	}
}

// repeated checks the number of tries, and that all carried the same bytes.
func (x *fixture) repeated(c *scripted, want int) {
	x.Helper()
	if len(c.tries) != want {
		x.Errorf("%d tries, want %d", len(c.tries), want)
	}
	for i, b := range c.tries {
		if !bytes.Equal(b, c.tries[0]) {
			x.Errorf("try %d carried other bytes", i+1)
		}
	}
}

// numbered sends one more message and returns what its header says.
func (x *fixture) numbered(c *scripted, s *queue.Sender) envelope.Header {
	x.Helper()
	_, _ = s.Send(x.Context(), &queue.Message{ID: "last"}) // what it says is what counts
	e, err := envelope.Parse(c.tries[len(c.tries)-1])
	x.Must(err)
	return e.Header
}

// A try that was not answered is never called void by a later one that was refused: the
// broker may have the message.
func TestUnknownIsNeverVoid(t *testing.T) {
	for name, tt := range map[string]struct {
		script  []outcome
		settled uint64
		voids   int
	}{
		"silent, then refused": {[]outcome{silence, refusal, {}}, 0, 0},
		"refused":              {[]outcome{refusal, {}}, 1, 1},
		"answered":             {[]outcome{{}}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				c := x.scripted(driver.None, true, tt.script...)
				s, err := c.Sender(x.Context(), orders, nil)
				x.Must(err)
				_, _ = s.Send(x.Context(), &queue.Message{ID: "first"}) // as the script says
				if h := x.numbered(c, s); h.Sequence != 2 || h.Settled != tt.settled || len(h.Void) != tt.voids {
					x.Errorf("sequence %d, settled %d, void %v; want 2, %d and %d ranges", h.Sequence, h.Settled, h.Void, tt.settled, tt.voids)
				}
			})
		})
	}
}

// The stream of a message without an answer ends soon, because nothing behind the message can be
// settled any more: what the broker drops later is found out in the next one.
func TestStreamOfAnUnknownEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		script []outcome
		ends   bool
	}{
		"silent":   {[]outcome{silence, refusal, {}}, true},
		"refused":  {[]outcome{refusal, {}}, false},
		"answered": {[]outcome{{}}, false},
	} {
		inBubble(t, nil, func(x *fixture) {
			c := x.scripted(driver.None, true, tt.script...)
			s, err := c.Sender(x.Context(), orders, nil)
			x.Must(err)
			_, _ = s.Send(x.Context(), &queue.Message{ID: "first"}) // as the script says
			first := x.numbered(c, s)
			for range 300 {
				_, err := s.Send(x.Context(), &queue.Message{})
				x.Must(err)
			}
			last := x.numbered(c, s)
			if ended := last.Stream != first.Stream; ended != tt.ends || ended != (last.Settled > 0 && last.Sequence < 300) {
				x.Errorf("%s: the stream has ended: %v, want %v; sequence %d, settled %d", name, ended, tt.ends, last.Sequence, last.Settled)
			}
		})
	}
}

// If the context ends while the broker is asked, the error says both.
func TestSendContextEnds(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		c := x.scripted(driver.None, true, silence)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		ctx, cancel := context.WithTimeout(x.Context(), 50*time.Millisecond)
		defer cancel()
		for _, ctx := range []context.Context{ctx, done(x.Context())} {
			before := len(c.tries)
			_, err = s.Send(ctx, &queue.Message{})
			tried := len(c.tries) > before
			if errors.Is(err, queue.ErrUnconfirmed) != tried || err == nil {
				x.Errorf("Send = %v, tried %v", err, tried)
			}
		}
		during := x.scripted(driver.None, true, outcome{context.DeadlineExceeded, true})
		s, err = during.Sender(x.Context(), orders, nil)
		x.Must(err)
		ctx, cancel = context.WithCancel(x.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, err = s.Send(ctx, &queue.Message{}); !errors.Is(err, queue.ErrUnconfirmed) || !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("Send = %v, want ErrUnconfirmed and the context's error", err)
		}
	})
}

// done returns a context that has ended.
func done(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// SendBatch and Batcher say the same, and repeat the same bytes.
func TestBatchUnconfirmed(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		c := x.scripted(driver.None, true, silence, refusal)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		r, err := s.SendBatch(x.Context(), []*queue.Message{{ID: "m"}})
		if !errors.Is(err, queue.ErrUnconfirmed) || !errors.Is(r[0].Err, queue.ErrUnconfirmed) {
			x.Errorf("SendBatch = %v, %v", r, err)
		}
		x.repeated(c, 2)
	})
	for name, tt := range map[string]struct {
		plain  bool
		dedup  driver.Support
		script []outcome
		tries  int
		want   error
	}{
		"sealed":                {script: []outcome{silence, silence, {}}, tries: 3},
		"sealed, then refused":  {script: []outcome{silence, refusal}, tries: 2, want: queue.ErrUnconfirmed},
		"sealed, never":         {script: []outcome{silence}, tries: 8, want: queue.ErrUnconfirmed},
		"plaintext":             {plain: true, script: []outcome{silence}, tries: 1, want: queue.ErrUnconfirmed},
		"plaintext and Dedup":   {plain: true, dedup: driver.Native, script: []outcome{silence, {}}, tries: 2},
		"plaintext, throttled":  {plain: true, script: []outcome{slow, {}}, tries: 2},
		"refused, not the last": {script: []outcome{refusal}, tries: 1, want: queue.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(x *fixture) {
				c := x.scripted(tt.dedup, !tt.plain, tt.script...)
				s, err := c.Sender(x.Context(), orders, nil)
				x.Must(err)
				b, err := queue.NewBatcher(s, &queue.BatcherOptions{MaxAttempts: 8})
				x.Must(err)
				_, err = b.Send(x.Context(), &queue.Message{ID: "m", Body: []byte("a")})
				if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
					x.Errorf("Send = %v, want %v", err, tt.want)
				}
				x.repeated(c, tt.tries)
				x.Must(b.Close(x.Context()))
			})
		})
	}
}

// A Batcher that is closed, or left, before the broker has answered says so.
func TestBatcherUnconfirmed(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		c := x.scripted(driver.None, true, silence)
		s, err := c.Sender(x.Context(), orders, nil)
		x.Must(err)
		b, err := queue.NewBatcher(s, nil)
		x.Must(err)
		ctx, cancel := context.WithTimeout(x.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := b.Send(ctx, &queue.Message{}); !errors.Is(err, queue.ErrUnconfirmed) || !errors.Is(err, context.DeadlineExceeded) {
			x.Errorf("Send whose context ended = %v", err)
		}
		x.Must(b.Close(x.Context()))
		b, err = queue.NewBatcher(s, nil)
		x.Must(err)
		var got error
		x.Must(b.SendAsync(x.Context(), &queue.Message{}, func(r queue.SendResult) { got = r.Err }))
		ctx, cancel = context.WithTimeout(x.Context(), 20*time.Millisecond)
		defer cancel()
		_ = b.Close(ctx) // in the middle of repeats
		if !errors.Is(got, queue.ErrUnconfirmed) || !errors.Is(got, queue.ErrClosed) {
			x.Errorf("after Close: %v, want ErrUnconfirmed and ErrClosed", got)
		}
	})
}
