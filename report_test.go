package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
)

// level returns the level of the log's line with that text; "" if there is none.
func (x *fixture) level(text string) string {
	for line := range strings.Lines(x.Log.String()) {
		if strings.Contains(line, text) {
			_, rest, _ := strings.Cut(line, `"level":"`)
			level, _, _ := strings.Cut(rest, `"`)
			return level
		}
	}
	return ""
}

// otherKeys are of none of the tests' messages.
func otherKeys(string) keys.Provider {
	k, err := keys.New("k9", []byte(strings.Repeat("9", keys.Size)), nil)
	if err != nil {
		panic(err)
	}
	ring, err := keys.NewRing(k)
	if err != nil {
		panic(err)
	}
	return ring
}

// TestWhatIsToldOfAMessage: each event, log line and callback, once, by what became of the
// message; that it was dead-lettered only if it was.
func TestWhatIsToldOfAMessage(t *testing.T) {
	plain := driver.Message{ID: "plain", Body: []byte("plain")}
	for name, c := range map[string]struct {
		change   func(*queue.Options)
		message  driver.Message // "" in its ID: a sealed one is sent
		settle   error
		want     []string
		line     string
		level    string
		rejected int
	}{
		"sealed": {
			want: []string{`received 4 bytes encrypted true under "k1"`}, line: "Message received with encryption", level: "INFO",
		},
		"plain": {
			change: func(o *queue.Options) { o.Crypto.PlaintextPolicy = queue.Allow }, message: plain,
			want: []string{`received 5 bytes encrypted false under ""`}, line: "Message received WITHOUT encryption", level: "WARN",
		},
		"plain, with an alert": {
			change: func(o *queue.Options) { o.Crypto.PlaintextPolicy = queue.AllowWithAlert }, message: plain,
			want: []string{`received 5 bytes encrypted false under ""`, "crypto error plaintext_allowed"}, line: "Message received WITHOUT encryption", level: "ERROR",
		},
		"plain, refused": {
			message: plain,
			want:    []string{"crypto error plaintext_rejected", `rejected plaintext_rejected dead_lettered under "", settling failed false`, "dead-lettered plaintext_rejected"},
			line:    "Message rejected", level: "ERROR", rejected: 1,
		},
		"plain, and the broker fails": {
			message: plain, settle: errFailing,
			want: []string{"crypto error plaintext_rejected", `rejected plaintext_rejected lost under "", settling failed true`},
			line: "Message rejected", level: "ERROR", rejected: 1,
		},
		"under an unknown key": {
			change: func(o *queue.Options) { o.Keys = nil; o.KeysFor = otherKeys },
			want:   []string{"crypto error key_not_found", `rejected key_not_found abandoned under "k1", settling failed false`},
			line:   "Message rejected", level: "WARN", rejected: 1,
		},
		"under an unknown key, and the broker fails": {
			change: func(o *queue.Options) { o.Keys = nil; o.KeysFor = otherKeys }, settle: errFailing,
			want: []string{"crypto error key_not_found", `rejected key_not_found lost under "k1", settling failed true`},
			line: "Message rejected", level: "ERROR", rejected: 1,
		},
	} {
		inBubble(t, nil, func(x *fixture) {
			x.Sender(orders)
			if c.message.ID == "" {
				x.Send(&queue.Message{ID: "sealed", Body: []byte("body")})
			} else {
				x.Send(&queue.Message{ID: "first", Body: []byte("first")}) // so that the queue is there
				x.Rewrite(orders, func([]driver.Message) []driver.Message { return []driver.Message{c.message} })
			}
			o, called := &diary{}, 0
			p := &failingBroker{fails: map[string]error{"settle": c.settle}}
			r := x.receives(x.behind(p, func(q *queue.Options) {
				q.Observer = o
				q.OnRejected = func(context.Context, *queue.RejectedError) { called++ }
				if c.change != nil {
					c.change(q)
				}
			}), nil)
			b, err := r.Fetch(x.Context(), 1)
			x.Must(err)
			var got []string
			for _, prefix := range []string{"received", "crypto error", "rejected", "duplicate", "dead-lettered", "paused", "resumed"} {
				got = append(got, o.of(prefix)...)
			}
			slices.Sort(got)
			slices.Sort(c.want)
			x.told(name, got, c.want...)
			if level := x.level(c.line); level != c.level || called != c.rejected || len(b.Rejected) != c.rejected || len(b.Deliveries) != 1-c.rejected {
				x.Errorf("%s: level %q, %d calls, %d rejected, %d delivered", name, level, called, len(b.Rejected), len(b.Deliveries))
			}
			if c.rejected == 1 && (b.Rejected[0].SettleErr != nil) != (c.settle != nil) {
				x.Errorf("%s: SettleErr %v", name, b.Rejected[0].SettleErr)
			}
			if said := x.logged("settle_error") > 0 && x.logged(`"disposition":"lost"`) > 0; said != (c.settle != nil) {
				x.Errorf("%s: %s", name, x.Log)
			}
		})
	}
}

// TestDuplicateIsTold: a copy of what was handled is completed and told as such, and nothing is
// said of it to OnRejected.
func TestDuplicateIsTold(t *testing.T) {
	for _, settle := range []error{nil, errFailing} {
		inBubble(t, nil, func(x *fixture) {
			x.Send(&queue.Message{ID: "m", Body: []byte("a")})
			stolen := x.Steal()
			x.Must(x.One(x.Receiver(orders, nil)).Complete(x.Context()))
			x.Inject(orders, stolen)
			o := &diary{}
			p := &failingBroker{fails: map[string]error{"settle": settle}}
			r := x.receives(x.behind(p, func(q *queue.Options) {
				q.Observer = o
				q.OnRejected = func(_ context.Context, e *queue.RejectedError) { x.Errorf("rejected: %v", e) }
			}), nil)
			b, err := r.Fetch(x.Context(), 1)
			x.failed("Fetch", err, queue.ErrNoMessage, "receive")
			got := o.of("duplicate")
			if len(got) == 0 || got[0] != fmt.Sprintf(`duplicate under "k1", settling failed %v`, settle != nil) || x.level("only its completion was lost") != "INFO" {
				x.Errorf("told %q, log %s", got, x.Log)
			}
			if completed, failed := x.logged("was lost: completed") > 0, x.logged("settle_error") > 0; completed != (settle == nil) || failed != (settle != nil) {
				x.Errorf("settling answers %v, log %s", settle, x.Log)
			}
			if len(b.Deliveries)+len(b.Rejected) != 0 || len(o.of("rejected"))+len(o.of("crypto error"))+len(o.of("dead-lettered")) != 0 {
				x.Errorf("%+v, told %q", b, o.lines)
			}
		})
	}
}

// TestReceiveIsTold: each call to the broker, with what it brought, the traces of the messages
// and whether it failed.
func TestReceiveIsTold(t *testing.T) {
	for _, traces := range []bool{false, true} {
		inBubble(t, func(_ *fixture, o *queue.Options) { o.Observer = traced{} }, func(x *fixture) {
			for range 3 {
				x.Send(&queue.Message{Body: []byte("a")})
			}
			p := &failingBroker{}
			o := &receives{traces: traces}
			r := x.receives(x.behind(p, func(q *queue.Options) { q.Observer = o }), nil)
			got, err := r.Receive(x.Context(), 10)
			x.Must(err)
			if len(got) != 3 {
				x.Errorf("%d messages", len(got))
			}
			p.set(func() { p.fails = map[string]error{"receive": errFailing} })
			_, err = r.Receive(x.Context(), 7)
			x.failed("Receive", err, errFailing, "receive")
			links := map[bool]int{true: 3}[traces]
			want := []string{fmt.Sprintf("10: 3, %d links, failed false", links), "7: 0, 0 links, failed true"}
			x.told("Receive", o.lines, want...)
		})
	}
}

// receives is an Observer of the calls that receive.
type receives struct {
	observe.Nop
	traces bool
	lines  []string
}

func (o *receives) Traces() bool { return o.traces }

func (o *receives) Begin(ctx context.Context, _ observe.Source, op observe.Operation) (context.Context, func(observe.Result)) {
	if op.Kind != observe.Receive {
		return ctx, func(observe.Result) {}
	}
	return ctx, func(r observe.Result) {
		links := 0
		for _, l := range r.Links {
			if l["traceparent"] != "" {
				links++
			}
		}
		o.lines = append(o.lines, fmt.Sprintf("%d: %d, %d links, failed %v", op.Count, r.Count, links, r.Err != nil))
		if r.Took != 0 && r.Err == nil {
			o.lines = append(o.lines, fmt.Sprintf("took %s in a bubble", r.Took))
		}
	}
}

// TestReceiveRefuses what cannot be meant, before the broker is asked.
func TestReceiveRefuses(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		p := &failingBroker{}
		c := x.behind(p, nil)
		r := x.receives(c, nil)
		for _, n := range []int{0, -1} {
			_, err := r.Receive(x.Context(), n)
			x.failed("Receive", err, queue.ErrInvalidOptions, "receive")
		}
		_, err := r.Receive(noContext, 1)
		x.failed("Receive", err, queue.ErrInvalidOptions, "receive")
		left, cancel := context.WithCancel(x.Context())
		cancel()
		if _, err := r.Receive(left, 1); !errors.Is(err, context.Canceled) {
			x.Errorf("a caller that left: %v", err)
		}
		_, err = r.ReceiveOne(x.Context())
		x.failed("ReceiveOne", err, queue.ErrNoMessage, "receive")
		got, err := r.Receive(x.Context(), 1)
		x.failed("Receive", err, queue.ErrNoMessage, "receive")
		if got != nil {
			x.Errorf("Receive of nothing: %v", got)
		}
		before := p.count("receive")
		x.Must(c.Close(x.Context()))
		_, err = r.Receive(x.Context(), 1)
		x.failed("Receive", err, queue.ErrClosed, "receive")
		if before != 2 || p.count("receive") != before {
			x.Errorf("the broker was asked %d times, then %d", before, p.count("receive"))
		}
	})
}

// TestShortAnswersToRejections: messages of which the driver does not say what became are
// reported all the same.
func TestShortAnswersToRejections(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{Body: []byte("a")})
		x.Rewrite(orders, func([]driver.Message) []driver.Message {
			return []driver.Message{{ID: "1", Body: []byte("plain")}, {ID: "2", Body: []byte("plain")}}
		})
		p := &failingBroker{short: map[string]bool{"settle": true}}
		b, err := x.receives(x.behind(p, nil), nil).Fetch(x.Context(), 10)
		if err != nil || len(b.Rejected) != 2 || b.Rejected[0].SettleErr != nil {
			x.Errorf("batch %+v, %v; want two rejected and settled", b, err)
		}
		if b.Rejected[1].SettleErr == nil || x.logged(`"disposition":"lost"`) != 1 {
			x.Errorf("of the second nothing is known, and it is told as %v: %s", b.Rejected[1], x.Log)
		}
		const failed = "; settling it failed: "
		if strings.Contains(b.Rejected[0].Error(), failed) || !strings.HasSuffix(b.Rejected[1].Error(), failed+b.Rejected[1].SettleErr.Error()) {
			x.Errorf("the errors %q and %q; want that the second says why settling failed", b.Rejected[0], b.Rejected[1])
		}
		if n := p.count("settle"); n != 1 || p.last("settle").Err() == nil {
			x.Errorf("%d calls, and the context goes on: %v", n, p.last("settle").Err() == nil)
		}
		x.Send(&queue.Message{Body: []byte("a")})
		x.One(x.receives(x.behind(p, nil), nil))
		if p.count("settle") != 1 {
			x.Error("a call that settles nothing is made")
		}
	})
}

// TestCallerThatLeavesAFetch: what came for it is given back at once.
func TestCallerThatLeavesAFetch(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		ctx, cancel := context.WithCancel(x.Context())
		store := &finishing{Store: x.Store}
		p := &failingBroker{}
		o := &leaving{cancel: cancel}
		r := x.receives(x.behind(p, func(q *queue.Options) { q.ReplayStore, q.Observer = store, o }), nil)
		b, err := r.Fetch(ctx, 1)
		if !errors.Is(err, context.Canceled) || len(b.Deliveries) != 0 {
			x.Errorf("batch %+v, %v; want context.Canceled alone", b, err)
		}
		if d := x.One(x.receives(x.behind(&failingBroker{}, nil), &queue.ReceiverOptions{Wait: time.Millisecond})); d.ID != "m" {
			x.Error("the message is not free")
		}
	})
}

// leaving is an Observer that ends a context once a message was received.
type leaving struct {
	observe.Nop
	cancel context.CancelFunc
}

func (o *leaving) Received(context.Context, observe.Source, observe.Received) { o.cancel() }
